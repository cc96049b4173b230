"""Which channels are asked, and which of them are due: kept in line with what the tenants are."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.fence import living
from backhaul_common.names import RECONCILED_CHANNELS_COLLECTION, TENANTS_COLLECTION
from backhaul_common.tenants import Channel, Tenant
from pymongo import IndexModel

from backhaul_reconciler.forgetting import forget
from backhaul_reconciler.knowing import Knowing, Known, Unasked, micros
from backhaul_reconciler.model import ChannelOf, RunState, Standing
from backhaul_reconciler.ports import Reports

INDEXES: Mapping[str, list[IndexModel]] = {
    RECONCILED_CHANNELS_COLLECTION: [
        IndexModel("registration"),
        IndexModel([("account", 1), ("due_at_us", 1)]),
        IndexModel([("due_at_us", 1), ("account", 1)]),
    ]
}

MAX_ACCOUNTS: Final = 200
"""Accounts that one look finds due."""

_TENANTS_AT_ONCE: Final = 200
"""That are put in line before the event loop does something else: of each the credentials are decrypted."""

_NOW_US: Final[Document] = {"$multiply": [{"$toLong": "$$NOW"}, 1000]}

_AT_ONCE: Final = 1
"""When a channel is due that must be asked as soon as may be."""

_SINCE_US: Final[Document] = {
    "$max": ["$due_at_us", {"$ifNull": ["$changed_at_us", 0]}, {"$ifNull": ["$called.asked_at_us", 0]}]
}
"""Since when a channel that is due has been."""


class Tenants(Protocol):
    """Who is served."""

    @property
    def tenants(self) -> Mapping[str, Tenant]: ...

    @property
    def synced(self) -> bool: ...


class Due(NamedTuple):
    """An account with a channel that is due, and for how long that has been, in seconds. ``waiting``: its provider did
    not answer when it was asked last."""

    account: str
    late_s: float
    waiting: bool


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a channel's document must say; ``fields`` that the settings decide."""

    of: ChannelOf
    provider: str
    settings_us: int
    account: str
    standing: Standing
    text: str
    asked: bool


class _Looked(NamedTuple):
    """A tenant as it was put in line last, None where it was not, and by their ids the documents that it then had."""

    tenant: Tenant | None
    wanted: dict[str, _Wanted]


_NEVER: Final = _Looked(None, {})


class Channels:
    """``reconciled_channels``, but for what runs write."""

    def __init__(
        self,
        database: mongo.Database,
        tenants: Tenants,
        knowing: Knowing,
        reports: Reports,
        now_us: Callable[[], int],
    ) -> None:
        self._database = database
        self._channels = database[RECONCILED_CHANNELS_COLLECTION]
        self._tenants = tenants
        self._knowing = knowing
        self._reports = reports
        self._now_us = now_us
        # What this copy has put in line, by the tenant's id: of thousands hardly any changes, and nothing follows anew
        # from one that is the same object as before.
        self._looked: dict[str, _Looked] = {}
        self._begun = False

    async def sync(self) -> None:
        """Bring all documents in line with the tenants as they are known here. UNAVAILABLE."""
        if not self._tenants.synced:
            return
        if not self._begun:
            await self._begin()
        tenants = self._tenants.tenants
        changed = [tenant for id_, tenant in tenants.items() if self._looked.get(id_, _NEVER).tenant is not tenant]
        for begin in range(0, len(changed), _TENANTS_AT_ONCE):
            await self._look_at(changed[begin : begin + _TENANTS_AT_ONCE])
        for id_ in self._looked.keys() - tenants.keys():
            # Whoever asks for a run syncs as well, and may have been faster.
            for one in self._looked.get(id_, _NEVER).wanted.values():
                await self._remove(one)
            self._looked.pop(id_, None)

    async def _look_at(self, tenants: Sequence[Tenant]) -> None:
        wanted = {tenant.id: {one.of.id: one for one in self._of(tenant)} for tenant in tenants}
        stored = await self._stored([key for ones in wanted.values() for key in ones])
        for tenant in tenants:
            before, now = self._looked.get(tenant.id, _NEVER).wanted, wanted[tenant.id]
            for key, one in now.items():
                row = stored.get(key)
                if before.get(key) != one and (row is None or not _in_line(row, one)):
                    await self._put(one)
            for key in before.keys() - now.keys():
                await self._remove(before[key])
            self._looked[tenant.id] = _Looked(tenant, now)

    async def due(self) -> list[Due]:
        """Accounts of channels that are due by MongoDB's clock: those that wait longest first, and last those whose
        provider did not answer. UNAVAILABLE."""
        pipeline: list[Document] = [
            {
                "$match": {
                    "account": {"$type": "string"},
                    "due_at_us": {"$type": "number"},
                    "$expr": {"$lte": ["$due_at_us", _NOW_US]},
                }
            },
            {
                "$group": {
                    "_id": "$account",
                    "due": {"$min": "$due_at_us"},
                    "late": {"$max": {"$subtract": [_NOW_US, _SINCE_US]}},
                    "waiting": {"$max": {"$eq": ["$standing", Standing.WAITING.value]}},
                }
            },
            {"$sort": {"waiting": 1, "due": 1}},
            {"$limit": MAX_ACCOUNTS},
        ]
        async with mongo.operation():
            rows = await self._channels.aggregate(pipeline).to_list(None)
        return [Due(row["_id"], max(0.0, row["late"] / 1_000_000), row["waiting"]) for row in rows]

    async def standings(self) -> Mapping[str, float]:
        """How many channels there are of each standing. UNAVAILABLE."""
        async with mongo.operation():
            rows = await self._channels.aggregate([{"$group": {"_id": "$standing", "n": {"$sum": 1}}}]).to_list(None)
        return {row["_id"]: float(row["n"]) for row in rows}

    async def next_of(self, account: str, now_us: int) -> Document | None:
        """The document of the account's channel that is due longest. UNAVAILABLE."""
        query = {"account": account, "due_at_us": {"$lte": now_us}}
        async with mongo.operation():
            return await self._channels.find_one(query, sort=[("due_at_us", 1), ("_id", 1)])

    def known(self, row: Document) -> Known | None:
        """How the channel of a document is asked now; None where it is not, or not in this way any more."""
        tenant = self._tenants.tenants.get(row["tenant"])
        channel = tenant.channels.get(row["channel"]) if tenant is not None else None
        if tenant is None or channel is None or tenant.registration != row["registration"] or not is_active(tenant):
            return None
        known = self._knowing.channel(tenant, channel)
        if isinstance(known, Unasked) or known.account != row["account"] or known.settings_us != row["settings_us"]:
            return None
        return known

    async def postpone(self, row: Document, due_at_us: int) -> None:
        """Look at the channel later: this copy knows another state of it than the one that is stored. UNAVAILABLE."""
        query = {"_id": row["_id"], "due_at_us": row["due_at_us"]}
        async with mongo.operation():
            await self._channels.update_one(query, {"$set": {"due_at_us": due_at_us}})

    def _of(self, tenant: Tenant) -> list[_Wanted]:
        if tenant.status == "deleting":
            return []
        return [one for channel in tenant.channels.values() if (one := self._one(tenant, channel)) is not None]

    def _one(self, tenant: Tenant, channel: Channel) -> _Wanted | None:
        known = self._knowing.channel(tenant, channel)
        if isinstance(known, Unasked) and (not channel.pull_credentials or known.standing is Standing.NO_API):
            return None
        asked = isinstance(known, Known) and is_active(tenant)
        standing, text = (Standing.ASKED, "") if asked else (Standing.OFF, "The tenant is suspended.")
        if isinstance(known, Unasked):
            standing, text = known.standing, known.text
        return _Wanted(
            ChannelOf(tenant.id, tenant.registration, channel.key),
            channel.provider,
            micros(channel.updated_at),
            known.account if isinstance(known, Known) else "",
            standing,
            text,
            asked,
        )

    async def _stored(self, ids: list[str]) -> dict[str, Document]:
        fields = {"account": 1, "settings_us": 1, "standing": 1, "due_at_us": 1}
        found: dict[str, Document] = {}
        for begin in range(0, len(ids), 1_000):
            async with mongo.operation():
                rows = await self._channels.find({"_id": {"$in": ids[begin : begin + 1_000]}}, fields).to_list(None)
            found |= {row["_id"]: row for row in rows}
        return found

    async def _put(self, one: _Wanted) -> None:
        """Write the document, unless the tenant is gone: this copy may not have heard of that."""

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            lives = living(database, session, [one.of.tenant]).get(one.of.tenant)
            if lives is None or lives.registration != one.of.registration:
                return
            channels = database[RECONCILED_CHANNELS_COLLECTION]
            row = channels.find_one({"_id": one.of.id}, session=session)
            if (row is not None and _in_line(row, one)) or not self._is_latest(database, session, one):
                return  # Another copy was here first, or knows newer settings.
            fields: Document = {
                "registration": one.of.registration,
                "tenant": one.of.tenant,
                "channel": one.of.channel,
                "provider": one.provider,
                "settings_us": one.settings_us,
                "standing": one.standing.value,
                "text": one.text,
            }
            gone = ["never"]  # Somebody may have bought what the account lacked, or given another key.
            if one.account:
                fields["account"] = fields["known_of"] = one.account
                if row is not None and row.get("known_of", one.account) != one.account:
                    # Where another account's lists go on leads nowhere in this one's, of which nothing is known yet.
                    gone += ["lists", "closing"]
            else:
                gone.append("account")
            if one.asked:
                fields |= {"due_at_us": _AT_ONCE, "changed_at_us": self._now_us()}
            else:
                gone.append("due_at_us")
                for run in runs_of(row):
                    self._reports.end(run, RunState.STOPPED, one.text, self._now_us())(database, session)
                gone += ["running", "called"]
            update: Document = {"$set": fields, "$unset": dict.fromkeys(gone, "")}
            channels.update_one({"_id": one.of.id}, update, upsert=True, session=session)

        async with mongo.translated():
            await mongo.in_transaction(self._database, work)

    def _is_latest(self, database: mongo.ThreadDatabase, session: mongo.Session, one: _Wanted) -> bool:
        """Whether the tenant's channel is as this copy knows it. The gateways' clocks do not say which is newer."""
        query = {"_id": one.of.tenant, "registration": one.of.registration}
        row = database[TENANTS_COLLECTION].find_one(query, {"channels": 1}, session=session)
        channel = row["channels"].get(one.of.channel) if row is not None else None
        return channel is not None and micros(channel["updated_at"]) == one.settings_us

    async def _remove(self, one: _Wanted) -> None:
        """The channel is no more, or has nothing to be asked by: what a run of it was asking is over, and what was
        found goes. Reports stay as long as all do."""

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            # One with newer settings was made anew, of which this copy has not heard yet.
            query = {"_id": one.of.id, "settings_us": {"$lte": one.settings_us}}
            row = database[RECONCILED_CHANNELS_COLLECTION].find_one_and_delete(query, session=session)
            if row is None:
                return
            for run in runs_of(row):
                end = self._reports.end(run, RunState.STOPPED, "The channel is not asked any more.", self._now_us())
                end(database, session)
            forget(database, session, one.of)

        async with mongo.translated():
            await mongo.in_transaction(self._database, work)

    async def _begin(self) -> None:
        """Know what is stored: what is not wanted any more may have become so while no copy was there."""
        fields = {"registration": 1, "tenant": 1, "channel": 1, "provider": 1, "settings_us": 1}
        async with mongo.operation(mongo.PATIENT_S):
            async for row in self._channels.find({}, fields):
                tenant = self._tenants.tenants.get(row["tenant"])
                if tenant is not None and tenant.registration == row["registration"]:
                    of = ChannelOf(row["tenant"], row["registration"], row["channel"])
                    one = _Wanted(of, row["provider"], row["settings_us"], "", Standing.OFF, "", False)
                    self._looked.setdefault(tenant.id, _Looked(None, {})).wanted[of.id] = one
        self._begun = True


def jittered(seconds: float) -> float:
    """Seconds, a little more or less, so that what began together does not stay together."""
    return seconds * random.uniform(0.95, 1.05)  # noqa: S311  # jitter, not a secret


def is_active(tenant: Tenant) -> bool:
    """Whether the tenant's channels are asked at all."""
    return tenant.status == "active"


def runs_of(row: Mapping[str, Any] | None) -> list[str]:
    """The runs of a channel's document that are under way or wanted."""
    return [row[name]["id"] for name in ("running", "called") if name in row] if row is not None else []


def _in_line(row: Document, wanted: _Wanted) -> bool:
    """Whether a document needs nothing but what runs write."""
    if row["settings_us"] != wanted.settings_us or row.get("account", "") != wanted.account:
        return False
    return ("due_at_us" in row) == wanted.asked and (wanted.asked or row["standing"] == wanted.standing.value)
