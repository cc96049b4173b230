"""Messages and joins as they are stored: their ids in 16 bytes, and nothing that is empty."""

from __future__ import annotations

from backhaul_common.documents import Document

from backhaul_normalizer.fold import EMPTY

WHERE = ("refs", "buckets", "spilled")
"""What a stored message has besides: its references; the buckets that they lead to, once each, for queries that follow
them; and whether it has events without a reference."""


def stored_message(message: Document) -> Document:
    """``message`` as it is stored, without ``WHERE``."""
    stored = {name: value for name, value in message.items() if name not in EMPTY or value != EMPTY[name]}
    stored["_id"] = bytes.fromhex(message["_id"])
    if "pair" in stored:
        stored["pair"] = bytes.fromhex(stored["pair"])
    return stored


def message_of(stored: Document) -> Document:
    """The message again."""
    message = {**EMPTY, **{name: value for name, value in stored.items() if name not in WHERE}}
    message["_id"] = stored["_id"].hex()
    if "pair" in stored:
        message["pair"] = stored["pair"].hex()
    return message


def stored_join(join: Document) -> Document:
    """``join`` as it is stored."""
    stored = {**join, "_id": bytes.fromhex(join["_id"]), "message": bytes.fromhex(join["message"])}
    before = [bytes.fromhex(key) for key in stored.pop("before")]
    return {**stored, "before": before} if before else stored


def join_of(stored: Document) -> Document:
    """The join again."""
    before = [key.hex() for key in stored.get("before", ())]
    return {**stored, "_id": stored["_id"].hex(), "message": stored["message"].hex(), "before": before}
