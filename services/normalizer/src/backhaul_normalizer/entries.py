"""Entries: what is stored of an event besides its place in a bucket, where it must be found by more than its message.

Replies have one, and events with an error code: both are searched by what is their own. So have events without a
message, and those of a message that has more than ``refs.MAX_REFS``: nothing else leads to them, and they are *alone*.
"""

from __future__ import annotations

from collections.abc import Mapping

from backhaul_channels import EventKind
from backhaul_common.documents import Document

from backhaul_normalizer.model import Fact
from backhaul_normalizer.refs import Ref, pack, unpack
from backhaul_normalizer.rows import event_document

_REPLY = ("waits_for", "window_us", "review", "communication_id")
_SETTLED = ("answers", "answered_before", "counted")
"""What replies have when they are settled."""

_MAY_LACK = (*_REPLY, "error_code", "duplicate_of", "alone", "message", "alias", "address")


def needed(fact: Fact, *, alone: bool) -> bool:
    """Whether an event has an entry."""
    return alone or fact.event.kind is EventKind.INBOUND or fact.event.error_code != ""


def entry(fact: Fact, communication_id: str, ref: Ref, *, alone: bool) -> Document:
    """The entry of an event."""
    row = event_document(fact, communication_id)
    made: Document = {
        "_id": ref.id,
        "registration": row["registration"],
        "channel": row["channel"],
        "kind": row["kind"],
        "received_at_us": ref.received_at_us,
        "occurred_at_us": ref.occurred_at_us,
        "ref": pack([ref]),
    }
    names = ["error_code", "duplicate_of"]
    if fact.event.kind is EventKind.INBOUND:
        names += _REPLY
    if not fact.message or fact.event.kind is EventKind.INBOUND:
        # What has a message is found by the recipient of that.
        names.append("address")
    if alone:
        made["alone"] = True
        for name in ("message", "alias"):
            if name in row:
                made[name] = bytes.fromhex(row[name])
    made.update((name, row[name]) for name in names if name in row)
    return made


def update(made: Document) -> Document:
    """The update command's entry that brings an entry, which may be missing, to what ``made`` says; what replies have
    of their settling stays."""
    lacking = {name: "" for name in _MAY_LACK if name not in made}
    kept = {name: value for name, value in made.items() if name != "_id"}
    return {"q": {"_id": made["_id"]}, "u": {"$set": kept, "$unset": lacking}, "upsert": True}


def ref_in(stored: Mapping[str, bytes]) -> Ref:
    """The reference in a stored entry."""
    return next(unpack(stored["ref"]))


def told(stored: Document) -> Document:
    """What an event's row has of its entry."""
    return {name: stored[name] for name in (*_REPLY, *_SETTLED) if name in stored}
