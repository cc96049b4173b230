"""Copies that work endpoints, over a real MongoDB and NATS, and a caller that does as it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from backhaul_common import jetstream, mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.ids import derived_id
from backhaul_common.lifecycle import cancel
from backhaul_common.metering import Metrics
from backhaul_common.names import (
    DELIVERIES_COLLECTION,
    DELIVERIES_DUE_SUBJECT,
    ENDPOINTS_COLLECTION,
    LOOK_MARK,
    SWITCHED_COLLECTION,
)
from backhaul_common.revisioned import Directory, Documents
from backhaul_common.settings import NatsSettings
from backhaul_notifier.catalogue.matching import Matcher, selection_of
from backhaul_notifier.documents import delivery_id
from backhaul_notifier.holding.switches import SWITCHED, Switched
from backhaul_notifier.indexes import INDEXES
from backhaul_notifier.model import Attempted, Delivery, Subscription
from backhaul_notifier.ports import always
from backhaul_notifier.schedules import STANDARD, Outcome, Policy
from backhaul_notifier.working.counts import Counts
from backhaul_notifier.working.working import Working
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing.waiting import until
from nats.aio.client import Client

SECOND_US = 1_000_000
TENANT = "acme"
REGISTRATION = "acme.0123456789abcdef"


class Clock:
    """The time, moved as tests like."""

    def __init__(self) -> None:
        self.moved_us = 0

    def now_us(self) -> int:
        return time.time_ns() // 1000 + self.moved_us


class Subscriptions:
    """Those in memory; what is decided about one is done to its endpoint, too."""

    def __init__(self, database: mongo.Database) -> None:
        self.all: dict[str, Subscription] = {}
        self.decided: list[tuple[str, str, str]] = []
        self.away = 0
        self._endpoints = database[ENDPOINTS_COLLECTION]

    def get(self, id_: str) -> Subscription | None:
        return self.all.get(id_)

    async def pause(self, subscription: Subscription, text: str) -> None:
        await self._decide(subscription, "paused", text)

    async def disable(self, subscription: Subscription, text: str) -> None:
        await self._decide(subscription, "disabled", text)

    async def _decide(self, subscription: Subscription, state: Any, text: str) -> None:
        if self.away:
            self.away -= 1
            raise unavailable("MongoDB")
        self.decided.append((subscription.id, state, text))
        await self.put(replace(self.all[subscription.id], state=state))

    async def put(self, subscription: Subscription) -> None:
        self.all[subscription.id] = replace(subscription, revision=subscription.revision + 1)
        await self._endpoints.update_one(
            {"_id": subscription.id},
            {"$set": {"active": subscription.state == "active" and not subscription.deleted}},
        )


class Communications:
    """What was disabled, and of which communication a message is: of those in ``broken`` nothing is said but ``code``,
    and nothing at all before ``goes_on``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.failed_at_us: list[int] = []
        self.broken: set[str] = set()
        self.code = Code.INTERNAL
        self.disabled: list[bytes] = []
        self.of_messages: dict[str, str] = {}
        self.asked: list[str] = []
        self.away = False

    async def of(self, subscription: Subscription, delivery: Delivery) -> str:
        message_id: str = delivery.said.message_id  # type: ignore[union-attr]  # notices are not asked for
        self.asked.append(message_id)
        await self.goes_on.wait()
        if self.away:
            self.failed_at_us.append(self._clock.now_us())
            raise unavailable("The normalizer")
        if message_id in self.broken:
            raise BackhaulError(self.code, "Something went wrong.")
        return self.of_messages.get(message_id, "")

    async def disable(self, subscription: Subscription, delivery: Delivery, text: str) -> None:
        self.disabled.append(delivery.id)


@dataclass
class Made:
    """A call that was made."""

    subscription: str
    deliveries: Sequence[Delivery]
    webhook_id: str
    at_us: int
    copy: str
    ended_at_us: int = 0

    @property
    def orders(self) -> list[int]:
        return [one.order for one in self.deliveries]


Answer = Callable[[Made], Awaitable[Outcome] | Outcome]


class Calls:
    """Answers as ``answer`` says, and remembers what was called, of all copies."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.made: list[Made] = []
        self.under_way: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.answer: Answer = lambda _: Outcome(200)
        self.sentence = ""
        self.changed = asyncio.Event()

    def orders(self, subscription: str | None = None) -> list[int]:
        return [order for one in self.made if subscription in (None, one.subscription) for order in one.orders]

    async def until(self, number: int, within_s: float = 15.0) -> None:
        """Until so many calls were made."""
        async with asyncio.timeout(within_s):
            while len(self.made) < number:
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Caller:
    """That of one copy."""

    calls: Calls
    copy: str

    async def call(
        self,
        subscription: Subscription,
        deliveries: Sequence[Delivery],
        webhook_id: str,
        may_send: Callable[[], bool] = always,
    ) -> Attempted:
        calls, id_ = self.calls, subscription.id
        assert may_send()
        made = Made(id_, deliveries, webhook_id, calls.clock.now_us(), self.copy)
        calls.made.append(made)
        calls.changed.set()
        calls.under_way[id_] = calls.under_way.get(id_, 0) + 1
        calls.most[id_] = max(calls.most.get(id_, 0), calls.under_way[id_])
        try:
            outcome = calls.answer(made)
            if not isinstance(outcome, Outcome):
                outcome = await outcome
        finally:
            calls.under_way[id_] -= 1
        made.ended_at_us = calls.clock.now_us()
        return Attempted(made.at_us, 1, outcome, calls.sentence, "", "POST https://example.com/")


@dataclass
class Copy:
    """One copy of the service."""

    working: Working
    task: asyncio.Task[None]
    client: Client
    metrics: Metrics
    switched: Directory[Switched]

    async def die(self) -> None:
        """It ends at once, without a word: what it held stays its own until its leases are over."""

        async def nothing() -> None:
            pass

        self.working._endpoints.leave = nothing  # type: ignore[method-assign]  # the dead tell nobody
        await cancel(self.task)

    async def stop(self) -> None:
        await self.working.stop()
        await cancel(self.task)


@dataclass
class Rig:
    """A prepared database, and copies that are begun by ``copy``."""

    database: mongo.Database
    nats_url: str
    clock: Clock = field(default_factory=Clock)
    copies: list[Copy] = field(default_factory=list)
    order: int = 0

    def __post_init__(self) -> None:
        self.calls = Calls(self.clock)
        self.subscriptions = Subscriptions(self.database)
        self.communications = Communications(self.clock)
        self.deliveries = self.database[DELIVERIES_COLLECTION]
        self.endpoints = self.database[ENDPOINTS_COLLECTION]

    async def subscribe(
        self,
        id_: str = "sub_1",
        *,
        policy: Policy = STANDARD,
        tenant: str = TENANT,
        payload: pb.Payload | None = None,
        ordering: Any = pb.ORDERING_NONE,
        rate_per_s: int = 0,
        concurrency: int = 0,
    ) -> Subscription:
        definition = pb.Definition(
            types=["*"],
            payload=payload or pb.Payload(),
            ordering=ordering,
            rate_per_s=rate_per_s,
            concurrency=concurrency,
        )
        made = Subscription(
            id=id_,
            tenant=tenant,
            registration=REGISTRATION,
            revision=1,
            definition=definition,
            state="active",
            state_text="",
            state_since_us=0,
            created_at_us=0,
            updated_at_us=0,
            secrets=(),
            deleted=False,
            matcher=Matcher(selection_of(["*"])),
            policy=policy,
        )
        self.subscriptions.all[id_] = made
        await self.endpoints.insert_one({"_id": id_, "tenant": tenant, "registration": REGISTRATION, "active": True})
        return made

    async def enqueue(
        self, *keys: bytes, to: str = "sub_1", number: int = 0, says: bool = True, **more: Any
    ) -> list[bytes]:
        """Deliveries, one of each of ``keys``, or so many without one."""
        now_us, rows = self.clock.now_us(), []
        for key in keys or [b""] * (number or 1):
            self.order += 1
            event = derived_id("event", str(self.order))
            row: Document = {
                "_id": delivery_id(to, event, 1),
                "registration": REGISTRATION,
                "subscription": to,
                "type": "message.delivered",
                "event_id": event,
                "revision": 1,
                "payload": b"\0" * 900,
                "order": self.order,
                "state": "waiting",
                "due_at_us": now_us,
                "attempts": 0,
                "created_at_us": now_us,
                **({"key": key} if key else {}),
                **more,
            }
            rows.append(row)
        await self.deliveries.insert_many(rows)
        await self.endpoints.update_one({"_id": to}, {"$inc": {"told": 1}, "$min": {"due_at_us": now_us}})
        if says:
            await self.say(to)
        return [row["_id"] for row in rows]

    async def say(self, *ids: str) -> None:
        """As the enqueuer does."""
        for copy in self.copies[:1]:
            await copy.client.publish(DELIVERIES_DUE_SUBJECT, " ".join(ids).encode())

    async def say_changed(self, *ids: str) -> None:
        """As whoever changes an endpoint's document otherwise does."""
        await self.say(*(f"{id_}{LOOK_MARK}" for id_ in ids))

    async def copy(
        self, name: str = "one", *, database: mongo.Database | None = None, caller: Any = None, **more: Any
    ) -> Copy:
        """Begin another copy, which may see ``database`` over another connection, or call otherwise."""
        client = await jetstream.connect(NatsSettings(nats_url=self.nats_url), name)
        settings: dict[str, Any] = {
            "connections": 100,
            "days": lambda _: 30.0,
            "pause_after_s": 86_400.0,
            "look_s": 0.2,
            "chance": lambda: 0.0,
            **more,
        }
        metrics = Metrics("notifier")
        switched = Directory(SWITCHED, Documents(self.database[SWITCHED_COLLECTION]))
        await switched.follow(client)
        working = Working(
            self.database if database is None else database,
            name,
            caller or Caller(self.calls, name),
            self.subscriptions,
            self.communications,
            switched,
            Counts(metrics),
            now_us=self.clock.now_us,
            **settings,
        )
        await working.follow(client)
        copy = Copy(working, asyncio.create_task(working.run()), client, metrics, switched)
        self.copies.append(copy)
        return copy

    def move(self, seconds: float) -> None:
        """Let so much time pass."""
        self.clock.moved_us += int(seconds * SECOND_US)
        for copy in self.copies:
            copy.working.wake()

    async def row(self, id_: bytes) -> Document:
        found: Document | None = await self.deliveries.find_one({"_id": id_})
        assert found is not None
        return found

    async def until_row(self, id_: bytes, **values: Any) -> Document:
        """Until the delivery is as ``values`` say."""

        async def probe() -> Document | None:
            row = await self.row(id_)
            return row if all(row.get(name) == value for name, value in values.items()) else None

        return await until(f"{values} of a delivery", probe)

    async def until_none_waits(self, to: str | None = None, within_s: float = 60.0) -> None:
        query: Document = {"state": "waiting", **({"subscription": to} if to else {})}

        async def probe() -> bool:
            return not await self.deliveries.count_documents(query)

        await until("nothing waits", probe, within_s=within_s)


@asynccontextmanager
async def rigged(uri: str, name: str, nats_url: str) -> AsyncIterator[Rig]:
    client = mongo.connect(uri)
    database = mongo.database(client, name)
    await mongo.make_indexes(database, INDEXES)
    rig = Rig(database, nats_url)
    try:
        yield rig
    finally:
        for copy in rig.copies:
            await cancel(copy.task)
            await copy.client.close()
            copy.metrics.close()
        client.close()
