"""What a line does to what goes through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from backhaul_testing.endpoints import Call, endpoint
from backhaul_testing.lines import Balancer, Line, Route
from backhaul_testing.wire import Answer, Connection

LOOPBACK = "127.0.0.1"
REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
LONG_S = 60.0


@asynccontextmanager
async def server(name: bytes) -> AsyncIterator[int]:
    async def answer(call: Call) -> None:
        await call.answer(name)

    async with endpoint(answer) as made:
        yield made.port


async def _asked(balancer: Balancer, times: int) -> list[bytes]:
    """Who answers each of several new connections."""
    found = []
    for _ in range(times):
        connection = await Connection.open(LOOPBACK, balancer.port)
        async with asyncio.timeout(LONG_S):
            found.append((await connection.ask(REQUEST)).body)
        connection.close()
    return found


async def test_copies_take_turns_and_those_that_are_away_or_cut_are_passed_over() -> None:
    one, other = Line(), Line()
    async with server(b"one") as first, server(b"other") as second:
        async with Balancer(Route(first, [one]), Route(second, [other])) as balancer:
            assert sorted(await _asked(balancer, 4)) == [b"one", b"one", b"other", b"other"]
            one.cut()
            assert set(await _asked(balancer, 3)) == {b"other"}
            one.mend()
            assert set(await _asked(balancer, 4)) == {b"one", b"other"}
        async with Balancer(Route(9, [Line()]), Route(second, [other])) as balancer:
            assert set(await _asked(balancer, 3)) == {b"other"}


async def test_a_cut_resets_the_connections_that_are_there_and_those_that_come() -> None:
    own, other = Line(), Line()
    async with server(b"one") as port, Balancer(Route(port, [other, own])) as balancer:
        connection = await Connection.open(LOOPBACK, balancer.port)
        assert (await connection.ask(REQUEST)).body == b"one"
        own.cut()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(LONG_S):
                await connection.ask(REQUEST)
        connection.close()
        connection = await Connection.open(LOOPBACK, balancer.port)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(LONG_S):
                await connection.ask(REQUEST)
        connection.close()


async def test_what_is_silent_keeps_what_was_said_and_goes_on() -> None:
    line = Line()
    async with server(b"one") as port, Balancer(Route(port, [line])) as balancer:
        there = await Connection.open(LOOPBACK, balancer.port)
        assert (await there.ask(REQUEST)).body == b"one"
        line.go_silent()
        new = await Connection.open(LOOPBACK, balancer.port)
        asking = [asyncio.create_task(connection.ask(REQUEST)) for connection in (there, new)]
        done, _ = await asyncio.wait(asking, timeout=0.2)
        assert not done
        line.mend()
        async with asyncio.timeout(LONG_S):
            assert await asyncio.gather(*asking) == [Answer(200, b"one")] * 2
        there.close()
        new.close()


async def test_what_is_slow_takes_so_much_longer_each_way() -> None:
    line = Line()
    loop = asyncio.get_running_loop()
    async with server(b"x" * 1000) as port, Balancer(Route(port, [line])) as balancer:
        connection = await Connection.open(LOOPBACK, balancer.port)
        line.slow_down(0.1, 10_000)
        began = loop.time()
        await connection.ask(REQUEST)
        # Twice the latency, and a thousand bytes.
        assert loop.time() - began >= 0.3 - 0.01
        line.mend()
        connection.close()
