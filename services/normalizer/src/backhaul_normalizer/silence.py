"""Channels on which something was sent and nothing is heard: found by any copy, and said once each time. A channel is
silent because that was said, so that whoever asks and whoever is told know the same.

That it was said, and the notice of it, are one transaction. Before it is said, what is stored of the channel's events
is asked: a copy that died may have heard something that it did not note, and a sender may tell late of a message of
which all was heard long ago.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

from backhaul_channels import ChannelSettings
from backhaul_common import mongo, outbox
from backhaul_common.directory import TenantDirectory
from backhaul_common.documents import Document
from backhaul_common.fence import living
from backhaul_common.logs import get_logger
from backhaul_common.names import (
    CHANNEL_ACTIVITY_COLLECTION,
    EVENTS_COLLECTION,
    MESSAGES_COLLECTION,
    NORMALIZER_OUTBOX,
)
from backhaul_common.notices import entry, notice_id
from backhaul_common.tenants import Channel
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_CALLBACK
from backhaul_proto.event.v1.event_pb2 import Attribute, Event
from backhaul_proto.notice.v1.notice_pb2 import About, Notice
from pydantic import ValidationError
from pymongo import DESCENDING

from backhaul_normalizer.activity import Noted, Where, changes
from backhaul_normalizer.buckets import channel_mark

SILENT: Final = "channel.silent"

AFTER_S: Final = 300.0
"""For how long something is unanswered before its channel is silent."""

LOOK_S: Final = 15.0
"""How often every copy looks."""

_BUCKETS = 64
"""Of the events that came since, the newest buckets are looked at."""


class Silences:
    """Says of silent channels that they are. ``written`` is called after a commit that wrote a notice."""

    def __init__(
        self,
        database: mongo.Database,
        tenants: TenantDirectory,
        written: Callable[[], None],
        now_us: Callable[[], int],
    ) -> None:
        self._database = database
        self._tenants = tenants
        self._written = written
        self._now_us = now_us
        self._log = get_logger(component="silence")

    async def run(self) -> None:
        """Until cancelled. UNAVAILABLE."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Say what is to be said now. UNAVAILABLE."""
        due = {"watched_since_us": {"$lte": self._now_us() - round(AFTER_S * 1e6)}}
        async with mongo.operation():
            rows = await self._database[CHANNEL_ACTIVITY_COLLECTION].find(due).to_list(None)
        for row in rows:
            tenant = self._tenants.get(row["tenant"])
            if tenant is None or tenant.registration != row["registration"]:
                continue  # It goes with all that its tenant had.
            if _is_awaited(tenant.channels.get(row["channel"])):
                await self._look_at(row)

    async def _look_at(self, row: Document) -> None:
        noted = await self._answered(row)
        work = partial(_said, row, noted, self._now_us())
        async with mongo.translated():
            said = await mongo.in_transaction(self._database, work)
        if said:
            self._log.info("channel_silent", tenant=row["tenant"], channel=row["channel"])
            self._written()

    async def _answered(self, row: Document) -> Noted | None:
        """What is stored of the channel's events and says that it is not silent; None where nothing does."""
        since_us = row["unanswered_since_us"]
        query = {
            "registration": row["registration"],
            "marks": channel_mark(row["channel"]),
            "at_us": {"$gte": since_us},
        }
        order = [("at_us", DESCENDING), ("_id", DESCENDING)]
        heard_us, messages = 0, set()
        async with mongo.operation():
            buckets = self._database[EVENTS_COLLECTION].find(query, {"events": 1}, sort=order, limit=_BUCKETS)
            async for bucket in buckets:
                for one in filter(None, bucket["events"]):
                    event = Event.FromString(one["payload"])
                    if event.channel != row["channel"] or event.received_at_us < since_us:
                        continue
                    if event.source == SOURCE_CALLBACK:
                        heard_us = max(heard_us, event.received_at_us)
                    elif "message" in one:
                        messages.add(one["message"])
            if heard_us:
                return Noted(heard_us=heard_us)
            # Of a message that was heard of before, its sender's word came late.
            new = {"_id": {"$in": list(messages)}, "created_at_us": {"$gte": since_us}}
            if await self._database[MESSAGES_COLLECTION].find_one(new, {"_id": 1}) is not None:
                return None
        return Noted(answered_us=row["sent_at_us"])


def silent_since_us(row: Document, channel: Channel | None) -> int:
    """Since when ``channel``, of which ``row`` is the activity, is silent, as it was said; 0 where it is not."""
    said = "unanswered_since_us" in row and "watched_since_us" not in row
    return row["told_us"] if said and _is_awaited(channel) else 0


def _is_awaited(channel: Channel | None) -> bool:
    """Whether there is such a channel, and callbacks of it are expected."""
    if channel is None:
        return False
    try:
        return not ChannelSettings.of_stored(channel.settings).reconcile.poll_only
    except ValidationError:
        return True  # A newer version's settings.


def _said(
    found: Document, noted: Noted | None, now_us: int, database: mongo.ThreadDatabase, session: mongo.Session
) -> bool:
    """Say it, unless something was ``noted`` or has been heard since ``found`` was read; whether it was said."""
    owner = living(database, session, [found["tenant"]]).get(found["tenant"])
    if owner is None or owner.registration != found["registration"]:
        return False
    rows = database[CHANNEL_ACTIVITY_COLLECTION]
    if noted is not None:
        where = Where(found["tenant"], found["registration"], found["channel"])
        rows.update_one({"_id": found["_id"]}, changes(where, noted), session=session)
        return False
    same = {"_id": found["_id"], "watched_since_us": found["watched_since_us"]}
    told = {"$set": {"told_us": found["watched_since_us"]}, "$unset": {"watched_since_us": ""}}
    if not rows.update_one(same, told, session=session).modified_count:
        return False
    outbox.write(database, session, NORMALIZER_OUTBOX, [entry(_notice(found, now_us), owner.path)])
    return True


def _notice(row: Document, now_us: int) -> Notice:
    registration, channel, since_us = row["registration"], row["channel"], row["watched_since_us"]
    heard_us = row.get("heard_at_us", 0)
    heard = f"the last callback came at {_moment(heard_us)}" if heard_us else "no callback has ever come"
    return Notice(
        id=notice_id(registration, SILENT, f"{channel} {since_us}"),
        tenant_id=row["tenant"],
        registration=registration,
        type=SILENT,
        occurred_at_us=now_us,
        about=About(channel=channel),
        text=f"Messages are sent, and nothing is heard of them since {_moment(since_us)}: {heard}. Check the address "
        "for callbacks at the provider.",
        attributes=[
            Attribute(name="unanswered_since_us", value=str(since_us)),
            Attribute(name="heard_at_us", value=str(heard_us)),
        ],
    )


def _moment(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
