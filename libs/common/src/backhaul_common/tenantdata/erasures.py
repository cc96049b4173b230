"""Erasures of people, as a service remembers them: for as long as a stream may bring again what was erased.

A tombstone is found by a hash of the registration and the person. Whoever tries all numbers undoes such a hash, so it
is kept no longer than the streams may have the addresses themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from pymongo import ASCENDING, IndexModel, ReturnDocument

from backhaul_common import fence, mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import derived_id
from backhaul_common.store_format import StoreFormat

ERASE_S = 15.0
"""When an erasure begins nothing further. What is under way then has ``OPERATION_S`` more, as in a purge."""

INDEXES = [IndexModel([("registration", ASCENDING)]), IndexModel("ends_at", expireAfterSeconds=0)]
"""Those of a collection of erasures."""

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays of a person: of which kind, why, and how many; 0 where it is not counted. ``until_us`` is when it
    goes; 0 where it does not by itself."""

    kind: str
    reason: str
    count: int = 0
    until_us: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an erasure: see ``EraseRecipientResponse``."""

    before_us: int
    erased: Mapping[str, int] = field(default_factory=dict)
    kept: Sequence[Kept] = ()


class Asked(NamedTuple):
    """Who is to be erased: see ``EraseRecipientRequest``."""

    tenant_id: str
    registration: str
    address: str
    before_us: int


class RecipientData(Protocol):
    """What a service keeps of people."""

    async def erase(self, asked: Asked) -> Receipt:
        """See ``TenantDataService.EraseRecipient``."""
        ...


class KeepsNobody:
    """A ``RecipientData`` of a service that has nothing of people, but for ``kept``, which says nothing of who they
    are."""

    def __init__(self, kept: Sequence[Kept] = ()) -> None:
        self._kept = kept

    async def erase(self, asked: Asked) -> Receipt:
        """See ``RecipientData``."""
        return Receipt(asked.before_us, {}, self._kept)


class Erasures:
    """Tombstones in a collection of the service's own, and how far each erasure is.

    Documents of people::

        _id             key_of
        registration
        before_us       what arrived before is erased, or to be
        open            True until all that was there is
        at              {name: position} of what is gone through in several calls
        erased          {kind: n}
        ends_at         when it is forgotten

    and one for each registration that has any, under the registration, with the latest ``before_us`` of all and its own
    ``ends_at``: most registrations have none, and one look at these tells so of a whole batch.
    """

    def __init__(self, database: mongo.Database, store_format: StoreFormat, collection: str, kept_s: float) -> None:
        """``kept_s`` is for how long after an erasure a stream may bring what arrived before it."""
        self._database = database
        self._format = store_format
        self._rows = database[collection]
        self._kept_s = kept_s

    async def begin(self, asked: Asked, person: str) -> Erasure:
        """The erasure to be worked: one that was left open, or a new one, which is remembered from now on. UNAVAILABLE;
        FAILED_PRECONDITION where the tenant is gone."""
        registration = asked.registration
        await self._format.ensure()
        if not await fence.lives(self._database, asked.tenant_id, registration):
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                "The tenant is gone, or is being deleted.",
                field="registration",
                fix="Nothing is left to erase: all of its data is deleted.",
            )
        # The clock that arrivals are told by is the gateway's: one far ahead must not erase what is to come.
        before_us = min(asked.before_us, round(_now().timestamp() * 1e6) + _DAY_US)
        ends_at = _now() + timedelta(seconds=self._kept_s)
        later = {"$max": {"before_us": before_us, "ends_at": ends_at}, "$setOnInsert": {"registration": registration}}
        key = key_of(registration, person)
        async with mongo.operation():
            await self._rows.update_one({"_id": registration}, later, upsert=True)
            row = await self._rows.find_one({"_id": key})
            if row is None or not row["open"]:
                started = {
                    "$max": later["$max"],
                    "$set": {"registration": registration, "open": True, "at": {}},
                    "$setOnInsert": {"erased": {}},
                }
                row = await self._rows.find_one_and_update(
                    {"_id": key}, started, upsert=True, return_document=ReturnDocument.AFTER
                )
        return Erasure(self._database, self._rows.name, row)

    async def to_look_at(self, registrations: Collection[str]) -> Mapping[str, int]:
        """Those of these registrations of which people are erased: nothing that arrived after that time is concerned.
        UNAVAILABLE."""
        async with mongo.operation():
            rows = await self._rows.find({"_id": {"$in": list(registrations)}}, {"before_us": 1}).to_list(None)
        return {row["_id"]: row["before_us"] for row in rows}

    async def erased(self, people: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
        """Of each of these (registration, person) who is erased: what arrived before when. UNAVAILABLE."""
        keys = {key_of(*one): one for one in people}
        async with mongo.operation():
            rows = await self._rows.find({"_id": {"$in": list(keys)}}, {"before_us": 1}).to_list(None)
        return {keys[row["_id"]]: row["before_us"] for row in rows}


class Erasure:
    """One that is being worked."""

    def __init__(self, database: mongo.Database, collection: str, row: Document) -> None:
        self._rows = database[collection]
        self._key = row["_id"]
        self.before_us: int = row["before_us"]
        self.ends_at: datetime = row["ends_at"]
        self._at: dict[str, object] = row["at"]
        self._erased: Counter[str] = Counter(row["erased"])

    def position(self, name: str) -> object:
        """How far ``name`` is; None at its beginning."""
        return self._at.get(name)

    async def erased(self, kind: str, count: int = 0, at: tuple[str, object] | None = None) -> None:
        """So many more are, and what is named is so far. UNAVAILABLE."""
        update: Document = {}
        if count:
            update["$inc"] = {f"erased.{kind}": count}
            self._erased[kind] += count
        if at is not None:
            update["$set"] = {f"at.{at[0]}": at[1]}
            self._at[at[0]] = at[1]
        if update:
            async with mongo.operation():
                await self._rows.update_one({"_id": self._key}, update)

    async def done(self, kept: Sequence[Kept] = ()) -> Receipt:
        """Nothing is left. UNAVAILABLE."""
        async with mongo.operation():
            await self._rows.update_one({"_id": self._key}, {"$set": {"open": False, "at": {}}})
        return Receipt(self.before_us, dict(self._erased), kept)


def key_of(registration: str, person: str) -> bytes:
    """By what a person's tombstone is found."""
    return bytes.fromhex(derived_id("erased", registration, person))


def more_to_erase() -> BackhaulError:
    """UNAVAILABLE: the call's time is over, and the next one goes on."""
    return BackhaulError(
        Code.UNAVAILABLE,
        "There is more of the person than one call erases.",
        fix="Ask again: the next call goes on.",
        retry_after_s=1,
    )


def no_address() -> BackhaulError:
    """INVALID_ARGUMENT."""
    return BackhaulError(
        Code.INVALID_ARGUMENT,
        "The address is missing.",
        field="address",
        fix="Pass the person's number or e-mail address, as events have it.",
    )


def _now() -> datetime:
    return datetime.now(UTC)
