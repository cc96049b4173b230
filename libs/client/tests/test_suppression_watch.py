"""The client of suppression: changes as they happen, over connections that break."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from backhaul_client import ForbiddenError, UnreachableError
from backhaul_client.suppression import (
    Change,
    Kind,
    SuppressionClient,
    Watch,
    connection,
)
from backhaul_common import errors as served
from backhaul_testing.proxy import SilentProxy
from stand_in import FREE, STOPPED, StandIn, serving

QUICKLY = 0.1
"""How much sooner than in earnest a connection that says nothing is given up here."""


async def test_a_watch_begins_where_it_is_told_and_goes_on(client: SuppressionClient, service: StandIn) -> None:
    for number in range(3):
        await client.add("acme", f"+1500555100{number}", Kind.MANUAL)
    async with client.watch("acme", after=1) as watch:
        assert [(await anext(watch)).position for _ in range(2)] == [2, 3]
        await client.add("acme", FREE, Kind.STOP)
        change = await anext(watch)
        assert (change.position, change.suppression.address, change.suppression.kind) == (4, FREE, Kind.STOP)
        assert watch.position == 4


async def test_a_watch_from_now_on_misses_nothing_once_it_has_begun(
    client: SuppressionClient, service: StandIn
) -> None:
    await client.add("acme", FREE, Kind.MANUAL)
    async with client.watch("acme") as watch:
        await watch.begun()
        assert watch.position == 1
        await client.add("acme", STOPPED, Kind.MANUAL)
        assert (await anext(watch)).position == 2


@pytest.mark.slow
async def test_a_watch_over_broken_connections_has_each_change_once(
    service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut in the middle, refused by a server that is stopping, and without a word."""
    monkeypatch.setattr(connection, "INTERVAL_S", connection.INTERVAL_S * QUICKLY)
    monkeypatch.setattr(connection, "PATIENCE_S", connection.PATIENCE_S * QUICKLY)
    async with (
        serving(service, ping_s=connection.INTERVAL_S / 2) as port,
        SilentProxy(port) as proxy,
        SuppressionClient(f"127.0.0.1:{port}") as writer,
        SuppressionClient(f"127.0.0.1:{proxy.port}") as client,
        client.watch("acme", after=0) as watch,
    ):
        found: list[int] = []

        async def follow() -> None:
            async for change in watch:
                found.append(change.position)  # noqa: PERF401  # what has come so far is looked at meanwhile

        following = asyncio.create_task(follow())
        for number in range(40):
            if number % 10 == 3:
                async with service.moved:
                    service.failures.append(grpc.StatusCode.UNAVAILABLE)
                    service.moved.notify_all()
                while service.failures:
                    await asyncio.sleep(0.005)
            if number == 25:
                proxy.go_silent()
                proxy.speak_to_newcomers()
            await writer.add("acme", f"+150055510{number:02}", Kind.MANUAL)
        async with asyncio.timeout(30):
            while len(found) < 40:
                await asyncio.sleep(0.01)
        assert found == list(range(1, 41))
        begun = [one.request.after_position for one in service.asked if one.method == "Watch"]
        assert len(begun) > 3
        assert begun == sorted(begun)
        await watch.close()
        await following


@pytest.mark.timed
async def test_a_filtered_watch_moves_on_past_what_it_leaves_out(client: SuppressionClient, service: StandIn) -> None:
    async with client.watch("acme", after=0, kinds=[Kind.STOP]) as watch:
        for kind in (Kind.MANUAL, Kind.STOP, Kind.MANUAL):
            await client.add("acme", FREE, kind)
        assert (await anext(watch)).position == 2
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(watch)
        assert watch.position == 3
        await client.add("acme", FREE, Kind.STOP)
        assert (await anext(watch)).position == 4


async def test_a_watch_ends_where_waiting_mends_nothing(client: SuppressionClient, service: StandIn) -> None:
    service.failures.append(served.BackhaulError(served.Code.FORBIDDEN, "It may not watch."))
    with pytest.raises(ForbiddenError):
        await anext(client.watch("acme", after=0))


@pytest.mark.parametrize("closed", ["watch", "client"])
async def test_closing_ends_a_watch(port: int, service: StandIn, closed: str) -> None:
    client = SuppressionClient(f"127.0.0.1:{port}")
    watch: Watch = client.watch("acme")
    await watch.begun()

    async def follow() -> list[Change]:
        return [change async for change in watch]

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    await (watch.close() if closed == "watch" else client.close())
    if closed == "watch":
        assert await following == []
    else:
        with pytest.raises(UnreachableError, match="closed"):
            await following
    await client.close()


async def test_a_watch_that_is_cancelled_is_ended_at_the_service(client: SuppressionClient, service: StandIn) -> None:
    watch = client.watch("acme")
    await watch.begun()
    following = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    async with asyncio.timeout(60):
        while service.watching:
            await asyncio.sleep(0.005)
