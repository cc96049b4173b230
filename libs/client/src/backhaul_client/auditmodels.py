"""What the API answers about audit files. Words are plain texts, so that a new one is no error."""

from __future__ import annotations

from datetime import datetime

import msgspec


class AuditFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is whole and in its place. ``number`` is its place in its chain; ``digest`` the number of the digest
    that lists it, 0 before there is one. ``sha256`` is of the file as it is stored, ``inflated_sha256`` of what it
    holds. ``deleted_at`` is None while it is kept. In an ``encrypted`` file what is personal is read by asking for it
    decrypted, and not of whoever is erased."""

    id: str
    channel: str
    chain: str
    number: int
    bucket: str
    key: str
    format: str
    gzip: bool
    events: int
    bytes: int
    sha256: str
    inflated_bytes: int
    inflated_sha256: str
    first_position: int
    last_position: int
    first_at: datetime | None
    last_at: datetime | None
    sealed_at: datetime | None
    deleted_at: datetime | None
    digest: int
    encrypted: bool = False

    @property
    def name(self) -> str:
        """Its name without the folders: ``AUDIT_…_Events.json``."""
        return self.key.rpartition("/")[2]


class AuditLink(msgspec.Struct, frozen=True, kw_only=True):
    """An address that needs no credential, which therefore does not show itself."""

    url: str
    expires_at: datetime | None

    def __repr__(self) -> str:
        return f"AuditLink(expires_at={self.expires_at!r})"


class AuditErasure(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure did. ``destroyed`` is false where nothing of the person was ever encrypted, or it was done
    before. Of whatever arrived before ``erased_before`` nothing personal is filed any more. ``plain_channels`` have
    files that are not encrypted, in which it stays until they are deleted."""

    destroyed: bool
    erased_before: datetime | None
    plain_channels: tuple[str, ...]


class AuditDigest(msgspec.Struct, frozen=True, kw_only=True):
    """What was sealed from ``begins_at`` to ``ends_at``, signed. ``hash`` is worth keeping elsewhere."""

    chain: str
    number: int
    begins_at: datetime | None
    ends_at: datetime | None
    bucket: str
    key: str
    hash: str
    key_id: str
    signature: str
    files: int
    deletions: int


class AuditProof(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of an event, in its file: at ``place``, from 1. ``digest`` is None until one lists the file."""

    revision: int
    place: int
    file: AuditFile
    digest: AuditDigest | None


class AuditProofs(msgspec.Struct, frozen=True, kw_only=True):
    """Every revision that lies in a file, and the last digests of these chains."""

    proofs: tuple[AuditProof, ...]
    heads: tuple[AuditDigest, ...]


class AuditFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of a digest, a file or a span: ``valid``, or else ``problem`` in one word and ``detail`` in a
    sentence. ``chain`` is None of a hash that was kept and that no chain has."""

    chain: str | None
    subject: str
    name: str
    valid: bool
    problem: str | None
    detail: str | None


class AuditVerification(msgspec.Struct, frozen=True, kw_only=True):
    """How far a verification is. ``findings`` are those since the one before; the numbers count from the beginning. The
    last one is ``done``."""

    findings: tuple[AuditFinding, ...]
    digests: int
    valid_digests: int
    files: int
    valid_files: int
    found_from: datetime | None
    found_to: datetime | None
    done: bool


class AuditKindRecount(msgspec.Struct, frozen=True, kw_only=True):
    """Of one kind of event: what the communication counts, how many of its events there are, and how many of those lie
    in files."""

    kind: str
    counted: int
    listed: int
    audited: int


class AuditRecount(msgspec.Struct, frozen=True, kw_only=True):
    """How far a recount is: ``events`` were looked at. All else is of the last one, which is ``done``. ``equal``: of
    each kind as many are listed as are counted, but for those that ``expired``, and none is missing in files."""

    equal: bool
    events: int
    kinds: tuple[AuditKindRecount, ...]
    not_asked: int
    channels_not_asked: tuple[str, ...]
    waiting: int
    missing: int
    missing_event_ids: tuple[str, ...]
    moving: bool
    done: bool
    expired: int = 0


class AuditKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key, 32 bytes in base64."""

    key_id: str
    algorithm: str
    public_key: str
    created_at: datetime | None
