"""The console's live tail: nothing is missed, it ends when it must, and it keeps nothing waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import httpx
import pytest
from backhaul_client import AsyncTenantClient
from backhaul_console.pages import tail
from backhaul_gateway.reads.eventstream import PER_TENANT
from backhaul_local.nats_server import NatsServer
from backhaul_testing import waiting
from bs4 import BeautifulSoup
from cryptography.fernet import Fernet
from gateway_rig import GatewayFactory, Running
from stream_rig import event, publish

SAME = {"sec-fetch-site": "same-origin"}
WITHIN_S = 60
HOSTILE = "<script>alert(1)</script>\r\nid: 7\revent: ended\n\ndata: \u2028\u202eabc\x00"


class Row(NamedTuple):
    id: str
    name: str
    data: str


class Tail:
    """What a browser reads of the stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._blocks = self._cut()

    async def _cut(self) -> AsyncIterator[str]:
        rest = ""
        async for piece in self.answer.aiter_text():
            *blocks, rest = (rest + piece).split("\n\n")
            for block in blocks:
                yield block

    async def next(self) -> Row | None:
        """The next message with a name or data; None at the end."""
        async with asyncio.timeout(WITHIN_S):
            async for block in self._blocks:
                fields = [line.partition(": ") for line in block.split("\n")]
                found = {name: value for name, _colon, value in fields}
                data = "\n".join(value for name, _colon, value in fields if name == "data")
                if data or "event" in found:
                    return Row(found.get("id", ""), found.get("event", ""), data)
            return None

    async def comment(self) -> None:
        """Wait for one, and for nothing else."""
        async with asyncio.timeout(WITHIN_S):
            async for block in self._blocks:
                assert "data: " not in block, block
                if block.startswith(": "):
                    return

    async def message_ids(self, count: int) -> list[str]:
        """Of the next rows."""
        return [(await self.row()).select("a.id")[0].get_text() for _ in range(count)]

    async def row(self) -> BeautifulSoup:
        told = await self.next()
        assert told is not None
        assert told.name == "", told
        return BeautifulSoup(told.data, "html.parser")


async def signed_in(gateway: Running, key: str) -> dict[str, str]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=WITHIN_S) as browser:
        begun = await browser.post("/console/sign-in", data={"credential": key}, headers=SAME)
        assert begun.status_code == 303, begun.text
        return {"cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}


@asynccontextmanager
async def tailing(
    gateway: Running, cookie: dict[str, str], tenant: str, after: str = "", **query: str
) -> AsyncIterator[Tail]:
    headers = {**cookie, **SAME, "accept": "text/html, text/event-stream", "hx-request": "true"}
    if after:
        headers["last-event-id"] = after
    path = f"/console/t/{tenant}/events/live"
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=WITHIN_S) as browser,
        browser.stream("GET", path, params=query, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        yield Tail(answer)


async def begun(gateway: Running, stack: AsyncExitStack, cookie: dict[str, str], tenant: str, **query: str) -> Tail:
    """A tail that has begun: what is published from now on is told."""
    reader = await stack.enter_async_context(tailing(gateway, cookie, tenant, **query))
    first = await reader.next()
    assert first is not None
    assert first.name == "begun"
    return reader


async def rest_of(reader: Tail) -> list[Row]:
    found = []
    while (told := await reader.next()) is not None:
        found.append(told)
    return found


async def streams(gateway: Running) -> int:
    text = (await gateway.client.get("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("backhaul_gateway_event_streams")]
    return int(float(line.rpartition(" ")[2]))


async def until_open(gateway: Running, count: int) -> None:
    async def seen() -> bool:
        return await streams(gateway) == count

    await waiting.until(f"{count} open streams", seen)


async def test_events_come_as_rows_by_the_pages_filters_and_of_nobody_else(gateway: Running) -> None:
    acme, other = await gateway.tenant(), await gateway.tenant("other")
    cookie, theirs = await signed_in(gateway, acme.api_key), await signed_in(gateway, other.api_key)
    async with AsyncExitStack() as stack:
        everything = await begun(gateway, stack, cookie, "acme")
        filtered = await begun(gateway, stack, cookie, "acme", communication="spring")
        foreign = await begun(gateway, stack, theirs, "other")
        hostile = event(gateway, "acme", "1", message_id=HOSTILE, error_text=HOSTILE, recipient=HOSTILE)
        plain = event(gateway, "acme", "2", message_id="a/b?c#d e", communication_id="spring")
        await publish(gateway, "acme", [[hostile], [plain]])
        await publish(gateway, "other", [[event(gateway, "other", "3", message_id="theirs")]])

        row = await everything.row()
        assert not row.find_all("script")
        assert "<script>alert(1)</script>" in row.get_text()
        assert await everything.message_ids(1) == ["a/b?c#d e"]
        (link,) = (await filtered.row()).select("a.id")
        assert link["href"] == "/console/t/acme/messages/twilio/a%2Fb%3Fc%23d%20e"
        assert await foreign.message_ids(1) == ["theirs"]
    await until_open(gateway, 0)


async def test_it_goes_on_over_a_restart_of_the_gateway_which_it_does_not_hold_up(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    key = Fernet.generate_key().decode()
    async with AsyncExitStack() as left:
        async with gateway_factory(fresh_nats.uri, secret_keys=key) as gateway:
            acme = await gateway.tenant()
            cookie = await signed_in(gateway, acme.api_key)
            rows = [event(gateway, "acme", f"{number}", message_id=f"SM{number}") for number in range(6)]
            reader = await left.enter_async_context(tailing(gateway, cookie, "acme"))
            first = await reader.next()
            assert first is not None
            await publish(gateway, "acme", [rows[:3]])
            assert await reader.message_ids(1) == ["SM0"]
            second = await reader.next()
            assert second is not None
            assert "SM1" in second.data
        # The gateway has stopped while it was read from. What comes at the end of its grace would be cut off instead.
        assert [one.name for one in await rest_of(reader)] == ["", "away"]
    async with gateway_factory(fresh_nats.uri, secret_keys=key) as gateway:
        await publish(gateway, "acme", [rows[3:]])
        # Sessions lie in the database, which this gateway has not.
        cookie = await signed_in(gateway, acme.api_key)
        async with tailing(gateway, cookie, "acme", after=second.id) as again:
            begun_again = await again.next()
            assert begun_again is not None
            assert begun_again.name == "begun"
            assert await again.message_ids(4) == ["SM2", "SM3", "SM4", "SM5"]
        # One who read nothing at all goes on as well, by the id of the beginning.
        async with tailing(gateway, cookie, "acme", after=first.id) as again:
            await again.next()
            assert await again.message_ids(6) == [f"SM{number}" for number in range(6)]


async def test_it_ends_with_its_session_and_with_its_key(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = await gateway.tenant()
    client = AsyncTenantClient(gateway.url, acme.api_key, http=gateway.client)
    second = await client.add_key(scopes=["read"])
    first_cookie, second_cookie = await signed_in(gateway, acme.api_key), await signed_in(gateway, second.key)
    monkeypatch.setattr(tail, "LOOKS_S", 0.1)
    async with AsyncExitStack() as stack:
        by_session = await begun(gateway, stack, first_cookie, "acme")
        by_key = await begun(gateway, stack, second_cookie, "acme")
        await client.delete_key(second.id)
        told = await by_key.next()
        assert told is not None
        assert told.name == "ended"
        assert await by_key.next() is None

        await by_session.comment()
        sessions = gateway.mongo[gateway.settings.mongo_database]["console_sessions"]
        sessions.delete_many({})
        told = await by_session.next()
        assert told is not None
        # The browser may have another cookie meanwhile, so it is told to come back.
        assert told.name == "away"
        assert await by_session.next() is None
        # Who comes back is refused with a status that ends it; a page would be asked for again and again.
        path = "/console/t/acme/events/live"
        again = await gateway.client.get(path, headers={**first_cookie, "hx-request": "true", "last-event-id": "1"})
        assert again.status_code == 401
    await until_open(gateway, 0)


async def test_what_the_api_refuses_is_said_in_words(gateway: Running) -> None:
    acme = await gateway.tenant()
    cookie = await signed_in(gateway, acme.api_key)
    async with AsyncExitStack() as stack:
        # Kept: one that nobody holds is closed.
        readers = [await begun(gateway, stack, cookie, "acme") for _ in range(PER_TENANT)]
        async with tailing(gateway, cookie, "acme") as refused:
            told = await refused.next()
            assert told is not None
            assert told.name == "ended"
            assert f"{PER_TENANT} streams" in told.data
            assert await refused.next() is None
        await readers.pop().answer.aclose()
        await until_open(gateway, PER_TENANT - 1)
        async with tailing(gateway, cookie, "acme", kind="nonsense") as refused:
            told = await refused.next()
            assert told is not None
            assert told.name == "ended"
            assert "kind" in told.data
    # Whoever goes away takes their streams with them.
    await until_open(gateway, 0)


async def test_what_is_no_id_is_refused_in_words(gateway: Running) -> None:
    acme = await gateway.tenant()
    cookie = await signed_in(gateway, acme.api_key)
    for after in ("\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), b"x", b"1" * 65, b"1.1.1", b"."):
        headers = [(b"cookie", cookie["cookie"].encode()), (b"accept", b"text/event-stream")]
        headers.append((b"last-event-id", after))
        async with (
            httpx.AsyncClient(base_url=gateway.url, timeout=WITHIN_S) as browser,
            browser.stream("GET", "/console/t/acme/events/live", headers=headers) as answer,
        ):
            reader = Tail(answer)
            told = await reader.next()
            assert told is not None
            assert told.name == "ended", after
            assert await reader.next() is None
    await until_open(gateway, 0)


class _Mistaken(AsyncTenantClient):
    """A client that fails where nobody has thought of it."""

    def follow_events(self, **_: Any) -> Any:
        raise UnicodeEncodeError("ascii", "x", 0, 1, "no id")


class _Short(AsyncTenantClient):
    """One whose stream just ends."""

    async def follow_events(self, **_: Any) -> AsyncIterator[Any]:
        nothing: tuple[Any, ...] = ()
        for one in nothing:
            yield one


@pytest.mark.parametrize("client", [_Mistaken, _Short])
async def test_however_the_stream_behind_it_ends_it_ends(
    gateway: Running,
    monkeypatch: pytest.MonkeyPatch,
    client: type[AsyncTenantClient],
    capsys: pytest.CaptureFixture[str],
) -> None:
    acme = await gateway.tenant()
    cookie = await signed_in(gateway, acme.api_key)
    monkeypatch.setattr("backhaul_console.visits.AsyncTenantClient", client)
    async with tailing(gateway, cookie, "acme") as reader:
        told = await reader.next()
        assert told is not None
        assert told.name == "away"
        assert await reader.next() is None
    # A mistake is in the log, once.
    assert capsys.readouterr().out.count("request_failed") == (1 if client is _Mistaken else 0)


def test_all_tails_together_take_their_share() -> None:
    now = 100.0
    pace = tail.Pace(lambda: now)
    # What one has taken, the next waits for as well.
    assert pace.took(0.009) == 0.0
    assert pace.took(0.009) == pytest.approx(0.18)
    assert pace.took(0.1) == pytest.approx(1.18)
    now += 60
    assert pace.took(0.02) == pytest.approx(0.2)


async def test_a_tail_waits_for_what_others_have_taken(gateway: Running) -> None:
    acme = await gateway.tenant()
    cookie = await signed_in(gateway, acme.api_key)
    clock = asyncio.get_running_loop().time
    async with AsyncExitStack() as stack:
        free_at = clock() + tail.PACE.took(0.2)
        reader = await begun(gateway, stack, cookie, "acme")
        await publish(gateway, "acme", [[event(gateway, "acme", "1", message_id="SM1")]])
        assert await reader.message_ids(1) == ["SM1"]
        assert clock() >= free_at


async def test_whoever_is_no_script_is_led_to_the_page(gateway: Running) -> None:
    acme = await gateway.tenant()
    cookie = await signed_in(gateway, acme.api_key)
    led = await gateway.client.get("/console/t/acme/events/live", params={"kind": "failed"}, headers={**cookie, **SAME})
    assert led.status_code == 303
    assert led.headers["location"] == "/console/t/acme/events?live=1&kind=failed"
