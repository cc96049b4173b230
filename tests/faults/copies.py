"""Two copies of suppression in one stack, each asked by itself, and the account of what they know."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import grpc
from backhaul_client.suppression import Change, Standing, Suppression, SuppressionClient, Tls
from backhaul_local.certificates import authority_path, certificate_path, key_path
from backhaul_local.service import ServiceSpec, default_services, service_spec
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_proto.suppression.v1.suppression_pb2_grpc import SuppressionServiceStub
from backhaul_testing import broker, streams
from backhaul_testing.waiting import until
from faults.account import unspooled
from simulators.optouts import DELIVERED, OptOuts, Person
from simulators.people import PlatformTeam, Tenant, Town

if TYPE_CHECKING:
    from backhaul_local.stack import Stack

FIRST, SECOND = "suppression", "second"
"""The copies' names in the stack."""

COPIES = (FIRST, SECOND)
ALLOWED, SUPPRESSED, UNAVAILABLE = "allowed", "suppressed", "unavailable"
VERBS = ("check", "read", "add", "lift", "watch")

LEASE_S, PATIENCE_S = 3.0, 3.75
"""How long a copy may answer that hears nothing, and how long a writer waits for one: docs/decisions/0023."""

ENV = {
    # What a dead copy had in hand comes back after this time; production waits longer.
    "BACKHAUL_NORMALIZER_ACK_WAIT_S": "3",
    "BACKHAUL_SUPPRESSION_ACK_WAIT_S": "3",
}

_ANSWERS = {pb.VERDICT_ALLOWED: ALLOWED, pb.VERDICT_SUPPRESSED: SUPPRESSED}
SETTLED_S = 15.0
_ASKED = 50
"""Seconds after which a copy that says nothing is a failure of the test."""


@dataclass(frozen=True)
class Pair:
    """A stack with two copies, which tests break in turn, and what is around it."""

    stack: Stack
    town: Town
    copies: Sequence[Copy]

    async def two_tenants(self) -> tuple[Tenant, Tenant]:
        """New ones, about whom every copy answers."""
        tenants = await self.town.platform.register(), await self.town.platform.register()
        for copy in self.copies:
            for tenant in tenants:
                await copy.answers(tenant)
        return tenants

    async def mend(self) -> None:
        """Have everything run again, whatever a test left."""
        await mend(self.stack)


async def mend(stack: Stack) -> None:
    """Have everything run again, whatever a test left."""
    for member in stack.members:
        if member.running:
            member.resume()
        else:
            await member.start()


def two_copies() -> tuple[ServiceSpec, ...]:
    """All services, and suppression once more."""
    return (*default_services(), replace(service_spec(FIRST), name=SECOND))


def folding_twice() -> tuple[ServiceSpec, ...]:
    """All services, and the normalizer once more."""
    return (*default_services(), replace(service_spec("normalizer"), name=SECOND))


@dataclass(frozen=True)
class Copy:
    """One copy. ``stub`` sends each call once, and waits for as long as it takes."""

    name: str
    stub: Any
    client: SuppressionClient
    token: str

    async def verdict(self, tenant: Tenant, number: str, *, within_s: float = _ASKED) -> str:
        """``allowed``, ``suppressed`` or ``unavailable``; nothing else may come."""
        request = pb.CheckRequest(tenant_id=tenant.id, address=number)
        try:
            answer = await self.stub.Check(request, timeout=within_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as exc:
            if exc.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return UNAVAILABLE
        return _ANSWERS[answer.verdict]

    async def verdicts(self, tenant: Tenant, numbers: Sequence[str]) -> list[str]:
        """The same of many, which is one answer. Raises where it is unavailable."""
        items = [pb.CheckItem(address=number) for number in numbers]
        request = pb.CheckBatchRequest(tenant_id=tenant.id, items=items)
        answer = await self.stub.CheckBatch(request, timeout=_ASKED, metadata=self._metadata)
        return [_ANSWERS[result.verdict] for result in answer.results]

    async def answers(self, tenant: Tenant, *, within_s: float = 60.0) -> None:
        """Return when it answers questions about ``tenant``."""

        async def probe() -> bool:
            return await self.verdict(tenant, "+15005559999", within_s=2.0) == ALLOWED

        await until(f"an answer of {self.name}", probe, within_s=within_s)

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)


@asynccontextmanager
async def asked(stack: Stack, platform: PlatformTeam, *names: str) -> AsyncIterator[list[Copy]]:
    """The copies of ``stack`` with these names, as an internal service asks them that may ask about everybody."""
    unique = f"sender-{token_hex(4)}"
    made = await platform.client.create_service(unique, name="It sends", tenants=["*"], verbs=VERBS)
    folder = stack.config.data_dir / "tls"
    files = authority_path(folder), certificate_path(folder, "gateway"), key_path(folder, "gateway")
    authority, certificate, key = files
    credentials = grpc.ssl_channel_credentials(authority.read_bytes(), key.read_bytes(), certificate.read_bytes())
    copies: list[Copy] = []
    channels: list[grpc.aio.Channel] = []
    try:
        for name in names or COPIES:
            target = f"127.0.0.1:{stack.port(name, 'grpc')}"
            # Without keepalive: a copy that is stopped is waited for. It comes back soon once its port is open.
            options = [
                ("grpc.enable_http_proxy", 0),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
            ]
            channels.append(grpc.aio.secure_channel(target, credentials, options=options))
            tls = Tls(ca_file=authority, cert_file=certificate, key_file=key)
            client = SuppressionClient(target, token=made.token, tls=tls)
            copies.append(Copy(name, SuppressionServiceStub(channels[-1]), client, made.token))
        yield copies
    finally:
        await asyncio.gather(*(channel.close() for channel in channels), *(copy.client.close() for copy in copies))


async def heard(stack: Stack, *, within_s: float = 60.0) -> None:
    """Return when all callbacks have become events, and suppression has acknowledged each that it wants."""
    await unspooled(stack, within_s=within_s)
    connection = await broker.connect(stack.nats_url)
    try:
        await streams.drained(connection, "CALLBACKS", "normalizer", within_s=within_s)

        async def idle() -> bool:
            info = await connection.jetstream().consumer_info("EVENTS", "suppression")
            return not info.num_pending and not info.num_ack_pending

        await until("the end of suppression's backlog", idle, within_s=within_s)
    finally:
        await connection.close()


async def settle(stack: Stack, copies: Sequence[Copy], load: OptOuts, *tenants: Tenant) -> int:
    """Wait until everything that was said is known, then check it; AssertionError names what is wrong. The number of
    rows that there are."""
    await heard(stack)
    rows = 0
    for tenant in tenants:
        for copy in copies:
            await copy.answers(tenant)
        people = {person.number: person for person in load.of(tenant)}
        for person in people.values():
            assert person.told == len(person.story), "a story that was begun was not told to its end"
        for copy in copies:
            await _check_answers(copy, tenant, people)
            rows += await _check_rows(copy, tenant, people)
    return rows


async def _check_answers(copy: Copy, tenant: Tenant, people: dict[str, Person]) -> None:
    wanted = [SUPPRESSED if person.suppressed else ALLOWED for person in people.values()]

    async def wrong() -> list[tuple[str, tuple[str, ...]]]:
        found = await copy.verdicts(tenant, list(people))
        pairs = zip(people.values(), found, wanted, strict=True)
        return [(person.number, person.story) for person, is_, must in pairs if is_ != must]

    # An opt-out that is acknowledged is known already. What a delivery lifts that was heard of before is asked for.
    left = await wrong()
    held_back = [one for one in left if one[1][-1] != DELIVERED]
    assert not held_back, f"{copy.name} answers wrongly: {held_back[:5]} of {len(held_back)}"
    ends = asyncio.get_running_loop().time() + SETTLED_S
    while left:
        assert asyncio.get_running_loop().time() < ends, f"{copy.name} answers wrongly: {left[:5]} of {len(left)}"
        await asyncio.sleep(0.2)
        left = await wrong()


async def _check_rows(copy: Copy, tenant: Tenant, people: dict[str, Person]) -> int:
    rows = [row async for row in copy.client.list(tenant.id, standing=Standing.ANY, page_size=500)]
    found: dict[str, dict[str, bool]] = defaultdict(dict)
    for row in rows:
        assert row.scope.kind == "all", row
        assert row.kind not in found[row.address], f"two rows of one kind: {row}"
        found[row.address][row.kind] = row.active
    wanted = {person.number: dict(person.rows) for person in people.values() if person.rows}
    missing = wanted.keys() - found.keys()
    assert not missing, f"answered 200, and no row: {len(missing)}, such as {sorted(missing)[:5]}"
    assert found.keys() == wanted.keys(), "rows that follow from nothing"
    for number, kinds in wanted.items():
        assert found[number] == kinds, (number, people[number].story)
    await _check_changes(await _changes(copy, tenant, max((row.position for row in rows), default=0)), rows, people)
    return len(rows)


async def _changes(copy: Copy, tenant: Tenant, last: int) -> list[Change]:
    """All changes up to a position, as a system hears of them that begins with nothing."""
    changes: list[Change] = []
    async with copy.client.watch(tenant.id, after=0) as watch, asyncio.timeout(60):
        while not changes or changes[-1].position < last:
            changes.append(await anext(watch))
    return changes


async def _check_changes(changes: list[Change], rows: list[Suppression], people: dict[str, Person]) -> None:
    assert [change.position for change in changes] == list(range(1, len(changes) + 1))
    followed: dict[str, Suppression] = {}
    for change in changes:
        row, fact = change.suppression, change.fact
        # Somebody said it, in a message of that person's.
        assert fact.message_id in people[row.address].sids, change
        before = followed.get(row.id)
        assert before is None or (before.active, before.since, before.event_id) != (
            row.active, row.since, row.event_id,
        ), "a change that changes nothing"  # fmt: skip
        followed[row.id] = row
    assert followed == {row.id: row for row in rows}
