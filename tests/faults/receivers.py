"""Two copies of the notifier, tenants' endpoints that write down who called them, and what must be true of the calls.

What must be true is worked out from EVENTS as the broker has it, from what the endpoints saw, and from the
documentation of subscriptions.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from backhaul_local.service import ServiceSpec, service_spec
from backhaul_testing import broker, streams
from backhaul_testing.endpoints import Call, Endpoint, endpoint
from backhaul_testing.waiting import until
from faults import account
from pymongo import AsyncMongoClient
from simulators.load import Load
from simulators.people import Tenant, Town

if TYPE_CHECKING:
    from backhaul_client.notificationmodels import Delivery, Subscription
    from backhaul_local.stack import Stack

FIRST, SECOND = "notifier", "second"
"""The copies' names in the stack."""

COPIES = (FIRST, SECOND)
GONE = "gone"
"""One that had died when its connection was heard of."""

LEASE_S = 20.0
"""For how long a copy that is not heard of keeps its endpoints: docs/decisions/0034."""

ENV = {
    # What a dead normalizer had in hand comes back after this time; production waits longer.
    "BACKHAUL_NORMALIZER_ACK_WAIT_S": "3",
    "BACKHAUL_NOTIFIER_PLAIN_HTTP": "true",
    "BACKHAUL_NOTIFIER_ALLOWED_NETWORKS": "127.0.0.0/8",
}

POLICY: Any = {"kind": "custom", "retry_after_s": [1] * 20, "timeout_s": 120}
"""An attempt may take longer than a lease: what wakes up with one under way must not make it again."""

NOBODY = "127.0.0.1:9"
_OTHERS = re.compile("{(audit|reconciler|suppression)_grpc}")

KINDS: Any = {
    "ordered": {"ordering": "message"},
    "any": {},
    "batched": {"payload": {"max_events": 5, "max_wait_s": 1}},
}

SHORTLY_S = 8.0
"""So soon after an endpoint's answer a copy has written it down, however busy the machine is."""

TAKES_S = 0.02
"""What an endpoint takes for an answer."""

LINGERS_S = 0.5
"""What it takes where calls must be under way for as long as it takes to kill something."""

_FAILS_ONE_IN = 12

Fact = tuple[str, int]
"""An event's id and its revision."""


def two_copies() -> tuple[ServiceSpec, ...]:
    """The services by which a callback gets to an endpoint, and the notifier once more."""
    gateway, notifier = service_spec("gateway"), service_spec(FIRST)
    others = {name: NOBODY for name, value in gateway.env.items() if _OTHERS.search(value)}
    others["BACKHAUL_GATEWAY_TENANT_DATA_TARGETS"] = "127.0.0.1:{notifier_grpc}"
    gateway = replace(gateway, env={**gateway.env, **others})
    return service_spec("normalizer"), notifier, replace(notifier, name=SECOND), gateway


@dataclass(slots=True)
class Told:
    """One event of a call by ``copy``. ``ended`` is when it was answered with ``status``: 0 where it never was."""

    path: str
    copy: str
    webhook_id: str
    event_id: str
    revision: int
    began: float
    ended: float = 0.0
    status: int = 0

    @property
    def fact(self) -> Fact:
        """What was told."""
        return self.event_id, self.revision


@dataclass
class Receivers:
    """All endpoints are paths of one server. One call in some fails at first, the same ones each time."""

    stack: Stack
    copies: Sequence[str] = COPIES
    server: Endpoint | None = None
    calls: list[Told] = field(default_factory=list)
    holds: str = ""
    """Calls of this path that come on connections which were used before are not answered any more."""
    takes_s: float = TAKES_S
    held: list[Call] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)
    _copies: dict[int, str] = field(default_factory=dict)

    def url(self, path: str) -> str:
        """The address of an endpoint."""
        assert self.server is not None
        return self.server.url(path)

    def of(self, path: str, copy: str = "") -> list[Told]:
        """The calls of an endpoint, by a copy or by all."""
        return [one for one in self.calls if one.path == path and copy in ("", one.copy)]

    async def answer(self, call: Call) -> None:
        """Write it down, and answer."""
        path = call.head.split(" ")[1]
        said = json.loads(call.body)
        used = call.number in self._copies
        copy = self._copies.get(call.number) or self._copies.setdefault(call.number, self._copy_of(call))
        webhook_id = call.headers["webhook-id"]
        now = time.monotonic()
        told = [
            Told(path, copy, webhook_id, one["data"]["id"], one["data"]["revision"], now)
            for one in (said if isinstance(said, list) else [said])
        ]
        self.calls += told
        if path == self.holds and used:
            self.held.append(call)
            assert self.server is not None
            await self.server.ended.wait()
            return
        await asyncio.sleep(self.takes_s)
        fails = webhook_id not in self.tried and crc32(webhook_id.encode()) % _FAILS_ONE_IN == 0
        self.tried.add(webhook_id)
        status = 500 if fails else 200
        for one in told:
            one.ended, one.status = time.monotonic(), status
        await call.answer(status=status)

    async def more(self, calls: int, path: str = "", copy: str = "", *, within_s: float = 40.0) -> None:
        """Return when so many more than now were made."""

        def made() -> int:
            return sum(path in ("", one.path) and copy in ("", one.copy) for one in self.calls)

        goal = made() + calls

        async def probe() -> bool:
            return made() >= goal

        await until(f"{calls} more calls of {path or 'all'} by {copy or 'all'}", probe, within_s=within_s)

    async def busy(self, path: str, at_least: int = 3) -> str:
        """Return when so many calls of ``path`` are under way by one copy, and which. Calls linger from now on."""
        self.takes_s = LINGERS_S

        async def probe() -> str | None:
            open_ = [one.copy for one in self.of(path) if not one.ended]
            return next((copy for copy in self.copies if open_.count(copy) >= at_least), None)

        return await until(f"calls of {path} under way", probe)

    def require_cut(self, doubles: Sequence[Told], copy: str, at: float, until_: float) -> None:
        """That each of ``doubles`` tells again what a copy had told whose results were not written down: it was cut off
        ``at`` some moment, and what it had sent may have been read here ``until_`` another one."""
        for double in doubles:
            former = [call for call in self.of(double.path) if call.fact == double.fact]
            cut = [call for call in former if call.copy == GONE or (call.copy == copy and call.began < until_)]
            assert [one for one in cut if one.ended > at - SHORTLY_S], f"cut off at {at}, and told again: {former}"

    def _copy_of(self, call: Call) -> str:
        """Whose connection it is: the process that has the other end open."""
        ends = [call.writer.get_extra_info(name)[1] for name in ("peername", "sockname")]
        wanted = [f"0100007F:{port:04X}" for port in ends]
        lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
        inode = next((parts[9] for parts in map(str.split, lines) if parts[1:3] == wanted), "")
        for name in self.copies:
            member = self.stack.service(name)
            if member.running and f"socket:[{inode}]" in _open_files(member.pid):
                return name
        return GONE


def _open_files(pid: int) -> Collection[str]:
    found = set()
    with suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(file.readlink()))
    return found


@dataclass(frozen=True)
class Place:
    """One subscription of a tenant, and the path that it is told at."""

    tenant: Tenant
    path: str
    subscription: Subscription
    ordered: bool


@dataclass
class Notified:
    """A stack with two copies of the notifier, to be broken, and those who are told."""

    stack: Stack
    town: Town
    receivers: Receivers

    async def places(self, kinds: Sequence[str] = tuple(KINDS)) -> list[Place]:
        """Two new tenants, each with an endpoint for each of ``kinds``, the ordered one first."""
        tenants = [await self.town.platform.register() for _ in range(2)]
        return [await self._place(tenant, kind) for tenant in tenants for kind in kinds]

    async def _place(self, tenant: Tenant, kind: str) -> Place:
        path = f"/{tenant.id}/{kind}"
        made = await tenant.client.subscriptions.create(
            ["message.*"], http={"url": self.receivers.url(path)}, policy=POLICY, **KINDS[kind]
        )
        return Place(tenant, path, made, kind == "ordered")

    async def let_go(self, copy: str, places: Sequence[Place]) -> None:
        """End the leases of a copy that is dead, which others would wait for: that they do is another test's."""
        assert not self.stack.service(copy).running
        latest = [(place, self.receivers.of(place.path)) for place in places]
        ids = [place.subscription.id for place, calls in latest if calls and calls[-1].copy == copy]
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(self.stack.mongo_uri)
        async with client:
            database = client[self.stack.mongo_database]
            owners = await database["endpoints"].distinct("owner", {"_id": {"$in": ids}})
            assert len(owners) == 1, "not the endpoints of one copy"
            past = [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}]
            await database["endpoints"].update_many({"owner": owners[0]}, past)
            # Whose these are cannot be seen; who has them taken from him by mistake goes on all the same.
            past = [{"$set": {"seen_at": {"$subtract": ["$$NOW", 60_000]}}}]
            await database["notifier_positions"].update_many({"owner": {"$exists": True}}, past)

    async def until_written_down(self, place: Place) -> None:
        """Until a call that is under way is written down: nobody but MongoDB can say when."""
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(self.stack.mongo_uri)
        async with client:
            rows = client[self.stack.mongo_database]["deliveries"]
            query = {"subscription": place.subscription.id, "begun_at_us": {"$exists": True}}

            async def probe() -> bool:
                return await rows.find_one(query) is not None

            await until("a call that is written down", probe, within_s=60.0)

    async def settle(self, load: Load, places: Sequence[Place]) -> list[Told]:
        """Wait until everything that was answered is told, then check all; AssertionError names what is wrong. Returns
        the calls that told what had been told before."""
        await account.settle(self.stack, load, *tenants_of(places))
        connection = await broker.connect(self.stack.nats_url)
        try:
            published = await streams.published(connection)
        finally:
            await connection.close()
        doubles = []
        for place in places:
            events = [(event.id, event.revision) for event in published if event.tenant_id == place.tenant.id]
            deliveries = await told(place, set(events))
            doubles += check_calls(self.receivers.of(place.path), deliveries)
            if place.ordered:
                keys = {(one.id, one.revision): (one.channel, one.message_id) for one in published}
                _check_order(self.receivers.of(place.path), list(dict.fromkeys(events)), keys)
        return doubles


def tenants_of(places: Sequence[Place]) -> list[Tenant]:
    """Whose these are."""
    return list({place.tenant.id: place.tenant for place in places}.values())


async def told(place: Place, events: set[Fact], *, within_s: float = 60.0) -> dict[Fact, Delivery]:
    """The deliveries of everything that is on EVENTS, by what they tell, once all are delivered."""

    listed: list[Delivery] = []

    async def probe() -> dict[Fact, Delivery] | None:
        nonlocal listed
        listed = [one async for one in place.tenant.client.deliveries.list(subscription_id=place.subscription.id)]
        found = {(one.event_id, one.revision): one for one in listed}
        assert len(found) == len(listed)
        assert not [one for one in listed if one.state == "failed"]
        return found if len(found) == len(events) and {one.state for one in listed} == {"delivered"} else None

    try:
        found = await until("all to be told", probe, within_s=within_s, pause_s=0.3)
    except AssertionError as exc:
        waiting = [one for one in listed if one.state != "delivered"]
        raise AssertionError(
            f"{exc} at {place.path}: of {len(events)} events {len(listed)} have deliveries, of which "
            f"{len(waiting)} wait, such as {waiting[:3]}"
        ) from None
    assert found.keys() == events
    return found


def check_calls(calls: Sequence[Told], deliveries: Mapping[Fact, Delivery]) -> list[Told]:
    """Each delivery was told, always under its one id; those calls that told it again."""
    ended: set[Fact] = set()
    doubles = []
    for call in calls:
        delivery = deliveries.get(call.fact)
        assert delivery is not None, f"nobody delivered {call}"
        assert delivery.webhook_id == call.webhook_id, f"told under another id: {call}"
        if call.fact in ended:
            doubles.append(call)
        if call.status == 200:
            ended.add(call.fact)
    lost = deliveries.keys() - ended
    assert not lost, f"delivered, and never told: {len(lost)} of {len(deliveries)}"
    return doubles


def _check_order(calls: Sequence[Told], events: Sequence[Fact], keys: Mapping[Fact, tuple[str, str]]) -> None:
    """What is of one message was told in the order of EVENTS: none begins before the one before it was told, and none
    comes again after the next one."""
    of_event: dict[Fact, list[Told]] = defaultdict(list)
    for call in calls:
        of_event[call.fact].append(call)
    by_key: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for event in events:
        by_key[keys[event]].append(event)
    assert max(map(len, by_key.values())) > 2, "no message of which there is an order"
    for facts in by_key.values():
        for before, after in pairwise(facts):
            began = min(call.began for call in of_event[after])
            former = of_event[before]
            told = min(call.ended for call in former if call.status == 200)
            assert told <= began, f"begun before the one before it was told: {of_event[after]} after {former}"
            late = [call for call in former if call.began >= began]
            assert not late, f"called again when the next one had begun: {late}, {of_event[after]}"


@asynccontextmanager
async def receiving(stack: Stack, copies: Sequence[str] = COPIES) -> AsyncIterator[Receivers]:
    """Endpoints that are there, which these copies of the notifier call."""
    made = Receivers(stack, copies=copies)
    async with endpoint(made.answer) as server:
        made.server = server
        yield made
