"""Endpoints that misbehave in every way, through the whole system: each attempt is told in words, nothing but the
endpoint itself suffers, and another tenant's is told as quickly as ever."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytest
from backhaul_client.notificationmodels import Delivery
from backhaul_local.certificates import certificate_path, key_path
from backhaul_testing.endpoints import Call, endpoint
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from faults.receivers import Notified
from simulators.people import Tenant

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

TIMEOUT_S = 2
"""What an attempt may take."""

MEASURED = 25
"""Callbacks of the tenant whose endpoint behaves: before, and while the others misbehave."""

Behaviour = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True)
class Misbehaviour:
    """How an endpoint answers, and what its delivery's attempts must say: a status, a word, and a part of the text."""

    behaviour: Behaviour
    status: int
    error: str | None
    says: str
    state: str = "failed"
    scheme: str = "http"


async def _hang(call: Call) -> None:
    await asyncio.Event().wait()


async def _slow_headers(call: Call) -> None:
    await call.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        await call.write(b"x")
        await asyncio.sleep(0.05)


async def _slow_body(call: Call) -> None:
    await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
    while True:
        await call.write(b"x")
        await asyncio.sleep(0.05)


async def _endless_body(call: Call) -> None:
    await call.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        await call.write(b"x" * 65536)


async def _endless_header(call: Call) -> None:
    await call.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    while True:
        await call.write(b"x" * 65536)


async def _less_than_announced(call: Call) -> None:
    await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    call.writer.close()
    await call.writer.wait_closed()


async def _two_lengths(call: Call) -> None:
    await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc")


async def _reset(call: Call) -> None:
    call.reset()


async def _reset_in_the_body(call: Call) -> None:
    await call.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
    call.reset()


async def _no_http(call: Call) -> None:
    await call.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64)


async def _garbage(call: Call) -> None:
    await call.answer(b"\xff\x00\xfe" * 3000, more="Content-Type: \xff/\x80\r\n")


async def _gone(call: Call) -> None:
    await call.answer(b"no more", 410)


async def _well(call: Call) -> None:
    await call.answer()


MISBEHAVIOURS = {
    "hangs": Misbehaviour(_hang, 0, "timeout", "did not answer in time"),
    "slow headers": Misbehaviour(_slow_headers, 0, "timeout", "did not answer in time"),
    "slow body": Misbehaviour(_slow_body, 200, "timeout", "did not answer in time"),
    "endless body": Misbehaviour(_endless_body, 200, None, "answered 200", state="delivered"),
    "endless header": Misbehaviour(_endless_header, 0, "headers_too_large", "headers that are too large"),
    "less than announced": Misbehaviour(_less_than_announced, 200, "reset", "in the middle of its answer"),
    "two lengths": Misbehaviour(_two_lengths, 0, "protocol_error", "no HTTP"),
    "reset": Misbehaviour(_reset, 0, "reset", "without an answer"),
    "reset in the body": Misbehaviour(_reset_in_the_body, 200, "reset", "in the middle of its answer"),
    "no HTTP": Misbehaviour(_no_http, 0, "protocol_error", "no HTTP"),
    "no TLS": Misbehaviour(_well, 0, "tls_failed", "TLS", scheme="https"),
    "garbage": Misbehaviour(_garbage, 200, None, "answered 200", state="delivered"),
    "gone": Misbehaviour(_gone, 410, None, "the subscription is disabled"),
}


def _policy(**more: Any) -> Any:
    return {"kind": "custom", "timeout_s": TIMEOUT_S, **more}


async def _subscribed(tenant: Tenant, url: str, **policy: Any) -> str:
    made = await tenant.client.subscriptions.create(["message.*"], http={"url": url}, policy=_policy(**policy))
    return made.id


async def _ended(tenant: Tenant, subscription: str) -> Delivery:
    """The subscription's only delivery, once it waits no more."""

    async def probe() -> Delivery | None:
        listed = [one async for one in tenant.client.deliveries.list(subscription_id=subscription)]
        assert len(listed) <= 1
        return listed[0] if listed and listed[0].state != "waiting" else None

    found = await until("the end of a delivery", probe, within_s=30, pause_s=0.2)
    return await tenant.client.deliveries.get(found.id)


async def _happens(tenant: Tenant) -> float:
    """A message is sent; when its callback was posted."""
    posted = time.monotonic()
    await tenant.receive(tenant.twilio.status(tenant.address("Twilio"), new_sid(), "sent"))
    return posted


async def _delay_s(tenant: Tenant, calls: list[float]) -> float:
    """From a callback to the tenant's endpoint, at the median of some."""
    delays = []
    for _ in range(MEASURED):
        known = len(calls)
        posted = await _happens(tenant)

        async def told(known: int = known) -> bool:
            return len(calls) > known

        await until("the call", told, pause_s=0.002)
        delays.append(calls[known] - posted)
    return median(delays)


@pytest.mark.timed
async def test_every_misbehaviour_is_told_in_words_and_slows_nobody_else(notified: Notified) -> None:
    mallory, victim = [await notified.town.platform.register() for _ in range(2)]
    told: list[float] = []

    async def well(call: Call) -> None:
        told.append(time.monotonic())
        await call.answer()

    async with AsyncExitStack() as stack:
        behaving = await stack.enter_async_context(endpoint(well))
        await _subscribed(victim, behaving.url())
        quiet_s = await _delay_s(victim, told)
        servers = {
            name: await stack.enter_async_context(endpoint(one.behaviour)) for name, one in MISBEHAVIOURS.items()
        }
        ids = {
            name: await _subscribed(mallory, servers[name].url("/hook?secret=s3cret", scheme=one.scheme))
            for name, one in MISBEHAVIOURS.items()
        }
        await _happens(mallory)
        beside_s = await _delay_s(victim, told)
        assert beside_s < 3 * quiet_s + 0.1, f"{beside_s:.3f} s beside {quiet_s:.3f} s"
        for name, one in MISBEHAVIOURS.items():
            delivery = await _ended(mallory, ids[name])
            (attempt,) = delivery.history
            assert (delivery.state, attempt.status, attempt.error) == (one.state, one.status, one.error), name
            assert one.says in attempt.text, (name, attempt.text)
            assert attempt.request == f"POST {servers[name].url('/hook', scheme=one.scheme)}"
            assert "s3cret" not in attempt.text
            assert attempt.duration_ms < (TIMEOUT_S + 1) * 1000
            assert len(attempt.answer_text.encode()) <= 4096
            assert len(servers[name].calls) == (0 if one.scheme == "https" else 1)
        standings = {name: await mallory.client.subscriptions.get(id_) for name, id_ in ids.items()}
        assert {name for name, one in standings.items() if one.state == "disabled"} == {"gone"}
        assert "410" in str(standings["gone"].state_text)


async def test_a_certificate_that_nobody_trusts_is_told_in_words(notified: Notified) -> None:
    tenant = await notified.town.platform.register()
    folder = notified.stack.config.data_dir / "tls"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate_path(folder, "gateway"), key_path(folder, "gateway"))
    async with endpoint(_well, tls) as server:
        id_ = await _subscribed(tenant, server.url(scheme="https"))
        await _happens(tenant)
        (attempt,) = (await _ended(tenant, id_)).history
    assert (attempt.status, attempt.error) == (0, "tls_failed")
    assert "certificate" in attempt.text
    assert not server.calls


async def test_a_redirect_to_a_private_address_is_a_failure_and_is_not_followed(notified: Notified) -> None:
    tenant = await notified.town.platform.register()
    async with endpoint(_well) as private:

        async def redirect(call: Call) -> None:
            await call.answer(b"", 302, f"Location: {private.url('/latest/meta-data/')}\r\n")

        async with endpoint(redirect) as server:
            id_ = await _subscribed(tenant, server.url(), retry_after_s=[1])
            await _happens(tenant)
            delivery = await _ended(tenant, id_)
    assert delivery.state == "failed"
    assert [(one.status, one.error) for one in delivery.history] == [(302, None)] * 2
    assert all("redirects are not followed" in one.text for one in delivery.history)
    assert len(server.calls) == 2
    assert not private.calls


async def test_429_puts_the_next_attempt_off_for_as_long_as_it_says(notified: Notified) -> None:
    tenant = await notified.town.platform.register()
    at: list[float] = []

    async def busy(call: Call) -> None:
        at.append(time.monotonic())
        if len(at) == 1:
            await call.answer(b"later", 429, "Retry-After: 3\r\n")
        else:
            await call.answer()

    async with endpoint(busy) as server:
        id_ = await _subscribed(tenant, server.url(), retry_after_s=[1])
        await _happens(tenant)
        delivery = await _ended(tenant, id_)
    assert delivery.state == "delivered"
    first, second = delivery.history
    assert [(one.status, one.error, one.answer_text) for one in (first, second)] == [
        (429, None, "later"),
        (200, None, "ok"),
    ]
    assert "attempt 1 of 2: the next one is in 3 s" in first.text
    assert at[1] - at[0] >= 3
    assert {call.headers["webhook-id"] for call in server.calls} == {delivery.webhook_id}
