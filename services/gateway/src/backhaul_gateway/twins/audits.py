"""What is asked and answered about audit files.

The models are the documentation, and what is written: each twin fills one from audit's answer.
"""

from __future__ import annotations

from typing import Annotated

from backhaul_common.vocabulary import Words
from backhaul_proto.audit.v1 import audit_pb2 as pb
from pydantic import BaseModel, ConfigDict, Field

from backhaul_gateway.twins.twin import Of, Twin
from backhaul_gateway.web.filters import Text

MAX_ADDRESS = 512
CHAINS = Words(pb.Chain.DESCRIPTOR)


def _as_in_settings(name: str) -> str:
    return "jsonl" if name == "JSON_LINES" else name.lower()


_ENUMS = {pb.FileFormat.DESCRIPTOR.full_name: Words(pb.FileFormat.DESCRIPTOR, _as_in_settings)}


class AuditFileOut(BaseModel):
    """A file that is whole and in its place. ``number`` is its place in its ``chain``, from 1, in the order of sealing;
    ``digest`` the number of the digest that lists it, 0 before there is one. ``sha256`` is of the file as it is stored,
    ``inflated_sha256`` of what it holds; the same unless it is compressed. ``first_at`` and ``last_at`` are when its
    events arrived; the positions are those of its messages in the stream of events. ``deleted_at`` is null while it is
    kept. In an ``encrypted`` file what is personal is readable by way of Backhaul alone, and not of who is erased."""

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
    first_at: str | None
    last_at: str | None
    sealed_at: str | None
    deleted_at: str | None
    digest: int
    encrypted: bool


class AuditFilePage(BaseModel):
    """The latest first. ``next_cursor`` is null on the last page."""

    files: list[AuditFileOut]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class AuditLinkOut(BaseModel):
    """An address from which the file can be fetched without a credential: whoever has it has the file."""

    url: str
    expires_at: str | None


class AuditErasureIn(BaseModel):
    """Who is to be erased: a number or an e-mail address, in any usual spelling, or whatever else events name as the
    recipient."""

    model_config = ConfigDict(extra="forbid")

    address: Annotated[Text, Field(min_length=1, max_length=MAX_ADDRESS, examples=["+15005550001"])]


class AuditErasureOut(BaseModel):
    """What an erasure did. ``destroyed`` is whether there was a key; false where nothing of them was ever encrypted, or
    it was done before. Of whatever arrived before ``erased_before`` nothing personal is filed any more.
    ``plain_channels`` have files that are not encrypted, in which it stays until they are deleted."""

    destroyed: bool
    erased_before: str | None
    plain_channels: list[str]


class AuditDigestOut(BaseModel):
    """A digest: what was sealed from ``begins_at`` to ``ends_at``, signed, and chained to the digest before it.
    ``hash`` is the SHA-256 of its signed line: keep it elsewhere, and nothing that came before can be changed
    unnoticed."""

    chain: str
    number: int
    begins_at: Annotated[str | None, Of("from_us")]
    ends_at: Annotated[str | None, Of("to_us")]
    bucket: str
    key: str
    hash: str
    key_id: str
    signature: str
    files: int
    deletions: int


class AuditDigestPage(BaseModel):
    """The latest first. ``next_cursor`` is null on the last page."""

    digests: list[AuditDigestOut]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class AuditHeadOut(BaseModel):
    """The last digest of each chain that there is."""

    heads: list[AuditDigestOut]


class AuditProofOut(BaseModel):
    """One revision of an event, in its file: at ``place``, from 1. ``digest`` lists the file; null until there is one,
    an hour at most."""

    revision: int
    place: int
    file: AuditFileOut
    digest: AuditDigestOut | None


class AuditProofsOut(BaseModel):
    """Every revision that lies in a file, and the last digests of these chains: from the digest of a proof on, each
    names the hash of the one before it."""

    proofs: list[AuditProofOut]
    heads: list[AuditDigestOut]


class AuditKeyOut(BaseModel):
    """A public key, 32 bytes in base64."""

    key_id: str
    algorithm: str
    public_key: str
    created_at: str | None


class AuditKeysOut(BaseModel):
    """All keys that digests were ever signed with, the present one first."""

    keys: list[AuditKeyOut]


class AuditFindingOut(BaseModel):
    """What was found of a ``digest``, a ``file`` or a ``span``: ``valid``, or else what is wrong in one word and in a
    sentence. ``chain`` is null of a hash that was kept and that no chain has."""

    chain: str | None
    subject: str
    name: str
    valid: bool
    problem: str | None
    detail: str | None


class AuditProgressOut(BaseModel):
    """How far a verification is: a line of the answer with ``progress``. ``findings`` are those since the line before;
    the numbers count from the beginning. The last line is ``done``. An answer without it was cut off, and says nothing
    of what it did not come to."""

    findings: list[AuditFindingOut]
    digests: int
    valid_digests: int
    files: int
    valid_files: int
    found_from: str | None
    found_to: str | None
    done: bool


class AuditVerifiedOut(BaseModel):
    """What a verification has found. ``valid``: there is a digest, and nothing was wrong, of digests, files, and the
    spans between them. ``summary`` says it as people read it. ``invalid`` is what was wrong, 1,000 of it at most;
    ``invalid_complete`` says whether that is all. ``found_from`` and ``found_to`` are the beginning of the first digest
    and the end of the last one; null where there is none."""

    valid: bool
    summary: list[str]
    digests: int
    valid_digests: int
    files: int
    valid_files: int
    found_from: str | None
    found_to: str | None
    invalid: list[AuditFindingOut]
    invalid_complete: bool


class AuditKindRecountOut(BaseModel):
    """Of one kind of event: what the communication counts (``counted``), how many of its events there are (``listed``),
    and how many of those lie in files (``audited``). Replies (``inbound``) are counted as replies: those that answer
    its messages."""

    kind: str
    counted: int
    listed: int
    audited: int


class AuditRecountOut(BaseModel):
    """What a recount has found. ``equal``: of each kind as many are listed as are counted, and none is missing in the
    files. What is counted and may be kept no longer is ``expired``, which ``equal`` does not mind. Events that lie in
    no file are of channels that ask for none (``not_asked``), of which ``channels_not_asked`` are the names; too young
    (``waiting``); or neither (``missing``), of which ``missing_event_ids`` are the first hundred. ``moving``: counts
    changed while they were compared, each time that it was tried. ``events`` were looked at. With ``progress`` the
    lines before the last have nothing but that, and are not ``done``; an answer without a last line was cut off."""

    equal: bool
    events: int
    kinds: list[AuditKindRecountOut]
    not_asked: int
    channels_not_asked: list[str]
    waiting: int
    missing: int
    missing_event_ids: list[str]
    expired: int
    moving: bool
    done: bool


FILES: Twin[pb.ListFilesResponse] = Twin(AuditFilePage, pb.ListFilesResponse.DESCRIPTOR, _ENUMS)
FILE: Twin[pb.AuditFile] = Twin(AuditFileOut, pb.AuditFile.DESCRIPTOR, _ENUMS)
ERASURE: Twin[pb.ErasePersonResponse] = Twin(AuditErasureOut, pb.ErasePersonResponse.DESCRIPTOR)
LINK: Twin[pb.LinkFileResponse] = Twin(AuditLinkOut, pb.LinkFileResponse.DESCRIPTOR)
DIGESTS: Twin[pb.ListDigestsResponse] = Twin(AuditDigestPage, pb.ListDigestsResponse.DESCRIPTOR)
HEAD: Twin[pb.GetHeadResponse] = Twin(AuditHeadOut, pb.GetHeadResponse.DESCRIPTOR)
PROOFS: Twin[pb.ProveResponse] = Twin(AuditProofsOut, pb.ProveResponse.DESCRIPTOR, _ENUMS)
PROGRESS: Twin[pb.VerifyResponse] = Twin(AuditProgressOut, pb.VerifyResponse.DESCRIPTOR)
RECOUNT: Twin[pb.RecountResponse] = Twin(AuditRecountOut, pb.RecountResponse.DESCRIPTOR)
KEY: Twin[pb.PublicKey] = Twin(AuditKeyOut, pb.PublicKey.DESCRIPTOR)
KEYS: Twin[pb.ListKeysResponse] = Twin(AuditKeysOut, pb.ListKeysResponse.DESCRIPTOR)
