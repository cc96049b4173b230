"""A chain that was signed, in memory or in a folder; and three who verify it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import importlib.util
import io
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from backhaul_audit import verify as command
from backhaul_audit.digests.composing import Covered, Deletion, composed
from backhaul_audit.model import Content, FileFormat, PileKey, Plan, SealedFile, Shape
from backhaul_digests.chain import Span, verify
from backhaul_digests.findings import Tally
from backhaul_digests.line import to_object
from backhaul_digests.model import Chain, ChainKey, Digest, Finding
from backhaul_digests.ports import NotThereError, Place
from backhaul_digests.signing import SigningKey

BUCKET = "backhaul"
ACME = "acme.0123456789abcdef"
HOUR_US = 3_600_000_000
START_US = 1_768_464_000_000_000
"""2026-01-15T08:00:00Z."""

ALL = Span()

SCRIPT = Path(__file__).parents[3] / "docs" / "verify_audit.py"

Found = set[tuple[str, str, str]]
"""What was found to be invalid: its kind, its key or hash (spans have no name), and the problem."""


def sealed(
    number: int, lines: Sequence[bytes], *, of: ChainKey, zipped: bool, array: bool = False, bucket: str = BUCKET
) -> tuple[SealedFile, bytes]:
    """A file with these lines, and its bytes."""
    plain = b"".join(line + b"\n" for line in lines)
    if array:
        plain = b"[\n" + b",\n".join(lines) + b"\n]\n"
    data = gzip.compress(plain, mtime=0) if zipped else plain
    suffix = ".json.gz" if zipped else ".json"
    key = f"tenants/{of.registration}/events/channel=sendgrid/dt=2026-01-15/AUDIT_{number:05}_{of.chain}_Events{suffix}"
    at_us = START_US + number * 1_000_000
    plan = Plan(
        id=f"{number:032x}",
        pile=PileKey(of.registration, "sendgrid", of.chain),
        tenant_id="acme",
        destination="",
        bucket=bucket,
        key=key,
        shape=Shape("events", FileFormat.ARRAY if array else FileFormat.JSON_LINES, gzip=zipped),
        first=number * 10,
        last=number * 10 + 9,
    )
    content = Content(
        events=len(lines),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        inflated_bytes=len(plain),
        inflated_sha256=hashlib.sha256(plain).hexdigest(),
        first_at_us=at_us,
        last_at_us=at_us + 500,
    )
    return SealedFile(plan, content, number, at_us + 1000), data


@dataclass
class World:
    """Objects by key, as a bucket holds them: a ``Stored`` and ``PublicKeys``."""

    objects: dict[str, bytes] = field(default_factory=dict)
    key: SigningKey = field(default_factory=SigningKey.new)
    keys: dict[str, bytes] = field(default_factory=dict)
    digests_made: dict[ChainKey, list[Digest]] = field(default_factory=dict)
    files: dict[ChainKey, list[SealedFile]] = field(default_factory=dict)
    bucket: str = BUCKET
    waiting: list[SealedFile] = field(default_factory=list)
    deleted: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys[self.key.id] = self.key.public

    def file(
        self,
        *lines: bytes,
        chain: Chain = Chain.EVENTS,
        zipped: bool = True,
        array: bool = False,
        registration: str = ACME,
    ) -> SealedFile:
        """Seal one."""
        of = ChainKey(registration, chain)
        number = len(self.files.setdefault(of, [])) + 1
        file, data = sealed(number, lines or (b'{"a":1}',), of=of, zipped=zipped, array=array)
        self.files[of].append(file)
        self.waiting.append(file)
        self.objects[file.plan.key] = data
        return file

    def digest(
        self,
        *deletions: SealedFile,
        chain: Chain = Chain.EVENTS,
        hours: int = 1,
        registration: str = ACME,
        files: Sequence[SealedFile] | None = None,
    ) -> Digest:
        """Sign what waits."""
        of = ChainKey(registration, chain)
        made = self.digests_made.setdefault(of, [])
        previous = made[-1] if made else None
        begins = previous.to_us if previous else START_US
        mine = [file for file in self.waiting if file.plan.pile.of == of] if files is None else files
        self.waiting = [file for file in self.waiting if file.plan.pile.of != of]
        gone = [Deletion(file.number, file.plan.key, begins, "retention") for file in deletions]
        covered = Covered(of, "acme", BUCKET, begins, begins + hours * HOUR_US, mine, gone)
        digest = composed(covered, previous, self.key)
        made.append(digest)
        self.put(digest)
        return digest

    def put(self, digest: Digest) -> None:
        """Store a digest in its place."""
        self.objects[digest.key] = to_object(digest.line, digest.key_id, digest.signature)

    def rotate(self) -> None:
        """Sign with a new key from now on."""
        self.key = SigningKey.new()
        self.keys[self.key.id] = self.key.public

    # As ``Stored`` and ``PublicKeys``.

    async def digests(self, prefix: str) -> AsyncIterator[str]:
        """See ``Stored``."""
        for key in sorted(key for key in self.objects if key.startswith(prefix)):
            yield key

    async def read(self, place: Place) -> AsyncIterator[bytes]:
        """See ``Stored``."""
        if (data := self.objects.get(place.key)) is None:
            raise NotThereError("It is not there.")
        for at in range(0, len(data), 7000):
            yield data[at : at + 7000]

    async def public(self, key_id: str) -> bytes | None:
        """See ``PublicKeys``."""
        return self.keys.get(key_id)

    # Three who verify.

    def found(self, span: Span = ALL, heads: Sequence[str] = (), **more: Any) -> tuple[list[Finding], Tally]:
        """By the checks, as the service makes them."""
        chains = sorted(self.digests_made)

        async def collect() -> tuple[list[Finding], Tally]:
            tally = Tally()
            return [one async for one in verify(self, self, chains, span, heads, tally, **more)], tally

        return asyncio.run(collect())

    def by_service(self, heads: Sequence[str] = ()) -> tuple[Found, str]:
        """What is invalid, and the summary."""
        findings, tally = self.found(heads=heads)
        said = f"{tally.valid_digests}/{tally.digests} digests valid, {tally.valid_files}/{tally.files} files valid"
        return {
            (one.subject.value, "" if one.subject == "span" else one.name.removeprefix(f"{BUCKET}/"), one.problem)
            for one in findings
            if one.problem
        }, said

    def save(self, root: Path) -> Path:
        """Make copies of everything; the key file."""
        for key, data in self.objects.items():
            path = root / "copies" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (root / "copies").mkdir(exist_ok=True)
        keys = root / "keys.json"
        keys.write_text(
            json.dumps(
                {
                    "keys": [
                        {"key_id": name, "algorithm": "Ed25519", "public_key": _b64(public)}
                        for name, public in self.keys.items()
                    ]
                }
            )
        )
        return keys

    def by_command(self, root: Path, heads: Sequence[str] = ()) -> tuple[Found, str, int]:
        """The same by the command, on copies; and how it ended."""
        keys = self.save(root)
        arguments = ["--offline", str(root / "copies"), "--keys", str(keys), *(f"--head={head}" for head in heads)]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = command.main(arguments)
        return *_read(out.getvalue()), code

    def by_script(self, root: Path, heads: Sequence[str] = ()) -> tuple[Found, str, int]:
        """The same by the program that knows nothing of Backhaul."""
        keys = self.save(root)
        return run_script(root / "copies", keys, heads)


def run_script(copies: Path, keys: Path, heads: Sequence[str]) -> tuple[Found, str, int]:
    """What the program that knows nothing of Backhaul finds of copies."""
    arguments = [str(SCRIPT), str(copies), str(keys), *(f"--head={head}" for head in heads)]
    with contextlib.redirect_stdout(io.StringIO()) as out, patch("sys.argv", arguments):
        code = script().main()
    return *_read(out.getvalue()), code


def script() -> Any:
    """The independent verifier, as a module."""
    spec = importlib.util.spec_from_file_location("verify_audit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def day() -> World:
    """Six hours of a tenant: files of every format, an hour without any, a backfill, two keys, a deletion."""
    world = World()
    first = world.file(b'{"a":1}', b'{"b":2}')
    world.file(b'{"c":3}', zipped=False)
    world.digest()
    world.file(b'{"d":4}', b'{"e":5}', array=True)
    world.file(b'{"late":1}', chain=Chain.BACKFILL)
    world.digest()
    world.digest(chain=Chain.BACKFILL, hours=2)
    world.digest()
    world.rotate()
    world.file(b'{"f":6}', zipped=False, array=True)
    world.digest(hours=2)
    world.digest(first)
    world.deleted[first.plan.key] = world.objects.pop(first.plan.key)
    world.digest()
    return world


def resigned(digest: Digest, key: SigningKey, **changed: Any) -> Digest:
    """``digest`` with some of its line changed, signed by ``key`` as what it says it is signed by."""
    said = json.loads(digest.line) | changed
    line = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    text = "\n".join((
        said["digestEndTime"],
        f"{said['digestBucket']}/{said['digestObject']}",
        hashlib.sha256(line).hexdigest(),
        said["previousDigestSignature"] or "null",
    ))  # fmt: skip
    signature = _b64(key.private.sign(text.encode()))
    return replace(digest, line=line, hash=hashlib.sha256(line).hexdigest(), signature=signature, key_id=key.id)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _read(text: str) -> tuple[Found, str]:
    *lines, summary = text.splitlines()
    found = set()
    for line in lines:
        if "\tINVALID: " in line:
            what, name, said, *_ = line.split("\t")
            name = "" if what == "Span" else name.removeprefix(f"{BUCKET}/")
            found.add((what.lower(), name, said.removeprefix("INVALID: ")))
    return found, summary
