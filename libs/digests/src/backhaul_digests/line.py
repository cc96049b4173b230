"""What a digest is as text: its signed line, what exactly is signed, and the line of the signature.

``docs/auditing.md`` describes the format, and ``docs/verify_audit.py`` reads it without anything of this package.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import msgspec

from backhaul_digests.model import Chain, ChainKey

PREFIX = "digests/"
"""Under it, in the installation's bucket, lie the digests of all tenants."""

ALGORITHM: Final = "Ed25519"
HASH_ALGORITHM: Final = "SHA-256"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_US = 253_402_300_799_999_999
"""The end of the year 9999."""
_NAME = re.compile(r".*/(\d{4})/(\d\d)/(\d\d)/DIGEST_(\1\2\3T\d{6}Z)_(\d{8,19})\.jsonl")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


_NotNegative = Annotated[int, msgspec.Meta(ge=0)]
_Counted = Annotated[int, msgspec.Meta(ge=1)]
_FileNumber = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A later version may say more, which is ignored; what it says is signed all the same."""


class FileEntry(_Part, frozen=True, kw_only=True, rename="camel"):
    """A file as its digest lists it: as it was sealed. ``destination`` is the channel whose own bucket it is in."""

    number: int
    channel: str
    destination: str
    bucket: str
    object: str
    format: Literal["jsonl", "array"]
    gzip: bool
    events: _NotNegative
    bytes: _NotNegative
    hash_algorithm: Literal["SHA-256"] = HASH_ALGORITHM
    hash_value: str
    inflated_bytes: _NotNegative
    inflated_hash_value: str
    first_position: int
    last_position: int
    first_event_time: str
    last_event_time: str


class DeletionEntry(_Part, frozen=True, kw_only=True, rename="camel"):
    """A file of the chain that may be gone from ``deleted_time`` on, and why."""

    number: _FileNumber
    object: str
    deleted_time: str
    reason: str


class DigestLine(_Part, frozen=True, kw_only=True, rename="camel"):
    """The signed line of a digest. Times are ISO 8601 in UTC with microseconds."""

    digest_version: Literal[1] = 1
    tenant_id: str
    registration: str
    chain: str
    digest_number: _Counted
    digest_start_time: str
    digest_end_time: str
    digest_bucket: str
    digest_object: str
    digest_public_key_id: str
    digest_signature_algorithm: Literal["Ed25519"] = ALGORITHM
    newest_event_time: str | None
    oldest_event_time: str | None
    previous_digest_bucket: str | None
    previous_digest_object: str | None
    previous_digest_hash_value: str | None
    previous_digest_hash_algorithm: Literal["SHA-256"] | None
    previous_digest_signature: str | None
    files: list[FileEntry]
    deletions: list[DeletionEntry]

    @property
    def from_us(self) -> int:
        """When it begins: where the one before it ends."""
        return us(self.digest_start_time)

    @property
    def to_us(self) -> int:
        """When it ends."""
        return us(self.digest_end_time)

    def signed_text(self, line: bytes) -> bytes:
        """What the signature of ``line``, which says this, is made of."""
        parts = (
            self.digest_end_time,
            f"{self.digest_bucket}/{self.digest_object}",
            hashlib.sha256(line).hexdigest(),
            self.previous_digest_signature or "null",
        )
        return "\n".join(parts).encode()


def iso(us: int) -> str:
    """Unix time in microseconds as ``2026-01-15T09:00:00.000000Z``; the nearest where a calendar has none such."""
    return (_EPOCH + timedelta(microseconds=max(0, min(us, _LAST_US)))).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def us(text: str) -> int:
    """The reverse of ``iso``. ValueError where ``text`` is anything else."""
    if not _TIME.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no time.")
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def chain_prefix(of: ChainKey) -> str:
    """Under which the digests of a chain lie."""
    return f"{PREFIX}{of.id}/"


def chain_of(key: str) -> ChainKey | None:
    """The chain that the object ``key`` belongs to, if it is a digest's by its place."""
    parts = key.split("/")
    if len(parts) < 4 or f"{parts[0]}/" != PREFIX or parts[2] not in set(Chain):
        return None
    return ChainKey(parts[1], Chain(parts[2]))


def key_of(of: ChainKey, number: int, to_us: int) -> str:
    """The object of a digest: sorted by key, a chain's digests are in their order."""
    end = _EPOCH + timedelta(microseconds=to_us)
    return f"{chain_prefix(of)}{end:%Y/%m/%d}/DIGEST_{end:%Y%m%dT%H%M%SZ}_{number:08}.jsonl"


def named(key: str) -> tuple[int, int] | None:
    """When the digest with this ``key`` ends, to the second below, and its number; None where no digest is so named.

    Keys that have an answer are in the order of their ends.
    """
    if (match := _NAME.fullmatch(key)) is None:
        return None
    try:
        end = datetime.strptime(match[4], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return (end - _EPOCH) // timedelta(microseconds=1), int(match[5])


def to_bytes(line: DigestLine) -> bytes:
    """The line that is signed: compact JSON with sorted keys, without a line break."""
    # What does not fit into 32 bits has a type of PyMongo's own, which is an int and more.
    said = msgspec.to_builtins(line, enc_hook=int)
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def signature_line(key_id: str, signature: str) -> bytes:
    """The line below it; ``signature`` in base64."""
    said = {"algorithm": ALGORITHM, "keyId": key_id, "signature": signature}
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def to_object(line: bytes, key_id: str, signature: str) -> bytes:
    """A digest as it is stored."""
    return line + b"\n" + signature_line(key_id, signature) + b"\n"


def parse(data: bytes) -> tuple[bytes, DigestLine, str, str] | str:
    """The signed line, what it says, and the key id and the signature of the line below; or what is wrong, in words.

    Every byte counts: what is not written exactly as ``to_object`` writes it is no digest, though it meant the same.
    """
    line, _, rest = data.partition(b"\n")
    if not rest:
        return "It has no line with a signature."
    try:
        said = msgspec.json.decode(line, type=DigestLine)
        us(said.digest_start_time), us(said.digest_end_time)
        for entry in said.files:
            us(entry.first_event_time), us(entry.last_event_time)
    except msgspec.DecodeError as exc:
        return f"Its signed line is not as it should be: {exc}."
    except RecursionError:
        return "Its signed line is not as it should be: it is nested too deeply."
    except ValueError as exc:
        return f"Its signed line is not as it should be: {exc}"
    try:
        below = json.loads(rest)
        key_id, signature = below["keyId"], below["signature"]
        exact = rest == signature_line(key_id, signature) + b"\n" and len(_decoded(signature)) == 64
    except (ValueError, TypeError, KeyError, RecursionError):
        exact = False
    if not exact:
        return "The line with its signature is not as it should be."
    return line, said, key_id, signature


def _decoded(signature: str) -> bytes:
    # Base64 has several texts for the same bytes; only one of them was written.
    decoded = base64.b64decode(signature, validate=True)
    if base64.b64encode(decoded).decode() != signature:
        raise binascii.Error("not in its shortest form")
    return decoded
