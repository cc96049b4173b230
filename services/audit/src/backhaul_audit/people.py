"""Keys of people in MongoDB: made when a line first needs one, and destroyed by erasure."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from backhaul_channels.people import person
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import AUDIT_PEOPLE_COLLECTION
from pymongo import ASCENDING, IndexModel, InsertOne, UpdateOne

from backhaul_audit.peoplesecrets import KEY_BYTES, MongoSecrets, Name, Person, Secrets, lives_of
from backhaul_audit.ports import Erased

INDEXES: Mapping[str, Sequence[IndexModel]] = {
    AUDIT_PEOPLE_COLLECTION: [IndexModel([("registration", ASCENDING), ("key_id", ASCENDING)])]
}

GRACE_US = 30_000_000
"""How long after an erasure events arrive that may still be encrypted with the key that was destroyed: the copy that
files uses what it has read for ``keyring.KEPT_S``, and the rest is for clocks that differ."""

MAX_MADE = 1000
"""Keys that one transaction makes."""

T = TypeVar("T")


class MongoPeople:
    """``People``, and what the copy that files asks for."""

    def __init__(self, database: mongo.Database, secrets: MongoSecrets, now_us: Callable[[], int]) -> None:
        self._database = database
        self._rows = database[AUDIT_PEOPLE_COLLECTION]
        self._secrets = secrets
        self._now_us = now_us

    async def by_id(self, registration: str, key_ids: Collection[str]) -> Mapping[str, bytes]:
        """See ``People``."""
        secrets = await self._secrets.known(registration)
        if secrets is None or not key_ids:
            return {}
        query = {"registration": registration, "key_id": {"$in": list(key_ids)}}
        async with mongo.operation():
            rows = await self._rows.find(query, {"key_id": 1, "key": 1}).to_list(None)
        return {row["key_id"]: secrets.unwrap(row).key for row in rows}

    async def erase(self, registration: str, address: str) -> Erased:
        """See ``People``."""
        if not person(address):
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                "The address is missing.",
                field="address",
                fix="Pass the person's number or e-mail address, as events have it.",
            )
        secrets = await self._secrets.made(registration)
        if secrets is None:
            raise _gone()
        name = secrets.name(address)
        before_us = 0

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> Document:
            nonlocal before_us
            if registration not in lives_of(database, session, {registration}):
                raise _gone()
            self._secrets.require(database, session, [secrets])
            before_us = self._now_us() + GRACE_US
            later = {"$max": ["$erased_before_us", before_us]}
            change: list[Document] = [
                {"$set": {"registration": registration, "erased_before_us": later}},
                {"$unset": ["key_id", "key", "made_at_us"]},
            ]
            rows = database[AUDIT_PEOPLE_COLLECTION]
            return rows.find_one_and_update({"_id": name.id}, change, upsert=True, session=session) or {}

        was = await self._in_transaction(work)
        return Erased(bool(was.get("key_id")), max(was.get("erased_before_us", 0), before_us))

    async def find(self, names: Collection[Name]) -> Mapping[Name, Person]:
        """Those of whom something is stored. UNAVAILABLE; FAILED_PRECONDITION where keys cannot be decrypted."""
        by_id = {name.id: name for name in names}
        secrets = await self._all_secrets(names)
        async with mongo.operation():
            rows = await self._rows.find({"_id": {"$in": list(by_id)}}).to_list(None)
        found = ((by_id[row["_id"]], row) for row in rows)
        return {name: secrets[name.registration].unwrap(row) for name, row in found if name.registration in secrets}

    async def make(self, names: Collection[Name]) -> Mapping[Name, Person]:
        """Have each of ``names`` have a key, but for those whose tenants are gone, of whom there is nothing.
        Raises as above; some may have one by then."""
        secrets = await self._all_secrets(names)
        wanted = [name for name in names if name.registration in secrets]
        made: dict[Name, Person] = {}
        for start in range(0, len(wanted), MAX_MADE):
            work = partial(self._make, wanted[start : start + MAX_MADE], secrets)
            made |= await self._in_transaction(work)
        return made

    def _make(
        self,
        names: Sequence[Name],
        secrets: Mapping[str, Secrets],
        database: mongo.ThreadDatabase,
        session: mongo.Session,
    ) -> Mapping[Name, Person]:
        lives = lives_of(database, session, {name.registration for name in names})
        names = [name for name in names if name.registration in lives]
        self._secrets.require(database, session, [secrets[one] for one in {name.registration for name in names}])
        rows = database[AUDIT_PEOPLE_COLLECTION]
        known = {row["_id"]: row for row in rows.find({"_id": {"$in": [one.id for one in names]}}, session=session)}
        made: dict[Name, Person] = {}
        changes: list[InsertOne[Document] | UpdateOne] = []
        for name in names:
            row = known.get(name.id)
            if row is not None and row.get("key_id"):
                made[name] = secrets[name.registration].unwrap(row)
                continue
            key_id, key = os.urandom(8).hex(), os.urandom(KEY_BYTES)
            fields = {
                "registration": name.registration,
                "key_id": key_id,
                "key": secrets[name.registration].wrap(key_id, key),
                "made_at_us": self._now_us(),
            }
            changes.append(
                InsertOne({"_id": name.id, **fields}) if row is None else UpdateOne({"_id": name.id}, {"$set": fields})
            )
            made[name] = Person(key_id, key, row.get("erased_before_us", 0) if row is not None else 0)
        if changes:
            rows.bulk_write(changes, ordered=False, session=session)
        return made

    async def _all_secrets(self, names: Iterable[Name]) -> Mapping[str, Secrets]:
        some = {one: await self._secrets.known(one) for one in {name.registration for name in names}}
        return {registration: secrets for registration, secrets in some.items() if secrets is not None}

    async def _in_transaction(self, work: Callable[[mongo.ThreadDatabase, mongo.Session], T]) -> T:
        async with mongo.translated():
            return await mongo.in_transaction(self._database, work)


def _gone() -> BackhaulError:
    return BackhaulError(
        Code.NOT_FOUND, "The tenant is gone.", field="tenant_id", fix="Nothing is left to erase: its data is deleted."
    )
