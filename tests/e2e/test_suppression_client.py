"""The client of suppression against the running service: with a token and TLS, as internal services call it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from backhaul_client import (
    ConflictError,
    FailedPreconditionError,
    ForbiddenError,
    InvalidArgumentError,
    NotFoundError,
    UnauthenticatedError,
)
from backhaul_client.suppression import (
    BlockingSuppressionClient,
    Evidence,
    Kind,
    Origin,
    Purpose,
    Sending,
    Source,
    Standing,
    SuppressedError,
    SuppressionClient,
    Tls,
    Verdict,
)
from backhaul_local.certificates import authority_path, certificate_path, key_path
from backhaul_testing.waiting import until
from simulators.callers import InternalService

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Tenant, Town

ANNA, BEN = "+15005550001", "+15005550002"
VERBS = ("check", "read", "add", "lift", "import", "export", "watch")
MARKETING = Sending(purpose=Purpose.MARKETING)
RECEIPT = Sending(purpose=Purpose.TRANSACTIONAL)


@dataclass(frozen=True, slots=True)
class Caller:
    """An internal service, bound to one tenant."""

    target: str
    token: str
    tls: Tls
    tenant: Tenant
    suppression: SuppressionClient


@pytest.fixture
async def caller(town: Town, installation: Stack) -> AsyncIterator[Caller]:
    tenant = await town.platform.register()
    made = await town.platform.client.create_service(
        f"crm-{tenant.id}", name="The CRM", tenants=[tenant.id], verbs=VERBS
    )
    target, tls = _place(installation)
    async with SuppressionClient(target, token=made.token, tls=tls) as suppression:
        await InternalService(made, suppression).known()
        yield Caller(target, made.token, tls, tenant, suppression)


def _place(installation: Stack) -> tuple[str, Tls]:
    folder = installation.config.data_dir / "tls"
    tls = Tls(
        ca_file=authority_path(folder),
        cert_file=certificate_path(folder, "gateway"),
        key_file=key_path(folder, "gateway"),
    )
    return f"127.0.0.1:{installation.port('suppression', 'grpc')}", tls


async def test_a_stop_is_known_and_what_was_added_and_lifted(caller: Caller) -> None:
    suppression, tenant = caller.suppression, caller.tenant
    assert (await suppression.check(tenant.id, ANNA)).allowed
    stop = tenant.twilio.inbound(tenant.address("Twilio"), "SM0001", "STOP", sender=ANNA)
    assert (await tenant.send(stop)).status_code == 200

    async def stopped() -> bool:
        return not (await suppression.check(tenant.id, ANNA)).allowed

    await until("the STOP", stopped)
    with pytest.raises(SuppressedError) as refusal:
        await suppression.raise_if_suppressed(tenant.id, ANNA, RECEIPT)
    (row,) = refusal.value.answer.blocking
    assert (row.kind, len(row.event_id)) == (Kind.STOP, 32)
    record = await suppression.get(tenant.id, ANNA)
    assert [(one.kind, one.active, one.origin) for one in record.suppressions] == [(Kind.STOP, True, Origin.RECIPIENT)]
    assert record.history[0].fact.word == "STOP"

    with pytest.raises(FailedPreconditionError):
        await suppression.lift(tenant.id, ANNA, Kind.STOP)
    evidence = Evidence(source=Source.WEB, at=datetime.now(UTC), reference="form 12")
    assert (await suppression.lift(tenant.id, ANNA, Kind.STOP, evidence=evidence)).changed
    assert (await suppression.check(tenant.id, ANNA)).allowed

    added = await suppression.add(tenant.id, "ben@example.com", Kind.UNSUBSCRIBE, source=Source.WEB)
    again = await suppression.add(
        tenant.id, "ben@example.com", Kind.UNSUBSCRIBE, source=Source.WEB, idempotency_key=added.idempotency_key
    )
    assert (added.changed, again.suppression.id) == (True, added.suppression.id)
    with pytest.raises(ConflictError):
        await suppression.add(tenant.id, BEN, Kind.STOP, idempotency_key=added.idempotency_key)
    assert not (await suppression.check(tenant.id, "ben@example.com", MARKETING)).allowed
    assert (await suppression.check(tenant.id, "ben@example.com", RECEIPT)).allowed
    assert (await suppression.add(tenant.id, BEN, Kind.HARD_BOUNCE)).changed
    assert [one.active for one in await suppression.reactivate(tenant.id, BEN)] == [False]
    rows = [one async for one in suppression.list(tenant.id, standing=Standing.ANY, page_size=1)]
    assert [(one.kind, one.active) for one in rows] == [
        (Kind.HARD_BOUNCE, False),
        (Kind.UNSUBSCRIBE, True),
        (Kind.STOP, False),
    ]
    assert [one.suppression.active async for one in suppression.history(tenant.id, ANNA, page_size=1)] == [False, True]


async def test_checks_share_calls_and_an_error_is_its_own(caller: Caller) -> None:
    suppression, tenant = caller.suppression, caller.tenant
    await suppression.add(tenant.id, ANNA, Kind.MANUAL)
    addresses = [ANNA, "12", BEN] * 100
    found = await asyncio.gather(*(suppression.check(tenant.id, one) for one in addresses), return_exceptions=True)
    for address, one in zip(addresses, found, strict=True):
        if address == "12":
            assert isinstance(one, InvalidArgumentError)
            assert (one.field, one.fix != "") == ("address", True)
        else:
            assert not isinstance(one, BaseException)
            assert one.allowed is (address == BEN)
    verdicts = [one.verdict for one in await suppression.check_batch(tenant.id, addresses[:3])]
    assert verdicts == [Verdict.SUPPRESSED, Verdict.INVALID, Verdict.ALLOWED]
    streamed = [one.verdict async for one in suppression.check_stream(tenant.id, addresses * 10)]
    assert streamed == verdicts * 1000

    def of_threads() -> list[bool]:
        with BlockingSuppressionClient(caller.target, token=caller.token, tls=caller.tls) as blocking:
            return [blocking.check(tenant.id, one).allowed for one in (ANNA, BEN)]

    assert await asyncio.to_thread(of_threads) == [False, True]


async def test_a_caller_may_what_it_was_given_and_nothing_else(caller: Caller, town: Town) -> None:
    other = await town.platform.register()
    with pytest.raises((ForbiddenError, NotFoundError)):
        await caller.suppression.check(other.id, ANNA, if_unavailable="allow")
    made = await town.platform.client.create_service(
        f"asks-{other.id}", name="It asks", tenants=[other.id], verbs=["check"]
    )
    async with SuppressionClient(caller.target, token=made.token, tls=caller.tls) as asking:
        await InternalService(made, asking).known()
        assert (await asking.check(other.id, ANNA)).allowed
        with pytest.raises(ForbiddenError):
            await asking.add(other.id, ANNA, Kind.STOP)
    unknown = f"bhs_{'0' * 12}_{'0' * 48}"
    async with SuppressionClient(caller.target, token=unknown, tls=caller.tls) as nobody:
        with pytest.raises(UnauthenticatedError):
            await nobody.check(other.id, ANNA, if_unavailable="allow")


async def test_lists_go_in_and_out_and_changes_are_followed(caller: Caller, tmp_path: Path) -> None:
    suppression, tenant = caller.suppression, caller.tenant
    async with suppression.watch(tenant.id) as changes:
        await changes.begun()
        content = f"address,kind\n{ANNA},stop\nnobody,stop\n{BEN},manual\n".encode()
        refused = io.BytesIO()
        done = await suppression.import_list(tenant.id, [content[:20], content[20:]], refused=refused)
        assert (done.changed, done.refused, done.done) == (2, 1, True)
        assert b"nobody" in refused.getvalue()
        async with asyncio.timeout(60):
            seen = [await anext(changes) for _ in range(2)]
        assert [one.position for one in seen] == [1, 2]
        assert {one.suppression.address for one in seen} == {ANNA, BEN}
    again = await suppression.import_list(tenant.id, [content])
    assert (again.changed, again.unchanged) == (0, 2)
    path = tmp_path / "list.csv"
    assert await suppression.export_list(tenant.id, path) > 0
    done = await suppression.import_list(tenant.id, path)
    assert (done.lines, done.refused, done.done) == (2, 0, True)
    async with suppression.watch(tenant.id, after=1, kinds=[seen[1].suppression.kind]) as rest:
        async with asyncio.timeout(60):
            assert (await anext(rest)).position == 2
