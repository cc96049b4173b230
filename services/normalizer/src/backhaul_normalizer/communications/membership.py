"""What members are told of, and what becomes of a member when more is told of it. No input, no output."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from backhaul_common.documents import Document
from backhaul_common.errors import Violation
from backhaul_common.tenants import Channel

from backhaul_normalizer.communications.documents import MAX_DESTINATIONS, found_by, member_id
from backhaul_normalizer.communications.files.members import Attribute, Destination
from backhaul_normalizer.facts import address_of


class MemberAt(NamedTuple):
    """Where members are added: their batch, and the channel of destinations that name none, which may be empty."""

    batch: Document
    channel: str


class Told(NamedTuple):
    """A member as it is told, ready to be stored: its ``_id``, attributes and destinations; and its document as a new
    one, or why it cannot be one."""

    id: bytes
    attributes: list[list[str]]
    destinations: list[Document]
    new: Document | Violation


class RefusedError(Exception):
    """A member cannot be taken as it is told."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.violation = Violation("destinations", message, fix)


def told_of(
    key: str,
    attributes: Collection[Attribute],
    destinations: Collection[Destination],
    at: MemberAt,
    channels: Mapping[str, Channel],
) -> Told:
    """What is told of a member, whose destinations are on the tenant's ``channels``. RefusedError.

    A new one of which no destination is told has one on the communication's channel, whose recipient nobody told.
    """
    batch = at.batch
    member = member_id(batch["_id"], key)
    pairs = [list(pair) for pair in attributes]
    told = [_destination(channel or at.channel, recipient, channels) for channel, recipient, _ in destinations]
    if not told and not at.channel:
        return Told(member, pairs, told, _NO_DESTINATION)
    new: Document = {
        "_id": member,
        "registration": batch["registration"],
        "communication": batch["communication"],
        "batch_id": batch["batch_id"],
        "key": key,
        "batch_at_us": batch["created_at_us"],
        "attributes": pairs,
        "destinations": _completed([], told or [_destination(at.channel, "", channels)]),
        "version": 1,
    }
    return Told(member, pairs, told, _findable(new))


def completed(known: Document, told: Told) -> Document:
    """The document of a member that is ``known``, with what is told now: ``known`` itself where that is nothing new,
    and else one of another version. RefusedError.

    Attributes that are told take the place of all that it has.
    """
    attributes = told.attributes or known["attributes"]
    destinations = _completed(known["destinations"], told.destinations)
    if destinations is known["destinations"]:
        if attributes == known["attributes"]:
            return known
        return {**known, "attributes": attributes, "version": known["version"] + 1}
    return _findable({**known, "attributes": attributes, "destinations": destinations, "version": known["version"] + 1})


_NO_DESTINATION = Violation(
    "destinations",
    "The member has no destination, and the communication no channel.",
    "Name a destination with its channel, or give the communication a channel.",
)


def _destination(channel: str, recipient: str, channels: Mapping[str, Channel]) -> Document:
    if not channel:
        raise RefusedError("A destination names no channel, and the communication has none.", "Name its channel.")
    if channel not in channels:
        # The key is not what the sender wrote, which the refused line shows.
        labels = ", ".join(sorted(one.label for one in channels.values())) or "none yet"
        raise RefusedError(
            "A destination names a channel that the tenant does not have.", f"Name one of the tenant's: {labels}."
        )
    address = address_of(recipient) if recipient else ""
    return {"channel": channel, "recipient": recipient if address else "", "address": address}


def _findable(document: Document) -> Document:
    told = [(one["channel"], one["address"]) for one in document["destinations"]]
    document["found_by"] = found_by(document["communication"], document["key"], told)
    return document


def _completed(known: list[Document], told: list[Document]) -> list[Document]:
    """``known`` with the destinations that are not among them behind it; itself where there is none.

    The place of each is what messages know it by, so none ever leaves it. One whose recipient is not told is any on its
    channel; who tells the recipient later completes the one that has none.
    """
    destinations = known
    for one in told:
        channel, address = one["channel"], one["address"]
        unnamed = -1
        for place, kept in enumerate(destinations):
            if kept["channel"] != channel:
                continue
            if not address or kept["address"] == address:
                break
            if not kept["address"]:
                unnamed = place
        else:
            if destinations is known:
                destinations = list(known)
            if unnamed >= 0:
                destinations[unnamed] = {**destinations[unnamed], **one}
            elif len(destinations) < MAX_DESTINATIONS:
                destinations.append(one)
            else:
                raise RefusedError(
                    f"The member would have more than {MAX_DESTINATIONS} destinations.", "Leave some out."
                )
    return destinations
