"""A channel that is replaced by another one, as it is for a renewed certificate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from backhaul_common.errors import BackhaulError
from backhaul_common.rpc import Channel
from rpc_service import Answer, Ask, Stub
from rpc_streams_rig import Running, asks, streaming

CLOSED = grpc.ChannelConnectivity.SHUTDOWN


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with streaming() as made:
        yield made


class Succession:
    """A client whose next call goes over another channel each time that ``renew`` was called."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.inner = [grpc.aio.insecure_channel(target)]
        self._next: grpc.aio.Channel | None = None
        self.channel = Channel(self.inner[0], successor=self._successor)
        self.stub = Stub(self.channel)

    def renew(self) -> None:
        self._next = grpc.aio.insecure_channel(self._target)
        self.inner.append(self._next)

    async def closed(self, index: int) -> None:
        """Return when that one of the channels is closed."""
        async with asyncio.timeout(60):
            while self.inner[index].get_state() is not CLOSED:  # It has no event of that.
                await asyncio.sleep(0.01)

    def _successor(self) -> grpc.aio.Channel | None:
        following, self._next = self._next, None
        return following


@pytest.fixture
async def succession(running: Running) -> AsyncIterator[Succession]:
    made = Succession(f"127.0.0.1:{running.port}")
    yield made
    await made.channel.close()
    assert {channel.get_state() for channel in made.inner} == {CLOSED}


async def get(succession: Succession, text: str) -> None:
    assert (await succession.stub.Get(Ask(tenant_id="acme", text=text))).text == text


async def test_a_channel_is_closed_with_its_last_call(running: Running, succession: Succession) -> None:
    goes_on = asyncio.Event()

    async def two(request: Ask) -> AsyncIterator[Answer]:
        yield Answer(number=1)
        await goes_on.wait()
        yield Answer(number=2)

    running.servicer.many = two
    first, second = (succession.stub.Watch(Ask(tenant_id="acme")) for _ in range(2))
    assert [(await anext(watch)).number for watch in (first, second)] == [1, 1]
    succession.renew()
    await get(succession, "over the new one")
    await first.aclose()
    assert succession.inner[0].get_state() is not CLOSED
    goes_on.set()
    # What was under way has lost nothing.
    assert [answer.number async for answer in second] == [2]
    await succession.closed(0)
    await get(succession, "still")
    # What no call goes over is closed at once.
    succession.renew()
    await get(succession, "over the third")
    await succession.closed(1)
    assert succession.inner[2].get_state() is not CLOSED


@pytest.mark.parametrize("method", ["Get", "Watch", "Import", "Check"])
async def test_each_kind_of_call_counts_however_it_ends(running: Running, succession: Succession, method: str) -> None:
    begun = asyncio.Event()

    async def fail(request: Ask) -> Answer:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def endless(request: Ask) -> AsyncIterator[Answer]:
        yield await fail(request)

    async def told() -> AsyncIterator[Ask]:
        begun.set()
        async for one in asks("a"):
            yield one
        await asyncio.Event().wait()

    running.servicer.one, running.servicer.many = fail, endless

    async def call() -> None:
        asked = told() if method in ("Import", "Check") else Ask(tenant_id="acme")
        answers = getattr(succession.stub, method)(asked)
        if method in ("Watch", "Check"):
            async for _ in answers:
                pass
        else:
            await answers

    calls = [asyncio.create_task(call()) for _ in range(2)]
    await asyncio.wait_for(begun.wait(), 60)
    succession.renew()
    # Without a tenant it is refused: a call over the new one, which fails.
    with pytest.raises(BackhaulError):
        await succession.stub.Get(Ask())
    assert succession.inner[0].get_state() is not CLOSED
    for task in calls:
        task.cancel()
    await asyncio.wait(calls, timeout=60)
    await succession.closed(0)


async def test_a_stream_that_nobody_reads_keeps_no_channel(succession: Succession) -> None:
    unread = succession.stub.Watch(Ask(tenant_id="acme", number=1))
    succession.renew()
    running = succession.stub.Watch(Ask(tenant_id="acme", number=1))
    assert [answer.number async for answer in running] == [0]
    await succession.closed(0)
    # It begins when it is read, over what there is then.
    assert [answer.number async for answer in unread] == [0]
