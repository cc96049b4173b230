"""How long a stream may take, and how long either side waits for the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.rpc import edge
from rpc_service import Answer, Ask
from rpc_streams_rig import Running, asks, streaming


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with streaming() as made:
        yield made


@pytest.mark.slow
@pytest.mark.timed
async def test_a_quiet_stream_lives_on(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    # All limits are a hundredth of a second or so: whatever applied to a quiet stream would end it.
    monkeypatch.setattr(edge, "MAX_CALL_S", 0.01)
    monkeypatch.setattr(edge, "MAX_IDLE_S", 0.05)
    monkeypatch.setattr(rpc.client, "DEADLINE_S", 0.5)
    go_on = asyncio.Event()

    async def quiet(request: Any) -> AsyncIterator[Any]:
        yield Answer(number=1)
        await go_on.wait()
        yield Answer(number=2)

    running.servicer.many = quiet
    answers = running.stub.Watch(Ask(tenant_id="acme"))
    assert (await anext(answers)).number == 1
    asyncio.get_running_loop().call_later(1.0, go_on.set)
    assert (await anext(answers)).number == 2
    assert [answer async for answer in answers] == []


async def test_a_quiet_checker_lives_on(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "MAX_IDLE_S", 0.1)

    async def seldom() -> AsyncIterator[Any]:
        yield Ask(tenant_id="acme", text="a")
        await asyncio.sleep(0.5)
        yield Ask(text="b")

    assert [answer.text async for answer in running.stub.Check(seldom())] == ["A", "B"]


@pytest.mark.timed
async def test_the_deadline_of_a_stream_is_kept_on_both_sides(running: Running) -> None:
    async def hang(request: Any) -> AsyncIterator[Any]:
        yield Answer()
        await asyncio.Event().wait()

    running.servicer.many = hang
    with pytest.raises(BackhaulError) as caught:
        await running.watch(timeout=0.3)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    async with asyncio.timeout(2):
        await running.servicer.ended.wait()


@pytest.mark.parametrize("method", ["Import", "Check"])
async def test_a_client_that_sends_nothing_is_not_waited_for(
    running: Running, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "MAX_IDLE_S", 0.2)
    sent = 1 if method == "Import" else 0

    async def stuck() -> AsyncIterator[Any]:
        for _ in range(sent):
            yield Ask(tenant_id="acme", text="a")
        await asyncio.Event().wait()

    with pytest.raises(BackhaulError) as caught:
        await running.all_of(method, stuck())
    assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_a_long_upload_lives_as_long_as_it_goes_on(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "MAX_IDLE_S", 0.4)
    monkeypatch.setattr(edge, "MAX_CALL_S", 0.1)

    async def slow() -> AsyncIterator[Any]:
        for _ in range(8):
            yield Ask(tenant_id="acme", text="a")
            await asyncio.sleep(0.1)

    assert (await running.stub.Import(slow())).number == 8


async def test_a_client_that_does_not_read_is_not_waited_for(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "MAX_IDLE_S", 0.3)

    async def flood(request: Any) -> AsyncIterator[Any]:
        while True:
            yield Answer(text="x" * 100_000)

    running.servicer.many = flood
    async with aclosing(running.stub.Watch(Ask(tenant_id="acme"))) as answers:
        await anext(answers)
        async with asyncio.timeout(60):
            await running.servicer.ended.wait()


async def test_a_server_that_does_not_take_a_stream_up_is_not_waited_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc.client, "DEADLINE_S", 0.3)

    async def asleep(self: Any, *_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(edge.Edge, "_stream", asleep)
    for work in (running.watch(), running.stub.Import(asks("a"))):
        with pytest.raises(BackhaulError) as caught:
            await work
        assert caught.value.code is Code.DEADLINE_EXCEEDED
