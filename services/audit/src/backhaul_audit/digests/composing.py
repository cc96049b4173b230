"""What a digest says of what was sealed and deleted since the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backhaul_digests.line import HASH_ALGORITHM, DeletionEntry, DigestLine, FileEntry, iso, key_of
from backhaul_digests.model import ChainKey, Digest
from backhaul_digests.signing import SigningKey

from backhaul_audit.model import SealedFile


@dataclass(frozen=True, slots=True)
class Deletion:
    """A file of the chain, by its number and key, that may be gone from now on."""

    number: int
    key: str
    at_us: int
    reason: str


@dataclass(frozen=True, slots=True)
class Covered:
    """What a digest covers. ``from_us`` counts for the first of a chain only; each other begins where the one before
    it ends."""

    of: ChainKey
    tenant_id: str
    bucket: str
    from_us: int
    to_us: int
    files: Sequence[SealedFile]
    deletions: Sequence[Deletion]


def composed(covered: Covered, previous: Digest | None, key: SigningKey) -> Digest:
    """The digest that follows ``previous``, signed with ``key``."""
    number = previous.number + 1 if previous else 1
    contents = [file.content for file in covered.files]
    line = DigestLine(
        tenant_id=covered.tenant_id,
        registration=covered.of.registration,
        chain=covered.of.chain.value,
        digest_number=number,
        digest_start_time=iso(previous.to_us if previous else covered.from_us),
        digest_end_time=iso(covered.to_us),
        digest_bucket=covered.bucket,
        digest_object=key_of(covered.of, number, covered.to_us),
        digest_public_key_id=key.id,
        newest_event_time=iso(max(content.last_at_us for content in contents)) if contents else None,
        oldest_event_time=iso(min(content.first_at_us for content in contents)) if contents else None,
        previous_digest_bucket=previous.bucket if previous else None,
        previous_digest_object=previous.key if previous else None,
        previous_digest_hash_value=previous.hash if previous else None,
        previous_digest_hash_algorithm=HASH_ALGORITHM if previous else None,
        previous_digest_signature=previous.signature if previous else None,
        files=[file_entry(file) for file in covered.files],
        deletions=[
            DeletionEntry(number=one.number, object=one.key, deleted_time=iso(one.at_us), reason=one.reason)
            for one in covered.deletions
        ],
    )
    return key.sign(line)


def file_entry(file: SealedFile) -> FileEntry:
    """A sealed file as a digest lists it."""
    plan, content = file.plan, file.content
    return FileEntry(
        number=file.number,
        channel=plan.pile.channel,
        destination=plan.destination,
        bucket=plan.bucket,
        object=plan.key,
        format="array" if plan.shape.format == "array" else "jsonl",
        gzip=plan.shape.gzip,
        events=content.events,
        bytes=content.bytes,
        hash_value=content.sha256,
        inflated_bytes=content.inflated_bytes,
        inflated_hash_value=content.inflated_sha256,
        first_position=plan.first,
        last_position=plan.last,
        first_event_time=iso(content.first_at_us),
        last_event_time=iso(content.last_at_us),
    )
