"""What is stored behind each page: everything of it, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backhaul_common import mongo
from backhaul_common.fence import living
from backhaul_common.leases import LEASE_S
from backhaul_common.names import RECONCILED_CHANNELS_COLLECTION

from backhaul_reconciler.accounts import Held, MongoAccounts
from backhaul_reconciler.documents import BEFORE_ALL
from backhaul_reconciler.model import ChannelOf
from backhaul_reconciler.ports import Change


class MovedError(Exception):
    """The tenant, its channel or the channel's settings are others by now: what was begun for them ends."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be stored: ``fields`` of the channel's document, those that are to be ``gone``, and ``changes``."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    gone: Sequence[str] = ()
    changes: Sequence[Change] = ()


class Books:
    """Stores for who holds the account."""

    def __init__(self, database: mongo.Database, accounts: MongoAccounts) -> None:
        self._database = database
        self._accounts = accounts

    async def commit(self, held: Held, of: ChannelOf, settings_us: int, entry: Entry) -> None:
        """Store ``entry``. LostError where the account is another copy's, MovedError where the tenant is going or the
        channel's settings are not those of ``settings_us``: nothing is stored then. UNAVAILABLE."""

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            lives = living(database, session, [of.tenant]).get(of.tenant)
            if lives is None or lives.registration != of.registration:
                raise MovedError
            self._accounts.fence(database, session, held)
            update: dict[str, Any] = {}
            if entry.fields:
                update["$set"] = dict(entry.fields)
            if entry.gone:
                update["$unset"] = dict.fromkeys(entry.gone, "")
            query = {"_id": of.id, "account": held.id, "settings_us": settings_us}
            channels = database[RECONCILED_CHANNELS_COLLECTION]
            # Read where there is nothing to write: the channel must be there in any case.
            there = (
                channels.update_one(query, update, session=session).matched_count
                if update
                else channels.find_one(query, {"_id": 1}, session=session)
            )
            if not there:
                raise MovedError
            if "due_at_us" in entry.fields:
                # Somebody may have asked for a run since this one was read: it waits for nothing that is scheduled.
                wanted = {"_id": of.id, "called": {"$exists": True}}
                channels.update_one(wanted, {"$set": {"due_at_us": BEFORE_ALL}}, session=session)
            for change in entry.changes:
                change(database, session)

        async with held.writing, mongo.translated():
            asked_at = held.loop_time()
            await mongo.in_transaction(self._database, work)
            held.until = max(held.until, asked_at + LEASE_S)
