"""Whether one digest is what was signed, by itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from backhaul_digests.findings import Problem
from backhaul_digests.line import DigestLine, named, parse
from backhaul_digests.model import ChainKey, Finding, Subject
from backhaul_digests.ports import NotThereError, Place, PublicKeys, Stored
from backhaul_digests.signing import is_signed, key_id

MAX_DIGEST_BYTES = 32 << 20
"""Bytes of a digest that are looked at."""

MAX_DETAIL = 500
"""Characters that are told of what is wrong. Whoever changes a digest writes into it what they like."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A digest that is there. ``said`` only where it is valid; ``hash`` where it has a signed line at all."""

    finding: Finding
    place: Place
    hash: str
    signature: str
    said: DigestLine | None


async def look(stored: Stored, keys: PublicKeys, of: ChainKey, key: str) -> Seen:
    """What is found of the digest ``key``, in the order of AWS CloudTrail: there, well-formed, in its place, by a known
    key, signed."""
    place = Place("", stored.bucket, key)
    data = bytearray()
    try:
        async for piece in stored.read(place):
            data += piece
            if len(data) > MAX_DIGEST_BYTES:
                break
    except NotThereError:
        return _invalid(place, of, Problem.NOT_FOUND, "It is not there.")
    if len(data) > MAX_DIGEST_BYTES:
        return _invalid(place, of, Problem.INVALID_FORMAT, "It is too large for a digest.")
    read = parse(bytes(data))
    if isinstance(read, str):
        return _invalid(place, of, Problem.INVALID_FORMAT, read)
    line, said, signed_by, signature = read
    # Copies may not know which bucket they are of; the digest does, once it is known to be what was signed.
    signed_place = Place("", stored.bucket or said.digest_bucket, key)
    line_hash = hashlib.sha256(line).hexdigest()
    if (said.registration, said.chain, said.digest_bucket, said.digest_object) != (*of, signed_place.bucket, key):
        problem, detail = Problem.MOVED, f"It belongs at {said.digest_bucket}/{said.digest_object}."
    elif named(key) != (said.to_us // 1_000_000 * 1_000_000, said.digest_number):
        problem, detail = Problem.INVALID_FORMAT, "Its name is not that of its end and its number."
    elif (public := await _key(keys, said.digest_public_key_id, signed_by)) is None:
        problem, detail = Problem.KEY_NOT_FOUND, f"There is no key {signed_by[:40]!r} that it could be signed with."
    elif not is_signed(public, said.signed_text(line), signature):
        problem, detail = Problem.SIGNATURE, "It is not what was signed."
    else:
        return Seen(Finding(of.chain, Subject.DIGEST, signed_place.name), signed_place, line_hash, signature, said)
    return _invalid(place, of, problem, detail, line_hash)


def _invalid(place: Place, of: ChainKey, problem: Problem, detail: str, line_hash: str = "") -> Seen:
    detail = detail if len(detail) <= MAX_DETAIL else f"{detail[: MAX_DETAIL - 1]}…"
    return Seen(Finding(of.chain, Subject.DIGEST, place.name, problem, detail), place, line_hash, "", None)


async def _key(keys: PublicKeys, said: str, signed_by: str) -> bytes | None:
    public = await keys.public(signed_by) if said == signed_by else None
    return public if public is not None and key_id(public) == signed_by else None
