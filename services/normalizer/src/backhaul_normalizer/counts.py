"""How many events, messages and replies there were, by the hour and by the day, as they are counted and stored.

Each document has the counts of one communication, or of what belongs to none, in one channel on one day (UTC). Whatever
is asked is a sum over such documents. Of all communications of a channel and day together there is the same, the
*totals*: a tenant may have very many communications. There are several of each, its *shards*: two copies of this
service that add to one at the same time would wait for each other. A single shard's counts may be below zero; their sum
never is.

An event counts in the hour in which it happened and in the communication of its message; a message in the hour in
which it was sent. Whatever changes one of these takes the event, or the message, out where it was counted and in where
it counts now, so the sums are the same for every order of arrival.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from hashlib import blake2b
from itertools import count
from secrets import randbelow
from typing import NamedTuple

from backhaul_channels import EventKind
from backhaul_common.documents import Document
from backhaul_common.ids import derived_id

from backhaul_normalizer.facts import communication_key
from backhaul_normalizer.hours import DAY_HOURS, hour_of
from backhaul_normalizer.model import KIND_NAMES, Fact
from backhaul_normalizer.states import FULFILMENT_STATES

MAX_SHARDS = 16
"""Documents of one communication, channel and day. A communication that several copies of this service are busy with
has about as many as there are copies."""

UNIQUE = (EventKind.OPENED.value, EventKind.CLICKED.value)
"""Kinds that a person or a machine brings about, and of which the messages are counted that have any by a person."""

_GROUPS = {
    "fulfilment": FULFILMENT_STATES,
    "events": tuple(KIND_NAMES.values()),
    "by_machine": UNIQUE,
    "unique": UNIQUE,
}
FIELDS = ("messages", *(f"{group}.{name}" for group, names in _GROUPS.items() for name in names))
"""All that is counted of an hour, as dotted names."""

_HOURS = "hours."
"""How the names of such fields begin, and of no others."""

_MESSAGES, _FULFILMENT, _EVENTS, _BY_MACHINE, _UNIQUE = (
    [f"hours.{hour}.messages" for hour in range(DAY_HOURS)],
    *(
        [{name: f"hours.{hour}.{group}.{name}" for name in names} for hour in range(DAY_HOURS)]
        for group, names in _GROUPS.items()
    ),
)
"""The same as fields of a document, by the hour of its day."""

_ID_REST = struct.Struct(">IB7s")
_ID_DAY_0 = 1 << 31
"""Added to a day, so that days before 1970 come before those after it."""


class Counted(NamedTuple):
    """What must be known of an event to count it: ``kind`` by its name, ``duplicate`` says that another one counts."""

    id: str
    kind: str
    occurred_at_us: int
    received_at_us: int
    by_machine: bool
    duplicate: bool


class Day(NamedTuple):
    """What the counts of one document are of, days since 1970 in UTC. ``communication_id`` is empty where there is
    none."""

    registration: str
    communication_id: str
    channel: str
    day: int


class _Changes:
    """By how much the counts of one day change, by the fields of its documents."""

    __slots__ = ("_last_before_us", "counts", "first_us", "last_us")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.first_us: int | None = None
        self.last_us = 0
        self._last_before_us = 0

    def add(self, field: str, change: int) -> None:
        self.counts[field] = self.counts.get(field, 0) + change

    def seen(self, first_us: int, last_us: int, sign: int) -> None:
        """An event arrived at the one time and happened at the other. What was seen stays seen."""
        if sign < 0:
            self._last_before_us = max(self._last_before_us, last_us)
            return
        if self.first_us is None or first_us < self.first_us:
            self.first_us = first_us
        self.last_us = max(self.last_us, last_us)

    def changed(self) -> dict[str, int]:
        return {field: change for field, change in self.counts.items() if change}

    @property
    def matters(self) -> bool:
        return any(self.counts.values()) or self.last_us > self._last_before_us


class Counts:
    """By how much the counts change through what one transaction writes."""

    def __init__(self) -> None:
        self._days: dict[tuple[str, str, str, int], _Changes] = {}

    def message(self, before: Document | None, after: Document | None) -> None:
        """Count a message out where and as it was, and in where and as it is now. Its events are counted apart."""
        was = _message(before) if before is not None else None
        now = _message(after) if after is not None else None
        if was == now:
            return
        for one, sign in ((was, -1), (now, +1)):
            if one is not None:
                where, hour, fulfilment, unique = one
                day, of_day = divmod(hour, DAY_HOURS)
                changes = self._of((*where, day))
                changes.add(_MESSAGES[of_day], sign)
                if fulfilment:
                    changes.add(_FULFILMENT[of_day][fulfilment], sign)
                for kind in unique:
                    changes.add(_UNIQUE[of_day][kind], sign)

    def fact(self, fact: Fact, communication_id: str, sign: int) -> None:
        """Count an event in (+1) or out (-1), which belongs to that communication."""
        origin, event = fact.origin, fact.event
        self._event(
            (origin.registration, communication_id, origin.channel),
            KIND_NAMES[event.kind],
            fact.occurred_at_us,
            origin.received_at_us,
            sign,
            by_machine=event.by_machine,
            duplicate=bool(fact.duplicate_of),
        )

    def moved(self, before: Document, after: Document, events: Iterable[Counted]) -> None:
        """Count these events of a message out of the communication that it had, and in where it belongs now."""
        for one in events:
            for message, sign in ((before, -1), (after, +1)):
                self._event(
                    (message["registration"], message["communication_id"], message["channel"]),
                    one.kind,
                    one.occurred_at_us,
                    one.received_at_us,
                    sign,
                    by_machine=one.by_machine,
                    duplicate=one.duplicate,
                )

    def reply(self, day: Day, classes: Iterable[str], sign: int) -> None:
        """Count a reply in or out, as these."""
        changes = self._of(day)
        for name in classes:
            changes.add(f"replies.{name}", sign)

    def communications(self) -> set[tuple[str, str]]:
        """Those of which any count may change, each by registration and id; the id is empty for what is of none."""
        return {(registration, communication_id) for registration, communication_id, _, _ in self._days}

    def changed(self) -> dict[Day, dict[str, int]]:
        """What changes by how much, by the dotted names of the fields."""
        return {Day(*day): changed for day, changes in self._days.items() if (changed := changes.changed())}

    def updates(self, shard: int) -> list[Document]:
        """The entries of an update command that apply it to the documents of that shard; they make those that are
        missing."""
        updates = []
        totals: dict[tuple[str, str, int], dict[str, int]] = {}
        for day, changes in self._days.items():
            if changes.matters:
                updates.append(_update(Day(*day), changes, shard))
                registration, _, channel, number = day
                total = totals.setdefault((registration, channel, number), {})
                for field, change in changes.counts.items():
                    total[field] = total.get(field, 0) + change
        # Replies are asked for by communication only.
        for where, total in totals.items():
            changed = {field: change for field, change in total.items() if change and field.startswith(_HOURS)}
            if changed:
                updates.append(_total_update(*where, changed, shard))
        return updates

    def _event(
        self,
        where: tuple[str, str, str],
        kind: str,
        occurred_at_us: int,
        received_at_us: int,
        sign: int,
        *,
        by_machine: bool,
        duplicate: bool,
    ) -> None:
        day, of_day = divmod(hour_of(occurred_at_us, received_at_us), DAY_HOURS)
        changes = self._of((*where, day))
        changes.seen(received_at_us, occurred_at_us, sign)
        if duplicate:
            return
        changes.add(_EVENTS[of_day][kind], sign)
        if by_machine and kind in UNIQUE:
            changes.add(_BY_MACHINE[of_day][kind], sign)

    def _of(self, day: tuple[str, str, str, int]) -> _Changes:
        changes = self._days.get(day)
        if changes is None:
            changes = self._days[day] = _Changes()
        return changes


class Shards:
    """Which shard this process adds to: a random one, and another when somebody else was found to add to it too.

    Where two copies of this service meet, one of them goes away, and they meet no more.
    """

    def __init__(self) -> None:
        self._shard = randbelow(MAX_SHARDS)

    def of_transaction(self) -> Callable[[], int]:
        """Gives the shard for each try of one transaction. It is tried again where it met another."""
        tries = count()

        def shard() -> int:
            if next(tries):
                self._shard = (self._shard + 1 + randbelow(MAX_SHARDS - 1)) % MAX_SHARDS
            return self._shard

        return shard


def unique_of(message: Document) -> dict[str, int]:
    """1 for opened and for clicked if a person did it at least once."""
    kinds, by_machine = message["kinds"], message.get("by_machine", {})
    return {kind: 1 for kind in UNIQUE if kinds.get(kind, 0) > by_machine.get(kind, 0)}


def ids_of(registration: str, communication_id: str, days: tuple[int, int] | None = None) -> Document:
    """The condition on ``_id`` for the documents of a communication; of ``days``, both included, where they are
    given."""
    return _ids(bytes.fromhex(communication_key(registration, communication_id)), days or (-_ID_DAY_0, _ID_DAY_0 - 1))


def ids_of_totals(registration: str, days: tuple[int, int]) -> Document:
    """The same for the totals of all communications."""
    return _ids(_totals_key(registration), days)


def _totals_key(registration: str) -> bytes:
    # What a communication's key is made of begins with the registration, which has a dot.
    return bytes.fromhex(derived_id("totals", registration))


def _ids(key: bytes, days: tuple[int, int]) -> Document:
    first, last = days
    return {
        "$gte": key + _ID_REST.pack(first + _ID_DAY_0, 0, bytes(7)),
        "$lte": key + _ID_REST.pack(last + _ID_DAY_0, 255, b"\xff" * 7),
    }


def count_id(day: Day, shard: int) -> bytes:
    """28 bytes, all of one length: MongoDB compares the lengths of two before it looks at what they begin with."""
    return _id(bytes.fromhex(communication_key(day.registration, day.communication_id)), day.channel, day.day, shard)


def total_id(registration: str, channel: str, day: int, shard: int) -> bytes:
    """The same of the totals of a channel's day."""
    return _id(_totals_key(registration), channel, day, shard)


def _id(key: bytes, channel: str, day: int, shard: int) -> bytes:
    return key + _ID_REST.pack(day + _ID_DAY_0, shard, blake2b(channel.encode(), digest_size=7).digest())


def _message(message: Document) -> tuple[tuple[str, str, str], int, str, tuple[str, ...]]:
    """Where a message counts, in which hour, and as what."""
    kinds = message["kinds"]
    unique = () if kinds.keys().isdisjoint(UNIQUE) else tuple(unique_of(message))
    where = message["registration"], message["communication_id"], message["channel"]
    return where, message["hour"], message["fulfilment"], unique


def _update(day: Day, changes: _Changes, shard: int) -> Document:
    update: Document = {"$setOnInsert": day._asdict()}
    if changed := changes.changed():
        update["$inc"] = changed
    if changes.first_us is not None:
        update["$min"] = {"created_at_us": changes.first_us}
        update["$max"] = {"last_event_at_us": changes.last_us}
    return {"q": {"_id": count_id(day, shard)}, "u": update, "upsert": True}


def _total_update(registration: str, channel: str, day: int, changed: dict[str, int], shard: int) -> Document:
    where = {"registration": registration, "channel": channel, "day": day, "total": True}
    update: Document = {"$setOnInsert": where, "$inc": changed}
    return {"q": {"_id": total_id(registration, channel, day, shard)}, "u": update, "upsert": True}
