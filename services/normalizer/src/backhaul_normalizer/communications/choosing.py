"""Which destination a message is for, and which of its messages holds it: pure, the same for every order.

What the message's events name comes first: a member, of a batch that they name too or of any of the communication; then
a destination's address. Where several batches have them, it is the latest that was registered before the message was
sent, or else the first. Of a member's destinations it is the one of the message's channel and address, or else the one
of the channel that has no address, or else the only one of the channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backhaul_common.documents import Document

from backhaul_normalizer.communications.documents import MAX_DEADLINE_S, destination_id

SLACK_US = 5_000_000
"""How long after a message was sent a batch may seem to have been registered that it was sent for: providers tell whole
seconds, and their clocks are not ours."""

FOUND_BEFORE_US = MAX_DEADLINE_S * 1_000_000
"""How long before a message was sent a batch may have been registered whose member its events do not name. A batch of
that age is complete."""


def sent_at(message: Document) -> int:
    """When a message was sent, in microseconds since 1970, as far as is known."""
    return int(message["first_at_us"] if "first_at_us" in message else message["created_at_us"])


def choose(message: Document, named: Iterable[Document], addressed: Iterable[Document]) -> bytes | None:
    """The ``destination_id`` of what a message is for; None where nothing is.

    ``named`` are members with the key that its events name, ``addressed`` members that have its address: of its
    communication, and of any batch.
    """
    batch_id = message.get("batch_id", "")
    for members, at_address in ((named, False), (addressed, True)):
        found = [
            (member, at)
            for member in members
            if not batch_id or member["batch_id"] == batch_id
            if (at := position(member, message, only_address=at_address)) is not None
        ]
        if at_address or not batch_id:
            found = [one for one in found if one[0]["batch_at_us"] >= sent_at(message) - FOUND_BEFORE_US]
        if found:
            member, at = min(found, key=lambda one: _order(one[0], message))
            return destination_id(member["_id"], at)
    return None


def holder(messages: Sequence[Document]) -> Document | None:
    """Which of a destination's messages holds it: the one that was sent last."""
    return max(messages, key=lambda one: (one.get("first_at_us", 0), one["_id"]), default=None)


def _order(member: Document, message: Document) -> tuple[bool, int, str]:
    registered_at, sent_at_us = member["batch_at_us"], sent_at(message)
    later = registered_at > sent_at_us + SLACK_US
    return later, registered_at if later else -registered_at, member["key"]


def position(member: Document, message: Document, *, only_address: bool) -> int | None:
    """Which of a member's destinations is a message's, by its address alone or also by its channel; None where none
    is."""
    destinations = enumerate(member["destinations"])
    channel = [(at, one["address"]) for at, one in destinations if one["channel"] == message["channel"]]
    at_address = [at for at, address in channel if address and address == message.get("address")]
    if at_address or only_address:
        return at_address[0] if at_address else None
    without = [at for at, address in channel if not address]
    if without:
        return without[0]
    return channel[0][0] if len(channel) == 1 else None
