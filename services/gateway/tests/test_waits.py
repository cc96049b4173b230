"""Peers that let a gateway's process wait: every wait ends, and takes nobody's place."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from alone import AUTHORIZED, HEAD, started
from backhaul_testing import waiting

pytestmark = pytest.mark.slow

SILENT = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "half of a head": HEAD,
    "half of a second head": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + HEAD,
    "no second request": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "empty lines instead of a second request": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\r\n\r\n",
    "half of a body": HEAD + AUTHORIZED + b"Content-Length: 10\r\n\r\n{",
    "half of a body that is refused": HEAD + b"Content-Length: 10\r\n\r\n{",
    "half of a body of a path that is not there": b"POST /nothing HTTP/1.1\r\nContent-Length: 10\r\n\r\n{",
    "half of a body that nobody reads": b"GET /healthz HTTP/1.1\r\nContent-Length: 10\r\n\r\n{",
    "half of a chunk's size": HEAD + AUTHORIZED + b"Transfer-Encoding: chunked\r\n\r\n00",
    "half of the trailers": HEAD + AUTHORIZED + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-A: 1\r\n",
    "half of a body behind an offer": HEAD
    + AUTHORIZED
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 10\r\n\r\n{",
    "half of a sign-in": b"POST /console/sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nc",
}


async def test_who_stops_in_the_middle_is_not_waited_for(tmp_path: Path, subtests: pytest.Subtests) -> None:
    async with started(tmp_path, head_timeout_s=1, body_timeout_s=1, keep_alive_s=1, read_timeout_s=1) as process:
        peers = {what: await process.connect(data) for what, data in SILENT.items()}
        answers = await asyncio.gather(*(peer.rest(12) for peer in peers.values()), return_exceptions=True)
        for what, answer in zip(peers, answers, strict=True):
            with subtests.test(what=what):
                assert isinstance(answer, bytes)
                if what.startswith("half of a head"):
                    assert answer.startswith(b"HTTP/1.1 408")
                if what in ("half of a body", "half of a chunk's size", "half of the trailers"):
                    assert answer.startswith(b"HTTP/1.1 408")
                    assert b"request_timeout" in answer
        assert await process.ended("head") >= 3
        # This very request's.
        assert await process.metric("backhaul_gateway_connections") == 1


async def test_who_drips_is_not_waited_for(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Neither a byte now and then nor an empty line makes more time."""
    drips = {
        "a head": (HEAD, b"X-A: 1\r\n"),
        "a body": (HEAD + AUTHORIZED + b"Content-Length: 1000\r\n\r\n{", b" "),
        "a body that is refused": (HEAD + b"Content-Length: 1000\r\n\r\n{", b" "),
        "empty lines": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"),
        "the first empty lines": (b"", b"\r\n"),
        "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    }
    async with started(tmp_path, head_timeout_s=1, body_timeout_s=1, keep_alive_s=1, read_timeout_s=1) as process:
        peers = {what: await process.connect(first) for what, (first, _) in drips.items()}

        async def drip(what: str) -> None:
            async with asyncio.timeout(60):
                try:
                    while peers[what].lives:
                        await peers[what].send(drips[what][1])
                        await asyncio.sleep(0.1)  # the drip
                except ConnectionError:
                    pass

        for what, ended in zip(drips, await asyncio.gather(*map(drip, drips), return_exceptions=True), strict=True):
            with subtests.test(what=what):
                assert ended is None


async def test_answers_that_are_not_read_are_given_up(tmp_path: Path) -> None:
    async with started(tmp_path, head_timeout_s=1, body_timeout_s=1, keep_alive_s=1, read_timeout_s=1) as process:
        size = len((await process.get("/openapi.json")).content)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        for ending in (request, last, last, request):
            peer = await process.connect(receive_buffer=4096)
            # More than the two systems' buffers take.
            for _ in range(max(8, int(12e6 / size / 16))):
                await peer.send(request * 15)
                # So that the answers are not all asked for at once, which ends the connection.
                await asyncio.sleep(0.05)
            await peer.send(ending)
        # Who reads slowly, but reads, gets everything: some 1.6 MB at some 200 KB/s, however large the document is.
        times = max(4, 1_600_000 // size)
        slow = await process.connect(request * times, receive_buffer=4096)
        got = 0
        async with asyncio.timeout(60):
            while got < times * size:
                got += len(await asyncio.get_running_loop().sock_recv(slow.sock, 32768))
                await asyncio.sleep(0.05)  # the slowness

        async def given_up() -> bool:
            return await process.ended("read") == 4

        await waiting.until("the end of all four", given_up, within_s=20)
        assert len(psutil.Process(process.pid).net_connections("tcp")) <= 3


async def test_a_busy_connection_is_kept(tmp_path: Path) -> None:
    """Waits are for the peer: who sends request after request is waited for anew each time."""
    async with started(tmp_path, head_timeout_s=1, body_timeout_s=1, keep_alive_s=1, read_timeout_s=1) as process:
        peer = await process.connect()
        loop = asyncio.get_running_loop()
        ends = loop.time() + 3  # Several times as long as any one wait.
        while loop.time() < ends:
            await peer.send(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
            await asyncio.sleep(0.05)  # within the time for a body
            await peer.send(b"}")
            await asyncio.sleep(0.05)  # within the time between requests
            assert peer.lives
        peer.sock.close()


STRANGERS = {what: data for what, data in SILENT.items() if AUTHORIZED not in data}
UNANSWERED = {"nothing", "an empty line", "half of a head", "half of a sign-in"}
"""What the gateway does not answer before it gives up."""


@pytest.mark.parametrize("what", [*STRANGERS, "unread answers"])
async def test_no_stranger_takes_all_places(tmp_path: Path, what: str) -> None:
    """Whatever its requests are stuck in, as long as it has shown no credential."""
    async with started(tmp_path, max_connections=32) as process:

        async def stranger() -> None:
            if what in STRANGERS:
                peer = await process.connect(STRANGERS[what])
                if what not in UNANSWERED:
                    assert await asyncio.get_running_loop().sock_recv(peer.sock, 65536)
                return
            peer = await process.connect(receive_buffer=4096)
            for _ in range(30):
                with suppress(ConnectionError):
                    await peer.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 4)
                await asyncio.sleep(0.1)  # so that the answers are not all asked for at once

        for _ in range(2):
            if what in STRANGERS and what not in UNANSWERED:
                # Forty requests that are being answered at once would rightly be more than there are places.
                for _ in range(40):
                    await stranger()
            else:
                await asyncio.gather(*(stranger() for _ in range(40)))

            async def a_place() -> bool:
                return (await process.get("/healthz")).status_code == 200

            # At once, and when the timer has looked at them. Who reads no answer shows it only by and by.
            if what not in STRANGERS:
                await waiting.until("a place", a_place, within_s=60)
            assert [await a_place() for _ in range(5)] == [True] * 5
            await asyncio.sleep(1.2)  # the timer's interval
            assert (await process.get("/healthz")).status_code == 200
        assert process.events("connections_at_limit")
        if what in STRANGERS:
            assert await process.ended("refused") == 0


async def test_who_is_late_goes_before_who_is_idle(tmp_path: Path) -> None:
    async with started(tmp_path, max_connections=32) as process:
        idle = [await process.connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(8)]
        late = [await process.connect(SILENT["half of a body that nobody reads"]) for _ in range(24)]
        await asyncio.sleep(1.2)  # the timer's interval
        for _ in range(6):
            assert (await process.get("/healthz")).status_code == 200
            # Kept open, so that each of them needs a place.
            await process.connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [peer.lives for peer in idle] == [True] * 8
        assert [peer.lives for peer in late][:6] == [False] * 6
