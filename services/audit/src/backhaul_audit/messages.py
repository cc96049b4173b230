"""Values to protobuf and back. What comes from outside is checked here for what the contract itself says."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.pages import span_of
from backhaul_common.vocabulary import Values
from backhaul_digests.model import Chain, Digest, Finding, Subject
from backhaul_proto.audit.v1 import audit_pb2 as pb

from backhaul_audit.model import FileFormat, SealedFile
from backhaul_audit.ports import PublicKey, Verified, VerifyQuery
from backhaul_audit.recounting.ports import Recounted
from backhaul_audit.standing import ChannelStanding

CHAINS = Values(pb.Chain.DESCRIPTOR, Chain)
_SUBJECTS = Values(pb.Subject.DESCRIPTOR, Subject)
_FORMATS: Mapping[FileFormat, Any] = {
    FileFormat.JSON_LINES: pb.FILE_FORMAT_JSON_LINES,
    FileFormat.ARRAY: pb.FILE_FORMAT_ARRAY,
}

ALGORITHM = "Ed25519"

MAX_HEADS = 100
"""Hashes that are looked for at once."""

MAX_ADDRESS = 512
"""Characters."""

MAX_COMMUNICATION_ID = 512
"""Characters of a communication's id: the normalizer takes what is longer for no identifier."""

_HASH = re.compile(r"[0-9a-f]{64}")


def chain_of(number: int) -> Chain:
    """The chain. INVALID_ARGUMENT names ``chain`` where there is none."""
    chain = CHAINS.value(number, "chain")
    if chain is None:
        raise BackhaulError(
            Code.INVALID_ARGUMENT, "chain is missing.", field="chain", fix=f"Pass one of: {', '.join(Chain)}."
        )
    return chain


def address_of(text: str) -> str:
    """An address, as long as any may be. INVALID_ARGUMENT names ``address``."""
    if len(text) > MAX_ADDRESS:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"The address is longer than {MAX_ADDRESS} characters.",
            field="address",
            fix="Send one address.",
        )
    return text


def query_of(request: pb.VerifyRequest) -> VerifyQuery:
    """What is to be verified. INVALID_ARGUMENT names the field."""
    if len(request.heads) > MAX_HEADS:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"There are more than {MAX_HEADS} heads.",
            field="heads",
            fix="Pass the latest: each tells of all digests before it.",
        )
    for place, head in enumerate(request.heads):
        if _HASH.fullmatch(head) is None:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                "A head is no hash of a digest.",
                field=f"heads[{place}]",
                fix="Pass 64 lower-case hex digits, as GetHead gives them.",
            )
    return VerifyQuery(
        span=span_of(request.from_us, request.to_us),
        chain=CHAINS.value(request.chain, "chain"),
        heads=tuple(request.heads),
    )


def communication_of(request: pb.RecountRequest) -> str:
    """Which communication is to be recounted. INVALID_ARGUMENT where it can be none."""
    if not 0 < len(request.communication_id) <= MAX_COMMUNICATION_ID:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"A communication's id has 1 to {MAX_COMMUNICATION_ID} characters.",
            field="communication_id",
            fix="Pass the id as events have it.",
        )
    return request.communication_id


def file_message(file: SealedFile) -> pb.AuditFile:
    """The message of a file."""
    plan, content = file.plan, file.content
    return pb.AuditFile(
        id=plan.id,
        channel=plan.pile.channel,
        chain=CHAINS.number(plan.pile.chain),
        number=file.number,
        bucket=plan.bucket,
        key=plan.key,
        format=_FORMATS[plan.shape.format],
        gzip=plan.shape.gzip,
        encrypted=plan.shape.encrypted,
        events=content.events,
        bytes=content.bytes,
        sha256=content.sha256,
        inflated_bytes=content.inflated_bytes,
        inflated_sha256=content.inflated_sha256,
        first_position=plan.first,
        last_position=plan.last,
        first_at_us=content.first_at_us,
        last_at_us=content.last_at_us,
        sealed_at_us=file.sealed_at_us,
        deleted_at_us=file.deleted_at_us,
        digest=file.digest,
    )


def digest_message(digest: Digest) -> pb.Digest:
    """The message of a digest."""
    return pb.Digest(
        chain=CHAINS.number(digest.of.chain),
        number=digest.number,
        from_us=digest.from_us,
        to_us=digest.to_us,
        bucket=digest.bucket,
        key=digest.key,
        hash=digest.hash,
        key_id=digest.key_id,
        signature=digest.signature,
        files=digest.files,
        deletions=digest.deletions,
    )


def key_message(key: PublicKey) -> pb.PublicKey:
    """The message of a key."""
    return pb.PublicKey(
        key_id=key.id,
        algorithm=ALGORITHM,
        public_key=b64encode(key.public).decode("ascii"),
        created_at_us=key.created_at_us,
    )


def state_message(standing: ChannelStanding) -> pb.ChannelState:
    """The message of how it stands with a channel."""
    return pb.ChannelState(
        channel=standing.channel,
        problem=standing.problem,
        waiting_since_us=standing.waiting_since_us,
        weaknesses=standing.weaknesses,
        locked_files=standing.locked.files,
        locked_until_us=standing.locked.until_us,
    )


def verified_message(verified: Verified) -> pb.VerifyResponse:
    """The message that tells how far a verification is."""
    from_us, to_us = verified.found
    return pb.VerifyResponse(
        findings=map(_finding_message, verified.findings),
        digests=verified.digests,
        valid_digests=verified.valid_digests,
        files=verified.files,
        valid_files=verified.valid_files,
        done=verified.done,
        found_from_us=from_us,
        found_to_us=to_us,
    )


def recounted_message(recounted: Recounted) -> pb.RecountResponse:
    """The message that tells how far a recount is, and last what was found."""
    return pb.RecountResponse(
        events=recounted.events,
        done=recounted.done,
        kinds=[
            pb.KindRecount(kind=one.kind, counted=one.counted, listed=one.listed, audited=one.audited)  # type: ignore[arg-type]  # a number of the enum, from the normalizer
            for one in recounted.kinds
        ],
        not_asked=recounted.not_asked,
        waiting=recounted.waiting,
        missing=recounted.missing,
        missing_event_ids=recounted.missing_ids,
        channels_not_asked=recounted.channels_not_asked,
        moving=recounted.moving,
        equal=recounted.equal,
        expired=recounted.expired,
    )


def _finding_message(finding: Finding) -> pb.Finding:
    return pb.Finding(
        subject=_SUBJECTS.number(finding.subject),
        name=finding.name,
        valid=not finding.problem,
        problem=finding.problem,
        detail=finding.detail,
        chain=CHAINS.number(finding.chain) if finding.chain else pb.CHAIN_UNSPECIFIED,
    )
