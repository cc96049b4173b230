"""What members are told of, and what becomes of a member when more is told of it. No input, no output."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from backhaul_common.documents import Document
from backhaul_common.errors import Violation
from backhaul_common.names import channel_key

from backhaul_normalizer.communications.documents import (
    MAX_ATTRIBUTES,
    MAX_DESTINATIONS,
    MAX_NAME,
    MAX_VALUE,
    found_by,
    member_id,
)
from backhaul_normalizer.facts import MAX_KEY, address_of


class ToldDestination(NamedTuple):
    """A destination as it is told. An empty channel is the communication's."""

    channel: str = ""
    recipient: str = ""
    message_id: str = ""


class ToldMember(NamedTuple):
    """A member as it is told."""

    key: str
    attributes: tuple[tuple[str, str], ...] = ()
    destinations: tuple[ToldDestination, ...] = ()


class RefusedError(Exception):
    """A member cannot be taken as it is told."""

    def __init__(self, field: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.violation = Violation(field, message, fix)


def checked(told: ToldMember, channel: str, channels: Collection[str]) -> ToldMember:
    """``told`` with canonical channels: the communication's ``channel`` where it names none, and one of the tenant's
    ``channels`` otherwise. RefusedError."""
    if not told.key or len(told.key) > MAX_KEY:
        raise RefusedError("member_key", f"The key does not have 1 to {MAX_KEY} characters.", "Pass your own id of it.")
    if len(told.attributes) > MAX_ATTRIBUTES:
        raise RefusedError("attributes", f"There are more than {MAX_ATTRIBUTES}.", "Leave some out.")
    for name, value in told.attributes:
        if not name or len(name) > MAX_NAME:
            raise RefusedError("attributes", f"A name does not have 1 to {MAX_NAME} characters.", "Shorten it.")
        if len(value) > MAX_VALUE:
            raise RefusedError(
                "attributes", f"The value of {name!r} has more than {MAX_VALUE} characters.", "Shorten it."
            )
    return told._replace(destinations=tuple(_destination(one, channel, channels) for one in told.destinations))


def _destination(told: ToldDestination, channel: str, channels: Collection[str]) -> ToldDestination:
    key = channel_key(told.channel) or channel
    if not key:
        raise RefusedError(
            "destinations", "A destination names no channel, and the communication has none.", "Name its channel."
        )
    if key != channel and key not in channels:
        raise RefusedError(
            "destinations", f"The tenant has no channel {told.channel[:80]!r}.", "Name one of the tenant's channels."
        )
    for what, text in (("recipient", told.recipient), ("message id", told.message_id)):
        if len(text) > MAX_KEY:
            raise RefusedError("destinations", f"A {what} has more than {MAX_KEY} characters.", "Pass a shorter one.")
    return told._replace(channel=key)


class MemberAt(NamedTuple):
    """Where members are: their batch, and the communication's channel."""

    batch: Document
    channel: str


def added(told: ToldMember, at: MemberAt) -> Document:
    """The document of a new member. RefusedError.

    One of which no destination is told has one on the communication's channel, whose recipient nobody told.
    """
    batch = at.batch
    if not told.destinations and not at.channel:
        raise RefusedError(
            "destinations",
            "The member has no destination, and the communication no channel.",
            "Name a destination with its channel, or give the communication a channel.",
        )
    document: Document = {
        "_id": member_id(batch["_id"], told.key),
        "registration": batch["registration"],
        "communication": batch["communication"],
        "batch_id": batch["batch_id"],
        "key": told.key,
        "batch_at_us": batch["created_at_us"],
        "attributes": [list(pair) for pair in told.attributes],
        "destinations": _completed([], told.destinations or (ToldDestination(at.channel),)),
        "version": 1,
    }
    return _findable(document)


def completed(known: Document, told: ToldMember) -> Document:
    """The document of a member that is ``known``, with what is told now. Equal to ``known`` where that is nothing new;
    of another version where it is. RefusedError.

    Attributes that are told take the place of all that it has.
    """
    attributes = [list(pair) for pair in told.attributes] or known["attributes"]
    destinations = _completed(known["destinations"], told.destinations)
    if attributes == known["attributes"] and destinations == known["destinations"]:
        return known
    changed = {**known, "attributes": attributes, "destinations": destinations, "version": known["version"] + 1}
    return changed if destinations == known["destinations"] else _findable(changed)


def _findable(document: Document) -> Document:
    told = [(one["channel"], one["address"]) for one in document["destinations"]]
    document["found_by"] = found_by(document["communication"], document["key"], told)
    return document


def _completed(known: list[Document], told: tuple[ToldDestination, ...]) -> list[Document]:
    """``known`` with the destinations that are not among them behind it.

    The place of each is what messages know it by, so none ever leaves it. One whose recipient is not told is any on its
    channel; who tells the recipient later completes the one that has none.
    """
    destinations = list(known)
    for one in told:
        address = address_of(one.recipient) if one.recipient else ""
        there = [place for place, kept in enumerate(destinations) if kept["channel"] == one.channel]
        if any(not address or destinations[place]["address"] == address for place in there):
            continue
        found: Document = {"channel": one.channel, "recipient": one.recipient, "address": address}
        unnamed = next((place for place in there if not destinations[place]["address"]), None)
        if unnamed is not None:
            destinations[unnamed] = {**destinations[unnamed], **found}
            continue
        if len(destinations) == MAX_DESTINATIONS:
            raise RefusedError(
                "destinations", f"The member would have more than {MAX_DESTINATIONS} destinations.", "Leave some out."
            )
        destinations.append(found)
    return destinations
