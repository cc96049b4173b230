"""Copies of audit files in a folder: fetched with the digests that sign them, and checked without an installation."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING

from backhaul_client.auditmodels import AuditDigest, AuditFile, AuditFinding, AuditVerification
from backhaul_client.errors import BrokenOffError, FailedPreconditionError, NotFoundError
from backhaul_digests.chain import Span, verify
from backhaul_digests.copies import Copies, KeyFile
from backhaul_digests.findings import Tally
from backhaul_digests.line import PREFIX, signature_line

from backhaul_cli.failing import Code, FailedError

if TYPE_CHECKING:
    from backhaul_client import TenantClient
    from backhaul_client.auditmodels import AuditKey
    from backhaul_digests.model import Finding

CHAINS = ("events", "backfill")
NO_DIGEST = "Say another --from and --to; a hash that you kept (--head) tells whether digests were taken away."
"""What to do where nothing was verified."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FILES = 500


def whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write ``pieces`` to ``path``: under its name it is whole, or not there."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as opened:
            opened.writelines(pieces)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@dataclass
class Fetched:
    """What lies in the folder now, and what was ``missing``: named, and not to be fetched whole. ``heads`` are the last
    digests of the chains before it began."""

    heads: tuple[AuditDigest, ...]
    digests: int = 0
    files: int = 0
    bytes: int = 0
    unsigned: int = 0
    missing: list[str] = field(default_factory=list)


def fetch(
    backhaul: TenantClient,
    folder: Path,
    *,
    from_: datetime | None,
    to: datetime | None,
    chains: Sequence[str],
    told: Callable[[str], None],
) -> Fetched:
    """Fetch what ``check`` needs of a span of time: what was signed then, the digest before it, and all after it, which
    say what was deleted since. Files that are there as they should be are not fetched again."""
    done = Fetched(tuple(head for head in backhaul.audit_heads() if head.chain in chains))
    wanted = set()
    for head in done.heads:
        for digest in _since(backhaul, head, from_):
            path = _below(folder, digest.key)
            if not _is_digest(path, digest):
                _get(done, path, digest.key, partial(_digest, backhaul, digest))
            done.digests += 1
            if _within(digest, from_, to):
                wanted.add((digest.chain, digest.number))
            told(f"{done.digests} digests")
    for file in backhaul.audit_files(page_size=_FILES):
        done.unsigned += not file.digest and file.chain in chains
        if (file.chain, file.digest) not in wanted or file.deleted_at is not None:
            continue
        path = _below(folder, file.key)
        if not _is_file(path, file):
            _get(done, path, file.key, partial(backhaul.audit_content, file.id))
        done.files += 1
        done.bytes += file.bytes
        told(f"{done.digests} digests, {done.files} files, {done.bytes} bytes")
    return done


def _since(backhaul: TenantClient, head: AuditDigest, from_: datetime | None) -> Iterator[AuditDigest]:
    """The digests of a chain up to ``head``, the latest first, down to the one before ``from_``, by which those after
    it hold."""
    for digest in backhaul.audit_digests(chain=head.chain):
        if digest.number > head.number:
            continue
        yield digest
        if from_ is not None and digest.ends_at is not None and digest.ends_at <= from_:
            return


def _within(digest: AuditDigest, from_: datetime | None, to: datetime | None) -> bool:
    ended = from_ is not None and digest.ends_at is not None and digest.ends_at <= from_
    return not ended and (to is None or digest.begins_at is None or digest.begins_at < to)


def _digest(backhaul: TenantClient, digest: AuditDigest) -> list[bytes]:
    return [backhaul.audit_digest(digest.chain, digest.number)]


def _get(done: Fetched, path: Path, key: str, pieces: Callable[[], Iterable[bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        whole(path, pieces())
    except (NotFoundError, FailedPreconditionError, BrokenOffError):
        # It was taken away, or its bucket was; or it is shorter than it was, which only shows at its end. The others
        # are to be had all the same, and so is the verification, which says what is wrong.
        done.missing.append(key)


def _below(folder: Path, key: str) -> Path:
    """Where a copy of ``key`` lies. Nothing that is answered names a file outside of ``folder``."""
    path = folder.joinpath(*key.split("/"))
    if not path.resolve().is_relative_to(folder.resolve()):
        raise FailedError(f"The answer names {key!r}, which is not below the folder.", "Check the address of Backhaul.")
    return path


def _is_digest(path: Path, digest: AuditDigest) -> bool:
    if not path.is_file():
        return False
    line, _, below = path.read_bytes().partition(b"\n")
    signed = below == signature_line(digest.key_id, digest.signature) + b"\n"
    return signed and sha256(line).hexdigest() == digest.hash


def _is_file(path: Path, file: AuditFile) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest() == file.sha256


def keys_of(told: Sequence[AuditKey]) -> KeyFile:
    """The keys as the installation has them."""
    return KeyFile({one.key_id: base64.b64decode(one.public_key) for one in told})


def check(
    folder: Path,
    keys: KeyFile,
    *,
    from_: datetime | None,
    to: datetime | None,
    chains: Sequence[str],
    heads: Sequence[str],
    told: Callable[[AuditVerification], None],
) -> None:
    """Tell what is found of the copies in ``folder``, one after the other, and how much of it, and last that it is
    done. ``FailedError`` where there is nothing to check: that is no proof of anything."""
    # Whoever has kept a head is told by it that all digests were taken away.
    if not heads and not (folder / PREFIX).is_dir():
        raise FailedError(
            f"{folder} has no folder {PREFIX.rstrip('/')}.",
            "Nothing was verified: name the one that has it, as backhaul audits get --all made it.",
            code=Code.NOT_FOUND,
        )
    copies, tally = Copies(folder, {}), Tally()

    async def walk() -> None:
        span = Span(_us(from_), _us(to))
        of = [one for one in copies.chains() if one.chain in chains]
        async with aclosing(verify(copies, keys, of, span, heads, tally)) as findings:
            async for finding in findings:
                told(_so_far(tally, (_finding(finding),)))

    asyncio.run(walk())
    if not (tally.digests or tally.invalid):
        raise FailedError(f"{folder} has no digest of that time: nothing was verified.", NO_DIGEST, code=Code.NOT_FOUND)
    told(_so_far(tally, (), done=True))


def _finding(one: Finding) -> AuditFinding:
    return AuditFinding(
        chain=one.chain,
        subject=one.subject,
        name=one.name,
        valid=one.valid,
        problem=one.problem or None,
        detail=one.detail or None,
    )


def _so_far(tally: Tally, findings: tuple[AuditFinding, ...], *, done: bool = False) -> AuditVerification:
    return AuditVerification(
        findings=findings,
        digests=tally.digests,
        valid_digests=tally.valid_digests,
        files=tally.files,
        valid_files=tally.valid_files,
        found_from=_time(tally.found_from_us),
        found_to=_time(tally.found_to_us),
        done=done,
    )


def _us(moment: datetime | None) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) if moment is not None else 0


def _time(us: int) -> datetime | None:
    return _EPOCH + timedelta(microseconds=us) if us else None
