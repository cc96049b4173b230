"""The door against endpoints that misbehave in every way, on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
from backhaul_notifier.door.outcome import MAX_ANSWER_BYTES, Failure
from backhaul_testing.waiting import until
from door_rig import Call, Endpoint, door, endpoint, post

SECRET = "s3cret"
"""In the URL and the headers of each request that fails: no sentence may have it."""

SHORT_S = 0.6
"""The time of an attempt that is to run out: what it waits for never comes."""


class TestMisbehaviour:
    """Nothing hangs, nothing fills memory, and each is told for what it is."""

    async def failing(
        self, behaviour: Callable[[Endpoint, Call], Awaitable[None]], timeout_s: float = 20.0
    ) -> tuple[Failure | None, int | None, Endpoint]:
        async with door() as sender:
            made: list[Endpoint] = []

            async def behave(call: Call) -> None:
                await behaviour(made[0], call)

            async with endpoint(behave) as there:
                made.append(there)
                outcome = await sender.send(
                    post(there.url(f"/{SECRET}?{SECRET}"), headers={"X-Key": SECRET}, timeout_s=timeout_s)
                )
                await until("the connection is gone", lambda: _is(sender.open_connections == 0))
            assert len(there.calls) == 1
            assert outcome.sentence
            assert SECRET not in outcome.sentence
            return outcome.failure, outcome.status, there

    async def test_no_answer(self) -> None:
        async def hang(there: Endpoint, call: Call) -> None:
            await there.ended.wait()

        assert (await self.failing(hang, SHORT_S))[:2] == (Failure.TIMEOUT, None)

    async def test_headers_byte_by_byte(self) -> None:
        async def drip(there: Endpoint, call: Call) -> None:
            await call.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not there.ended.is_set():
                await call.write(b"x")
                await asyncio.sleep(0.01)

        assert (await self.failing(drip, SHORT_S))[:2] == (Failure.TIMEOUT, None)

    async def test_a_body_byte_by_byte(self) -> None:
        async def drip(there: Endpoint, call: Call) -> None:
            await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
            while not there.ended.is_set():
                await call.write(b"x")
                await asyncio.sleep(0.01)

        assert (await self.failing(drip, SHORT_S))[:2] == (Failure.TIMEOUT, 200)

    async def test_less_than_was_announced(self) -> None:
        async def short(there: Endpoint, call: Call) -> None:
            await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            call.writer.close()
            await there.ended.wait()

        assert (await self.failing(short))[:2] == (Failure.RESET, 200)

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"HTTP/1.1 20",
            b"HTTP/1.1 200 OK\r\nContent-Le",
        ],
    )
    async def test_a_reset_within_the_head(self, head: bytes) -> None:
        async def reset(there: Endpoint, call: Call) -> None:
            await call.write(head)
            call.reset()

        assert (await self.failing(reset))[:2] == (Failure.RESET, None)

    async def test_a_reset_within_the_body(self) -> None:
        async def reset(there: Endpoint, call: Call) -> None:
            await call.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
            call.reset()

        assert (await self.failing(reset))[:2] == (Failure.RESET, 200)

    @pytest.mark.parametrize(
        "rubbish",
        [
            b"hello\r\n\r\n",
            b"<html>HTTP/0.9</html>",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
            b"HTTP/1.1 OK\r\n\r\n",
            b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        ],
    )
    async def test_what_is_no_http(self, rubbish: bytes) -> None:
        async def answer(there: Endpoint, call: Call) -> None:
            await call.write(rubbish)
            await there.ended.wait()

        assert (await self.failing(answer))[:2] == (Failure.PROTOCOL_ERROR, None)

    @pytest.mark.parametrize(
        "headers", [b"X-Large: " + b"x" * 20_000 + b"\r\n", b"X: y\r\n" * 5_000, b"X-" + b"x" * 20_000 + b": y\r\n"]
    )
    async def test_headers_that_are_too_large(self, headers: bytes) -> None:
        async def answer(there: Endpoint, call: Call) -> None:
            await call.write(b"HTTP/1.1 200 OK\r\n" + headers + b"Content-Length: 0\r\n\r\n")
            await there.ended.wait()

        assert (await self.failing(answer))[:2] == (Failure.HEADERS_TOO_LARGE, None)

    async def test_a_header_without_end(self) -> None:
        async def answer(there: Endpoint, call: Call) -> None:
            await call.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
            while True:
                await call.write(b"x" * 65536)

        failure, status, there = await self.failing(answer)
        assert (failure, status) == (Failure.HEADERS_TOO_LARGE, None)
        await asyncio.wait_for(there.gone.wait(), 60)

    async def test_continues_without_end(self) -> None:
        async def answer(there: Endpoint, call: Call) -> None:
            while True:
                await call.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

        failure, status, there = await self.failing(answer)
        assert (failure, status) == (Failure.PROTOCOL_ERROR, None)
        await asyncio.wait_for(there.gone.wait(), 60)

    @pytest.mark.parametrize("first", [b"", b"3\r\nabc\r\n"])
    async def test_a_chunk_of_the_wrong_size(self, first: bytes) -> None:
        async def answer(there: Endpoint, call: Call) -> None:
            await call.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + first)
            if first:
                await asyncio.sleep(0.05)  # So that it comes by itself, which nothing tells of.
            await call.write(b"zz\r\nabc\r\n")
            await there.ended.wait()

        assert (await self.failing(answer))[:2] == (Failure.PROTOCOL_ERROR, 200)

    @pytest.mark.parametrize("head", [b"", b"Content-Length: 9999999999999\r\n", b"Transfer-Encoding: chunked\r\n"])
    async def test_a_body_without_end_is_read_no_further_than_is_kept(self, head: bytes) -> None:
        sent = 0

        async def answer(call: Call) -> None:
            nonlocal sent
            await call.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
            part = b"10000\r\n" + b"x" * 65536 + b"\r\n" if b"chunked" in head else b"x" * 65536
            while True:
                sent += len(part)
                await call.write(part)

        async with endpoint(answer) as there, door() as sender:
            outcome = await sender.send(post(there.url()))
            # Told while the endpoint is sending.
            assert (outcome.status, outcome.failure) == (200, None)
            assert outcome.answer == "x" * MAX_ANSWER_BYTES
            await asyncio.wait_for(there.gone.wait(), 60)
        # What kernels hold between the two, at most.
        assert sent < 32 << 20

    @pytest.mark.parametrize("pause_s", [0, 0.05])
    @pytest.mark.parametrize(
        ("head", "body", "kept"),
        [
            (b"204 No Content\r\n", b"ok, but more", ""),
            (b"204 No Content\r\nContent-Length: 2\r\n", b"ok", ""),
            (b"200 OK\r\nContent-Length: 0\r\n", b"ok", ""),
            (b"200 OK\r\nContent-Length: 2\r\n", b"ok, but more", "ok"),
            (b"200 OK\r\nTransfer-Encoding: chunked\r\n", b"2\r\nok\r\n0\r\n\r\n, but more", "ok"),
        ],
    )
    async def test_what_comes_after_an_answer_takes_nothing_from_it(
        self, head: bytes, body: bytes, kept: str, pause_s: float
    ) -> None:
        async def answer(call: Call) -> None:
            await call.write(b"HTTP/1.1 " + head + (b"\r\n" if pause_s else b"\r\n" + body))
            if pause_s:
                await asyncio.sleep(pause_s)
                await call.write(body)

        async with endpoint(answer) as there, door() as sender:
            # Nor does the next one take it for its own.
            for number in (1, 2):
                outcome = await sender.send(post(there.url()))
                assert (outcome.status, outcome.answer, outcome.failure) == (int(head[:3]), kept, None)
                await until("the connection is gone", lambda: _is(sender.open_connections == 0))
                assert len(there.calls) == number

    @pytest.mark.parametrize("first", [b"100 Continue\r\n\r\n", b"103 Early Hints\r\nLink: </a>\r\n\r\n"])
    async def test_what_comes_before_an_answer_is_passed_over(self, first: bytes) -> None:
        async def answer(call: Call) -> None:
            await call.write(b"HTTP/1.1 " + first)
            await call.answer(b"done")

        async with endpoint(answer) as there, door() as sender:
            assert (await sender.send(post(there.url()))).answer == "done"

    async def test_another_protocol_is_an_answer_that_is_no_200(self) -> None:
        async def answer(call: Call) -> None:
            await call.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
            while True:
                await call.write(b"x" * 65536)

        async with endpoint(answer) as there, door() as sender:
            outcome = await sender.send(post(there.url(), timeout_s=2.0))
            assert outcome.status == 101
            await asyncio.wait_for(there.gone.wait(), 60)

    async def test_an_answer_that_ends_with_the_connection(self) -> None:
        async def answer(call: Call) -> None:
            await call.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")
            call.writer.close()
            await call.writer.wait_closed()

        async with endpoint(answer) as there, door() as sender:
            outcome = await sender.send(post(there.url()))
        assert (outcome.status, outcome.answer, outcome.failure) == (200, "all of it", None)

    async def test_nobody_listens(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            async with door() as sender:
                outcome = await sender.send(post(f"http://127.0.0.1:{port}/{SECRET}"))
        assert outcome.failure is Failure.CONNECT_FAILED
        assert outcome.sentence == f"127.0.0.1 does not take connections on port {port}: connection refused."

    async def test_connections_that_are_not_taken(self) -> None:
        with socket.socket() as full:
            # Linux keeps what does not fit into the backlog waiting, as a host does that drops packets.
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            fillers = [socket.socket() for _ in range(2)]
            for one in fillers:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            async with door() as sender:
                outcome = await sender.send(post(f"http://127.0.0.1:{port}/", timeout_s=SHORT_S))
            for one in fillers:
                one.close()
        assert outcome.failure is Failure.CONNECT_TIMEOUT


async def _is(what: bool) -> bool:
    return what
