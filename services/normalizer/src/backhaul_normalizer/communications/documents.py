"""How communications, batches and members are stored, and by which keys they find each other.

A member's document has its destinations, each of which is a message to one person. A message *holds* a destination
where it is the one that counts for it. Its own document says so, so a fold that changes its state knows which batch to
count it in without reading anything else. What a message belongs to is settled by ``linking``.

``communications``: one that is registered, or that an event named::

    _id                 communication_id_of
    registration, communication_id
    status              "active", "complete" (it has batches, and all are), "disabled"
    created_at_us       when it was registered, or appeared
    updated_at_us       when what is registered changed; absent where nothing is
    registered          {name, mode, channel, notify: [str], deadline_s, completes_on,
                        environments: {mode: [[name, value]]}}; absent where it only appeared
    switched            [{disabled, reason, author, at_us}], the oldest first; absent where it never was
    batches, complete   how many there are, and are complete; absent: 0
    members_version     grows with every change of its batches' members; absent: 0

``batches``::

    _id                 batch_key
    tenant, registration, communication (its _id), communication_id, batch_id, label
    status              "open", "closed", "complete"
    completes_on        "processed", "final": the communication's when it was made
    expected_members    0: none
    members, destinations   how many there are
    created_at_us, deadline_at_us, closed_at_us, completed_at_us   the last two absent before
    due_at_us           deadline_at_us while it is not complete, absent then
    completed_by        "condition", "deadline"; absent before
    at_completion       {members, destinations, fulfilment: {state: n}}; absent before
    version             grows with every change of its members
    to_link             {id of a call that adds members: when it did last}, of those that have not come to their end:
                        some of their members may not be linked to messages that are there; absent where none is

``batch_counts``: how many of a batch's destinations are held, by state; several shards, as ``counts``::

    _id                 count_id
    registration
    fulfilment          {state: n}; a single shard's may be below zero
    complete            True once the batch is; from then on
    late                how many changes of a state came afterwards

``members``::

    _id                 member_id
    registration, communication (its _id), batch_id, key
    batch_at_us         the batch's created_at_us
    attributes          [[name, value]]
    destinations        [{channel, recipient, address (canonical), holder (a message's _id; absent)}], added to, not cut
    found_by            found_by
    processed           True where it was said that all its destinations were processed; absent otherwise
    version             grows with every change
    address_expired     True where recipients, addresses and attributes are kept no longer; absent before

``messages`` have besides::

    batch_id, member_key, member_at_us, member_place    what the earliest of its events that names a member says
    told                told_key of that
    dest                destination_id of the destination that it is for; set by linking
    holds               True where it is the one of them that counts
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, Literal, TypeAlias

from backhaul_common.documents import Document
from backhaul_common.ids import derived_id

from backhaul_normalizer.facts import communication_key

HOUR_S: Final = 3600
DEADLINE_S: Final = 72 * HOUR_S
"""From a batch's registration to its deadline, unless the communication says otherwise."""

MAX_DEADLINE_S: Final = 90 * 24 * HOUR_S

MAX_DESTINATIONS: Final = 8
"""Destinations of one member."""

MAX_ATTRIBUTES: Final = 64
"""Attributes of one member, and variables of one environment."""

MAX_NAME: Final = 128
"""Characters of an attribute's or a variable's name, of a mode, of a label and of a name."""

MAX_VALUE: Final = 2048
"""Characters of an attribute's or a variable's value."""

MAX_NOTIFIED: Final = 50
"""Mail addresses of a notification list."""

MAX_SWITCHED: Final = 20
"""Disablings and enablings of a communication that are kept, the latest ones."""

Status: TypeAlias = Literal["open", "closed", "complete"]
CompletesOn: TypeAlias = Literal["processed", "final"]

WAITING: Final = "waiting"
"""What a destination counts as that no message holds, or one without a fulfilment state."""

PROCESSED: Final = ("Sent", "Delivered", "Undelivered", "Failed", "InvalidNumber")
"""Fulfilment states of what was processed: sent, or failed."""

FAILED: Final = ("Undelivered", "Failed", "InvalidNumber")
"""Those of them in which nobody was reached."""

FINAL: Final = ("Delivered", "Undelivered", "Failed", "InvalidNumber")

_MEMBER_BYTES = 12
KEY_BYTES: Final = 16
MEMBER_ID_BYTES: Final = KEY_BYTES + _MEMBER_BYTES


def communication_id_of(registration: str, communication_id: str) -> bytes:
    """The ``_id`` of a communication."""
    return bytes.fromhex(communication_key(registration, communication_id))


def batch_key(registration: str, batch_id: str) -> bytes:
    """The ``_id`` of a batch; its counts' and its members' begin with it."""
    return bytes.fromhex(derived_id("batch", registration, batch_id))


def member_id(batch: bytes, member_key: str) -> bytes:
    """The ``_id`` of a member of the batch of that key."""
    return batch + blake2b(member_key.encode(), digest_size=_MEMBER_BYTES).digest()


def destination_id(member: bytes, position: int) -> bytes:
    """By what a message names its destination: the member's ``_id``, and which of its destinations it is, from 0."""
    return member + bytes((position,))


def member_of(destination: bytes) -> tuple[bytes, int]:
    """The member's ``_id`` and the position in a ``destination_id``."""
    return destination[:MEMBER_ID_BYTES], destination[MEMBER_ID_BYTES]


def batch_of(destination: bytes) -> bytes:
    """The key of the batch that a destination, or a member, belongs to."""
    return destination[:KEY_BYTES]


def count_id(batch: bytes, shard: int) -> bytes:
    """The ``_id`` of one shard of a batch's counts."""
    return batch + bytes((shard,))


def told_key(registration: str, member_key: str) -> bytes:
    """By what messages are found whose events name that member, of whichever batch: ``messages.told``."""
    return bytes.fromhex(derived_id("told", registration, member_key))


def found_by_key(communication: bytes, member_key: str) -> bytes:
    """By what a member is found within its communication: one of ``members.found_by``."""
    return bytes.fromhex(derived_id("member", communication.hex(), member_key))


def found_by_address(communication: bytes, channel: str, address: str) -> bytes:
    """By what a member is found within its communication by a destination's canonical address: one of
    ``members.found_by``."""
    return bytes.fromhex(derived_id("address", communication.hex(), channel, address))


def found_by(communication: bytes, member_key: str, destinations: Sequence[tuple[str, str]]) -> list[bytes]:
    """All ``found_by`` of a member; of each destination its channel and its canonical address."""
    keys = [found_by_address(communication, channel, address) for channel, address in destinations if address]
    return [found_by_key(communication, member_key), *dict.fromkeys(keys)]


def status_of(communication: Document) -> str:
    """The ``status`` of a communication, by what else its document says."""
    switched = communication.get("switched")
    if switched and switched[-1]["disabled"]:
        return "disabled"
    batches = communication.get("batches", 0)
    return "complete" if batches and communication.get("complete", 0) >= batches else "active"
