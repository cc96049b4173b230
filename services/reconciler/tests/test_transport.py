"""What a provider may do to whoever asks it: one request is lost, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest
from backhaul_channels.providers.twilio.credentials import TwilioCredentials
from backhaul_channels.providers.twilio.pull import TwilioPuller
from backhaul_channels.providers.twilio.settings import TwilioSettings
from backhaul_channels.pull import (
    Ask,
    Budget,
    CredentialsRefusedError,
    LaterError,
    Response,
    TooOftenError,
    UnreadableAnswerError,
)
from backhaul_common.metering import Metrics
from backhaul_common.metrics import RECONCILER_REQUESTS
from backhaul_reconciler.ledger import Ledger
from backhaul_reconciler.transport import AccountTransport, PacedError, Requests
from backhaul_testing.apis.twilio import TwilioApi
from backhaul_testing.waiting import until
from provider_api import ORIGIN, Answer, ProviderApi, Request, provider_api

MIB = 1 << 20


class Asked:
    """A transport to an API that a test has misbehave."""

    def __init__(self, api: ProviderApi, requests: Requests, metrics: Metrics, budget: Budget) -> None:
        self.api = api
        self.requests = requests
        self._metrics = metrics
        self.loop = asyncio.get_running_loop()
        self.ledger = Ledger(budget, self.loop.time())
        self.begun = 0
        self.transport = AccountTransport(
            requests,
            "twilio",
            frozenset({ORIGIN}),
            self.ledger,
            until=lambda: self.loop.time() + 1.0,
            asked=self._count,
        )

    def _count(self) -> None:
        self.begun += 1

    def counted(self, outcome: str) -> int:
        """How many requests the metrics say to have ended so."""
        name = f"{RECONCILER_REQUESTS.name}_total"
        lines = self._metrics.render().decode().splitlines()
        told = [line for line in lines if line.startswith(name) and f'outcome="{outcome}"' in line]
        return round(sum(float(line.rpartition(" ")[2]) for line in told))

    async def get(self, path: str = "/any") -> Response:
        return await self.transport.get(ORIGIN + path, {"a": "b c"}, {"authorization": "a b good"})

    def answers(self, status: int = 200, body: bytes = b"{}", **headers: str) -> None:
        """Answer this from now on."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(_: Request, __: asyncio.StreamWriter) -> Answer:
            return status, fields, body

        self.api.misbehave = answer


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    async with provider_api() as api:
        metrics = Metrics("test")
        requests = Requests(metrics, {ORIGIN: api.url}, most=4 * MIB, within_s=30.0, lines_s=60.0)
        yield Asked(api, requests, metrics, Budget(at_once=4))
        await requests.close()
        metrics.close()


async def test_an_answer_is_read_whole_and_by_lower_case_names(asked: Asked) -> None:
    asked.answers(body=gzip.compress(b"x" * MIB), content_encoding="gzip", Retry_After="3")
    answer = await asked.get()
    assert (answer.status, len(answer.body), answer.headers["retry-after"]) == (200, MIB, "3")
    assert asked.api.requests[0].params == {"a": "b c"}
    asked.answers(body=zlib.compress(b"y" * 10), content_encoding="deflate")
    assert (await asked.get()).body == b"y" * 10
    posted = await asked.transport.post(f"{ORIGIN}/jobs", {"EndDay": "2026-11-25"}, {})
    assert posted.status == 200
    assert asked.begun == 3


async def test_no_cookie_of_one_goes_to_the_provider_for_another(asked: Asked) -> None:
    asked.answers()
    for _ in range(2):
        await asked.get()
    assert [one.headers.get("cookie") for one in asked.api.requests] == [None, None]


async def test_neither_a_proxy_nor_credentials_of_the_machine_are_used(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w") as file:  # noqa: ASYNC230  # a few bytes
        file.write("machine 127.0.0.1 login somebody password else")
    os.chmod(netrc, 0o600)  # as above
    monkeypatch.setenv("NETRC", netrc)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    asked.answers()
    metrics = Metrics("test")
    requests = Requests(metrics, {ORIGIN: asked.api.url})
    assert (await requests.get("twilio", f"{ORIGIN}/any", {}, {})).status == 200
    assert "authorization" not in asked.api.requests[-1].headers
    await requests.close()
    metrics.close()


async def test_no_other_address_is_asked_and_no_redirect_followed(asked: Asked) -> None:
    for url in ("https://elsewhere.example.com/any", f"{ORIGIN}.elsewhere.example.com/", "http://api.example.com/any"):
        with pytest.raises(UnreadableAnswerError):
            await asked.transport.get(url, {}, {})
    asked.answers(307, location="https://elsewhere.example.com/")
    assert (await asked.get()).status == 307
    assert asked.begun == len(asked.api.requests) == 1


@pytest.mark.parametrize("path", ["/any\n", "/any?page=" + "x" * 70_000, "/\x00", "/[\x7f"])
async def test_what_is_no_address_is_unreadable(asked: Asked, path: str) -> None:
    with pytest.raises(UnreadableAnswerError):
        await asked.get(path)
    assert not asked.api.requests


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_an_answer_without_end_costs_no_more_than_an_answer_may_have(asked: Asked, encoding: str) -> None:
    part = gzip.compress(b"\0" * (8 * MIB)) if encoding else b"\0" * (64 << 10)
    written = 0

    async def flood(_: Request, writer: asyncio.StreamWriter) -> Answer:
        nonlocal written
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-encoding: {encoding or 'identity'}\r\n\r\n".encode())
        while written < 1 << 30 and not writer.is_closing():
            written += len(part)
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        raise ConnectionError

    asked.api.misbehave = flood
    with pytest.raises(UnreadableAnswerError, match="larger than"):
        await asked.get()
    assert asked.counted("unreadable") == 1
    assert written < 1 << 28


@pytest.mark.timed
@pytest.mark.parametrize("begun", ["", "HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n"])
async def test_whoever_hangs_or_drips_is_given_up(asked: Asked, begun: str) -> None:
    async def drip(_: Request, writer: asyncio.StreamWriter) -> Answer:
        writer.write(begun.encode())
        while not writer.is_closing():
            if begun:
                writer.write(b"x")
            await asyncio.sleep(0.02)
        raise ConnectionError

    asked.api.misbehave = drip
    asked.requests._within_s = 0.5
    began = asked.loop.time()
    with pytest.raises(LaterError):
        await asked.get()
    assert asked.loop.time() - began < 3
    assert asked.counted("slow") == 1


async def test_garbage_and_a_lost_connection_are_asked_later(asked: Asked) -> None:
    async def hang_up(_: Request, writer: asyncio.StreamWriter) -> Answer:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        raise ConnectionError

    asked.api.misbehave = hang_up
    with pytest.raises(LaterError):
        await asked.get()
    assert asked.ledger.not_before > asked.loop.time()


async def test_what_cannot_be_decompressed_is_unreadable(asked: Asked) -> None:
    for encoding, body in (("gzip", b"no gzip"), ("br", b"x")):
        asked.answers(body=body, content_encoding=encoding)
        with pytest.raises(UnreadableAnswerError):
            await asked.get()
    whole = gzip.compress(os.urandom(1000))
    asked.answers(body=whole[:-20], content_encoding="gzip")
    with pytest.raises(LaterError):
        await asked.get()


async def test_too_many_requests_are_told_to_the_ledger(asked: Asked) -> None:
    asked.answers(429, retry_after="60")
    assert (await asked.get()).status == 429
    assert asked.ledger.at_once(asked.loop.time()) == 2
    with pytest.raises(PacedError) as caught:
        await asked.get()
    assert 55 < caught.value.wait_s <= 66
    assert len(asked.api.requests) == 1


async def test_a_minute_that_is_used_up_ends_the_turn(asked: Asked) -> None:
    slow = Asked(asked.api, asked.requests, Metrics("slow"), Budget(per_minute=2))
    asked.answers()
    await slow.get()
    await slow.get()
    with pytest.raises(PacedError) as caught:
        await slow.get()
    assert 59 < caught.value.wait_s < 61


async def test_no_more_requests_are_under_way_than_may_be(asked: Asked) -> None:
    running = most = 0

    async def take_a_while(_: Request, __: asyncio.StreamWriter) -> Answer:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return 200, {}, b"{}"

    asked.api.misbehave = take_a_while
    await asyncio.gather(*(asked.get() for _ in range(12)))
    assert most == 4
    assert asked.begun == 12


async def test_lines_of_a_file_are_read_from_where_they_are_wanted(asked: Asked) -> None:
    lines = [f'{{"sid": "SM{number}"}}'.encode() for number in range(100_000)]
    halves = gzip.compress(b"\r\n".join(lines[:70_000]) + b"\n\n") + gzip.compress(b"\n".join(lines[70_000:]))
    asked.answers(body=halves)
    read = asked.transport.lines
    assert await read(f"{ORIGIN}/file", {}, 0, 3) == (lines[:3], True)
    assert await read(f"{ORIGIN}/file", {}, 69_999, 2) == (lines[69_999:70_001], True)
    assert await read(f"{ORIGIN}/file", {}, 99_998, 10) == (lines[99_998:], False)
    assert await read(f"{ORIGIN}/file", {}, 99_990, 10) == (lines[99_990:], False)
    asked.answers(body=halves[:-5])
    with pytest.raises(LaterError):
        await read(f"{ORIGIN}/file", {}, 99_998, 10)


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, CredentialsRefusedError), (404, UnreadableAnswerError), (429, TooOftenError), (500, LaterError)],
)
async def test_what_is_no_file_raises_what_it_means(asked: Asked, status: int, error: type[Exception]) -> None:
    asked.answers(status)
    with pytest.raises(error):
        await asked.transport.lines(f"{ORIGIN}/file", {}, 0, 3)


async def test_no_more_lines_are_held_than_an_answer_may_have(asked: Asked) -> None:
    lines = [str(place).encode() * 100_000 for place in range(100, 140)]
    asked.answers(body=gzip.compress(b"\n".join(lines), 1))
    read: list[bytes] = []
    more = True
    while more:
        part, more = await asked.transport.lines(f"{ORIGIN}/file", {}, len(read), 1_000)
        assert sum(map(len, part)) <= 4 * MIB
        read += part
    assert read == lines


async def test_a_line_without_end_is_unreadable(asked: Asked) -> None:
    asked.answers(body=gzip.compress(b"x" * (3 * MIB)))
    with pytest.raises(UnreadableAnswerError, match="line"):
        await asked.transport.lines(f"{ORIGIN}/file", {}, 0, 3)


async def test_what_a_tenant_asks_of_twilio_comes_first() -> None:
    with TwilioApi() as api:
        account = api.account()
        token = (account.sid, account.auth_token)
        metrics = Metrics("test")
        requests = Requests(metrics, api.origins)
        loop = asyncio.get_running_loop()
        puller = TwilioPuller()
        ledger = Ledger(puller.budgets[puller.message_budget], loop.time())
        until_s = loop.time() + 20
        transport = AccountTransport(
            requests, "twilio", puller.origins, ledger, until=lambda: until_s, asked=lambda: None
        )
        credentials = TwilioCredentials.model_validate({"account_sid": account.sid, "auth_token": account.auth_token})
        ask = Ask(credentials, TwilioSettings())
        await puller.message(transport, ask, "SM" + "0" * 32)
        assert ledger.at_once(loop.time()) == 4
        api.latency_s = 30
        async with httpx.AsyncClient(base_url=api.url, limits=httpx.Limits(max_connections=None)) as http:
            path = f"/2010-04-01/Accounts/{account.sid}/Messages.json"
            theirs = [asyncio.create_task(http.get(path, auth=token)) for _ in range(60)]

            async def under_way() -> bool:
                return api.requests.count() == 1 + len(theirs)

            await until("the tenant's requests are under way", under_way)
            api.latency_s = 0.02
            await puller.message(transport, ask, "SM" + "0" * 32)
            await asyncio.gather(*(puller.message(transport, ask, f"SM{number:032}") for number in range(6)))
            assert api.requests.most_in_flight(account.sid) == len(theirs) + 1
            for task in theirs:
                task.cancel()
            await asyncio.gather(*theirs, return_exceptions=True)
        await requests.close()
        metrics.close()
