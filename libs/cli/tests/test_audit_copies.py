"""Copies of audit files: fetched so that they can be verified, and whatever was done to them is found and named."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from answering import Gateway
from backhaul_cli import profiles
from backhaul_cli.__main__ import main
from backhaul_client.auditmodels import AuditDigest, AuditFile
from backhaul_digests.copies import Copies
from backhaul_digests.line import DigestLine, FileEntry, iso, key_of, to_object, us
from backhaul_digests.model import Chain, ChainKey, Digest
from backhaul_digests.ports import Place
from backhaul_digests.signing import SigningKey

OF = ChainKey("acme.0123456789abcdef", Chain.EVENTS)
START = datetime(2026, 1, 15, 8, tzinfo=UTC)
KEY = SigningKey.from_text(43 * "A" + "=")


@dataclass
class Chained:
    """Three hours of a tenant, a file in each, as the gateway answers them."""

    digests: list[Digest] = field(default_factory=list)
    files: list[AuditFile] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)

    def hour(self) -> None:
        number, before = len(self.digests) + 1, self.digests[-1] if self.digests else None
        begin = START + timedelta(hours=number - 1)
        end = begin + timedelta(hours=1)
        plain = b'{"a":%d}\n' % number
        data = gzip.compress(plain)
        file = _file(number, data, plain, begin)
        end_us = us(f"{end:%Y-%m-%dT%H:%M:%S.%fZ}")
        key = key_of(OF, number, end_us)
        line = DigestLine(
            tenant_id="acme",
            registration=OF.registration,
            chain=OF.chain,
            digest_number=number,
            digest_start_time=iso(end_us - 3_600_000_000),
            digest_end_time=iso(end_us),
            digest_bucket="backhaul",
            digest_object=key,
            digest_public_key_id=KEY.id,
            newest_event_time=None,
            oldest_event_time=None,
            previous_digest_bucket=before.bucket if before else None,
            previous_digest_object=before.key if before else None,
            previous_digest_hash_value=before.hash if before else None,
            previous_digest_hash_algorithm="SHA-256" if before else None,
            previous_digest_signature=before.signature if before else None,
            files=[_entry(file)],
            deletions=[],
        )
        digest = KEY.sign(line)
        self.digests.append(digest)
        self.files.append(file)
        self.objects |= {key: to_object(digest.line, digest.key_id, digest.signature), file.key: data}

    def answers(self, gateway: Gateway) -> None:
        digests = [msgspec.to_builtins(_told(one)) for one in reversed(self.digests)]
        files = [msgspec.to_builtins(one) for one in reversed(self.files)]
        gateway.says("GET /v1/audits/head", {"heads": digests[:1]})
        gateway.says("GET /v1/audits/digests", {"digests": digests, "next_cursor": None})
        gateway.says("GET /v1/audits", {"files": files, "next_cursor": None})
        public = base64.b64encode(KEY.public).decode()
        key = {"key_id": KEY.id, "algorithm": "Ed25519", "public_key": public, "created_at": None}
        gateway.says("GET /.well-known/backhaul-audit-keys", {"keys": [key]})
        for digest in self.digests:
            gateway.says(f"GET /v1/audits/digests/events/{digest.number}", self.objects[digest.key].decode())
        for file in self.files:
            gateway.says(f"GET /v1/audits/{file.id}/content", Whole(self.objects[file.key]))


class Whole(str):
    """Bytes that are answered to their end."""

    __slots__ = ()

    def __new__(cls, data: bytes) -> Whole:
        return super().__new__(cls, data.decode("latin-1"))

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return super().encode("latin-1")


def _file(number: int, data: bytes, plain: bytes, at: datetime) -> AuditFile:
    return AuditFile(
        id=f"{number:032}",
        channel="twilio",
        chain="events",
        number=number,
        bucket="backhaul",
        key=f"tenants/{OF.registration}/AUDIT_{number}_Events.json.gz",
        format="jsonl",
        gzip=True,
        events=1,
        bytes=len(data),
        sha256=sha256(data).hexdigest(),
        inflated_bytes=len(plain),
        inflated_sha256=sha256(plain).hexdigest(),
        first_position=number,
        last_position=number,
        first_at=at,
        last_at=at,
        sealed_at=at,
        deleted_at=None,
        digest=number,
    )


def _entry(file: AuditFile) -> FileEntry:
    return FileEntry(
        number=file.number,
        channel=file.channel,
        destination="",
        bucket=file.bucket,
        object=file.key,
        format="jsonl",
        gzip=True,
        events=1,
        bytes=file.bytes,
        hash_value=file.sha256,
        inflated_bytes=file.inflated_bytes,
        inflated_hash_value=file.inflated_sha256,
        first_position=1,
        last_position=1,
        first_event_time=iso(us("2026-01-15T08:00:00.000000Z")),
        last_event_time=iso(us("2026-01-15T08:00:00.000000Z")),
    )


def _told(digest: Digest) -> AuditDigest:
    return AuditDigest(
        chain="events",
        number=digest.number,
        begins_at=datetime.fromtimestamp(digest.from_us / 1e6, UTC),
        ends_at=datetime.fromtimestamp(digest.to_us / 1e6, UTC),
        bucket=digest.bucket,
        key=digest.key,
        hash=digest.hash,
        key_id=digest.key_id,
        signature=digest.signature,
        files=1,
        deletions=0,
    )


@pytest.fixture
def chained(gateway: Gateway) -> Chained:
    made = Chained()
    for _ in range(3):
        made.hour()
    made.answers(gateway)
    return made


def copies(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def invalid(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[tuple[str, str]]]:
    capsys.readouterr()
    code = main(["audits", "verify", *arguments, "--json"])
    out = capsys.readouterr().out
    found = json.loads(out)["findings"] if out else []
    return code, [(one["name"].removeprefix("backhaul/"), one["problem"]) for one in found if not one["valid"]]


def test_what_is_fetched_is_verified_without_an_installation(
    gateway: Gateway,
    chained: Chained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "copies"
    assert main(["audits", "get", "--all", str(folder)]) == 0
    said = capsys.readouterr()
    head = chained.digests[-1].hash
    assert head in said.out
    assert f"backhaul audits verify {folder}" in said.err
    assert copies(folder) == {*chained.objects, "keys.json"}
    for key, data in chained.objects.items():
        assert (folder / key).read_bytes() == data

    # The same again fetches nothing, but for what is not as it should be.
    file = chained.files[1]
    (folder / file.key).write_bytes(b"half")
    (folder / chained.digests[0].key).unlink()
    gateway.asked.clear()
    assert main(["audits", "get", "--all", str(folder)]) == 0
    content = [asked for asked, _ in gateway.asked if asked.endswith("/content") or "/digests/events/" in asked]
    assert content == ["GET /v1/audits/digests/events/1", f"GET /v1/audits/{file.id}/content"]

    gateway.asked.clear()
    assert invalid(capsys, str(folder)) == (0, [])
    assert [asked for asked, _ in gateway.asked] == ["GET /.well-known/backhaul-audit-keys"]
    for name in ("BACKHAUL_URL", "BACKHAUL_API_KEY", "BACKHAUL_ADMIN_TOKEN"):
        monkeypatch.delenv(name)
    assert invalid(capsys, str(folder), "--keys", str(folder / "keys.json"), "--head", head.upper()) == (0, [])


def test_the_command_that_is_suggested_verifies_what_was_fetched(
    gateway: Gateway,
    chained: Chained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("BACKHAUL_URL", "BACKHAUL_API_KEY", "BACKHAUL_ADMIN_TOKEN"):
        monkeypatch.delenv(name)
    profiles.write(
        profiles.path(os.environ),
        profiles.read(profiles.path(os.environ)).with_one(
            "acme", profiles.Profile(source="", url=gateway.url, api_key="bhk_0123")
        ),
    )
    span = ["--from", "2026-01-15T10:00Z", "--chain", "events", "--profile", "acme"]
    assert main(["audits", "get", "--all", str(tmp_path / "it's mine"), *span]) == 0
    said = capsys.readouterr().err
    words = shlex.split(said[said.index("Now: ") :])[1:]
    assert words[:3] == ["backhaul", "audits", "verify"]
    assert main(words[1:]) == 0
    assert "1 of 1 are what was signed" in capsys.readouterr().out


def _changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("tamper", "which", "problems"),
    [
        (_changed, "file", {"hash"}),
        (Path.unlink, "file", {"not_found"}),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "file", {"hash"}),
        (lambda path: path.write_bytes(path.read_bytes() + b"\n"), "file", {"trailing_data"}),
        (_changed, "digest", {"signature", "invalid_format"}),
        (Path.unlink, "digest", {"not_found"}),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "digest", {"invalid_format"}),
        (lambda path: path.write_bytes(b""), "digest", {"invalid_format"}),
    ],
)
def test_whatever_was_done_to_a_copy_is_found_and_named(
    chained: Chained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tamper: Callable[[Path], Any],
    which: str,
    problems: set[str],
) -> None:
    assert main(["audits", "get", "--all", str(tmp_path)]) == 0
    name = chained.files[1].key if which == "file" else chained.digests[1].key
    tamper(tmp_path / name)
    code, found = invalid(capsys, str(tmp_path))
    assert code == 7
    assert found[0][0] == name
    assert found[0][1] in problems
    assert main(["audits", "verify", str(tmp_path)]) == 7
    assert name.rpartition("/")[2] in capsys.readouterr().out


def _itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("made", [_itself, _pipe, _device])
def test_what_is_no_file_is_not_there_and_holds_up_nothing(
    chained: Chained, tmp_path: Path, capsys: pytest.CaptureFixture[str], made: Callable[[Path], None]
) -> None:
    folder = tmp_path / "copies"
    assert main(["audits", "get", "--all", str(folder)]) == 0
    file, digest = chained.files[1].key, chained.digests[0].key
    for key in (file, digest):
        made(folder / key)
    keys = tmp_path / "keys.json"
    (folder / "keys.json").rename(keys)
    verifying = [sys.executable, "-m", "backhaul_cli", "audits", "verify", str(folder), "--keys", str(keys), "--json"]
    done = subprocess.run(verifying, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  # this Python
    assert done.returncode == 7, done.stderr
    wrong = {one["name"].removeprefix("backhaul/"): one["problem"] for one in json.loads(done.stdout)["findings"]}
    assert (wrong[file], wrong[digest]) == ("not_found", "not_found")
    (folder / "digests" / "loop").symlink_to(folder)
    assert invalid(capsys, str(folder), "--keys", str(keys))[0] == 7


def test_what_was_found_is_said_where_the_rest_cannot_be_read(
    chained: Chained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["audits", "get", "--all", str(tmp_path)]) == 0
    (tmp_path / chained.files[2].key).unlink()
    _changed(tmp_path / chained.files[1].key)
    read = Copies.read

    async def fails(self: Copies, place: Place) -> AsyncIterator[bytes]:
        if place.key == chained.files[0].key:
            raise KeyboardInterrupt
        async for piece in read(self, place):
            yield piece

    monkeypatch.setattr(Copies, "read", fails)
    code, found = invalid(capsys, str(tmp_path))
    assert (code, [problem for _, problem in found]) == (130, ["hash"])


def test_what_a_stranger_wrote_into_a_digest_is_cut(
    chained: Chained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audits", "get", "--all", str(tmp_path)]) == 0
    names = ("digestObject", "digestBucket", "digestSignatureAlgorithm")
    for digest, name in zip(chained.digests, names, strict=True):
        said = json.loads(digest.line) | {name: 100_000 * "x"}
        line = json.dumps(said).encode()
        (tmp_path / digest.key).write_bytes(to_object(line, digest.key_id, digest.signature))
    capsys.readouterr()
    assert main(["audits", "verify", str(tmp_path), "--json"]) == 7
    wrong = [one for one in json.loads(capsys.readouterr().out)["findings"] if not one["valid"]]
    assert [one["problem"] for one in wrong] == ["invalid_format", "signature", "moved"]
    assert max(len(one[word]) for one in wrong for word in ("name", "detail")) <= 500


def test_keys_that_are_nested_too_deeply_are_no_keys(
    chained: Chained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audits", "get", "--all", str(tmp_path)]) == 0
    (tmp_path / "keys.json").write_text(100_000 * "[")
    assert invalid(capsys, str(tmp_path), "--keys", str(tmp_path / "keys.json"))[0] == 2


def test_digests_that_change_places_and_those_that_are_all_taken_away(
    chained: Chained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audits", "get", "--all", str(tmp_path)]) == 0
    first, second, last = (tmp_path / digest.key for digest in chained.digests)
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    code, found = invalid(capsys, str(tmp_path))
    assert code == 7
    assert {(path.relative_to(tmp_path).as_posix(), "moved") for path in (first, second)} <= set(found)
    first.write_bytes(one)
    second.write_bytes(other)

    # The end of a chain: only who has kept its head can tell.
    last.unlink()
    (tmp_path / chained.files[-1].key).unlink()
    assert invalid(capsys, str(tmp_path)) == (0, [])
    head = chained.digests[-1].hash
    assert invalid(capsys, str(tmp_path), "--head", head) == (7, [(head, "unknown_head")])
    first.unlink()
    second.unlink()
    assert invalid(capsys, str(tmp_path)) == (4, [])
    assert invalid(capsys, str(tmp_path), "--head", head)[0] == 7
    assert invalid(capsys, str(tmp_path / "none")) == (4, [])


def test_keys_of_somebody_else_verify_nothing(
    chained: Chained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audits", "get", "--all", str(tmp_path)]) == 0
    other = SigningKey.new()
    for name in (other.id, KEY.id):
        public = base64.b64encode(other.public).decode()
        (tmp_path / "keys.json").write_text(json.dumps({"keys": [{"key_id": name, "public_key": public}]}))
        code, found = invalid(capsys, str(tmp_path), "--keys", str(tmp_path / "keys.json"))
        assert code == 7
        assert {problem for _, problem in found} == {"key_not_found"}
    (tmp_path / "keys.json").write_text("{}")
    assert invalid(capsys, str(tmp_path), "--keys", str(tmp_path / "keys.json"))[0] == 2


def test_a_span_of_time_can_be_fetched_and_verified(
    chained: Chained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    span = ["--from", "2026-01-15T10:00Z"]
    assert main(["audits", "get", "--all", str(tmp_path), *span]) == 0
    # The digest before it is there, since those after it hold by it.
    assert copies(tmp_path) == {chained.files[2].key, *(one.key for one in chained.digests[1:]), "keys.json"}
    assert invalid(capsys, str(tmp_path), *span) == (0, [])
    until = ["--from", "2026-01-15T09:00Z", "--to", "2026-01-15T10:00Z"]
    assert main(["audits", "get", "--all", str(tmp_path / "other"), *until]) == 0
    assert chained.files[2].key not in copies(tmp_path / "other")
    assert invalid(capsys, str(tmp_path / "other"), *until) == (0, [])


def test_copies_of_nothing_prove_nothing(chained: Chained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["audits", "get", "--all", str(tmp_path / "copies")]) == 0
    capsys.readouterr()
    for arguments in ([str(tmp_path / "empty")], [str(tmp_path / "copies"), "--to", "2001-01-01"]):
        assert main(["audits", "verify", *arguments]) == 4
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n"), "nothing was verified" in said.err.lower()) == ("", 1, True)


def test_what_the_answers_name_outside_of_the_folder_is_not_written(
    gateway: Gateway, chained: Chained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chained.files[0] = msgspec.structs.replace(chained.files[0], key="../../outside")
    gateway.says("GET /v1/audits", {"files": [msgspec.to_builtins(chained.files[0])], "next_cursor": None})
    assert main(["audits", "get", "--all", str(tmp_path / "a" / "copies")]) == 2
    assert "../../outside" in capsys.readouterr().err
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("answer", [409, 404, b"shor"])
def test_a_file_that_is_gone_or_shortened_is_named_and_the_others_are_there(
    gateway: Gateway, chained: Chained, tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: int | bytes
) -> None:
    gateway.says(f"GET /v1/audits/{chained.files[-1].id}/content", answer)
    assert main(["audits", "get", "--all", str(tmp_path)]) == 7
    assert chained.files[-1].key in capsys.readouterr().err
    assert copies(tmp_path) == {*chained.objects, "keys.json"} - {chained.files[-1].key}


@pytest.mark.parametrize("answer", [403, 500])
def test_what_says_nothing_of_a_file_ends_the_fetching(
    gateway: Gateway, chained: Chained, tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: int
) -> None:
    gateway.says(f"GET /v1/audits/{chained.files[-1].id}/content", answer)
    assert main(["audits", "get", "--all", str(tmp_path)]) in (1, 3)
    assert "not there" not in capsys.readouterr().err


def test_a_digest_of_which_the_signature_is_broken_is_fetched_again(
    gateway: Gateway, chained: Chained, tmp_path: Path
) -> None:
    assert main(["audits", "get", "--all", str(tmp_path)]) == 0
    digest = chained.digests[1]
    path = tmp_path / digest.key
    for broken in (digest.line + b"\n", path.read_bytes()[:-9], path.read_bytes() + b"\n"):
        path.write_bytes(broken)
        assert main(["audits", "get", "--all", str(tmp_path)]) == 0
        assert path.read_bytes() == chained.objects[digest.key]


@pytest.mark.parametrize(
    "arguments",
    [
        ["get"],
        ["get", "0f3c", "--all", "x"],
        ["get", "0f3c", "--from", "2d"],
        ["get", "--all", "x", "--decrypted"],
        ["verify", "x", "--head", "0f3a"],
        ["verify", "--keys", "x"],
    ],
)
def test_what_does_not_go_together_is_said(
    gateway: Gateway, arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["audits", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert gateway.asked == []
