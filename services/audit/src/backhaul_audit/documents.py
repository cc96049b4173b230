"""Audit's documents, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backhaul_common.documents import Document
from backhaul_digests.model import Chain, ChainKey

from backhaul_audit.model import Content, FileFormat, PileKey, Plan, SealedFile, Shape

RECORDED, SEALED, LOST, ABANDONED = "recorded", "sealed", "lost", "abandoned"
"""States of a file: it is being made; it is in its place; it could not be made; it was given up, and another is made of
the same events, or none since its tenant is gone."""

UNSEALED = (RECORDED, LOST, ABANDONED)


def plan_document(plan: Plan, now_us: int) -> Document:
    """A file that is about to be made."""
    return {
        "_id": plan.id,
        "registration": plan.pile.registration,
        "tenant_id": plan.tenant_id,
        "channel": plan.pile.channel,
        "chain": plan.pile.chain.value,
        "state": RECORDED,
        "destination": plan.destination,
        "bucket": plan.bucket,
        "key": plan.key,
        "folder": plan.shape.folder,
        "format": plan.shape.format.value,
        "gzip": plan.shape.gzip,
        "with_event": plan.shape.with_event,
        "flat": plan.shape.flat,
        "encrypted": plan.shape.encrypted,
        "first": plan.first,
        "last": plan.last,
        "recorded_at_us": now_us,
    }


def to_plan(document: Mapping[str, Any]) -> Plan:
    """The plan of a document in whatever state."""
    return Plan(
        id=document["_id"],
        pile=PileKey(document["registration"], document["channel"], Chain(document["chain"])),
        tenant_id=document["tenant_id"],
        destination=document["destination"],
        bucket=document["bucket"],
        key=document["key"],
        shape=Shape(
            folder=document["folder"],
            format=FileFormat(document["format"]),
            gzip=document["gzip"],
            with_event=document["with_event"],
            flat=document["flat"],
            encrypted=document.get("encrypted", False),
        ),
        first=document["first"],
        last=document["last"],
    )


def sealing(content: Content, number: int, now_us: int) -> Document:
    """What is set when a file is sealed."""
    return {
        "state": SEALED,
        "number": number,
        "sealed_at_us": now_us,
        "events": content.events,
        "bytes": content.bytes,
        "sha256": content.sha256,
        "inflated_bytes": content.inflated_bytes,
        "inflated_sha256": content.inflated_sha256,
        "first_at_us": content.first_at_us,
        "last_at_us": content.last_at_us,
        "digest": 0,
        "deleted_at_us": 0,
    }


def to_sealed(document: Mapping[str, Any]) -> SealedFile:
    """The file of a document in the state ``SEALED``."""
    return SealedFile(
        plan=to_plan(document),
        content=Content(
            events=document["events"],
            bytes=document["bytes"],
            sha256=document["sha256"],
            inflated_bytes=document["inflated_bytes"],
            inflated_sha256=document["inflated_sha256"],
            first_at_us=document["first_at_us"],
            last_at_us=document["last_at_us"],
        ),
        number=document["number"],
        sealed_at_us=document["sealed_at_us"],
        digest=document["digest"],
        deleted_at_us=document["deleted_at_us"],
    )


def chain_of(document: Mapping[str, Any]) -> ChainKey:
    """Whose document of ``audit_chains`` it is."""
    return ChainKey(document["registration"], Chain(document["chain"]))
