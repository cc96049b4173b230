"""``/v1/suppressions/changes``: what has changed behind a position, and the wait for it."""

from __future__ import annotations

import asyncio

import pytest
from backhaul_local.nats_server import NatsServer
from backhaul_proto.event.v1.event_pb2 import ADDRESS_FAMILY_PHONE
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from gateway_rig import GatewayFactory
from suppression_rig import SHOWN, Rig, change, suppressing

NUMBER = "+15005550001"


def position(number: int) -> pb.WatchResponse:
    return pb.WatchResponse(position=number)


def told(number: int) -> pb.WatchResponse:
    return pb.WatchResponse(position=number, change=change(number))


async def test_changes_come_a_page_at_a_time(rig: Rig) -> None:
    rig.suppression.answers["Watch"] = [told(3), told(4), told(5)]
    answer = (await rig.get("/changes", after=2, limit=2, kinds="stop, manual", family="phone")).json()
    assert ([one["position"] for one in answer["changes"]], answer["next_position"]) == ([3, 4], 4)
    assert answer["changes"][0]["suppression"] == SHOWN
    assert rig.suppression.asked == [
        pb.WatchRequest(
            tenant_id="acme",
            after_position=2,
            family=ADDRESS_FAMILY_PHONE,
            kinds=[pb.SUPPRESSION_KIND_STOP, pb.SUPPRESSION_KIND_MANUAL],
        )
    ]
    await rig.suppression.ended.wait()
    # Fewer than a page: what comes together, and no wait for more.
    answer = (await rig.get("/changes", after=2, wait=30)).json()
    assert ([one["position"] for one in answer["changes"]], answer["next_position"]) == ([3, 4, 5], 5)


async def test_without_a_position_changes_begin_now(rig: Rig) -> None:
    rig.suppression.answers["Watch"] = [position(41)]
    assert (await rig.get("/changes")).json() == {"changes": [], "next_position": 41}
    assert not rig.suppression.asked[0].HasField("after_position")


@pytest.mark.timed
async def test_where_nothing_changes_the_wait_ends_and_what_was_passed_over_counts(rig: Rig) -> None:
    rig.suppression.answers["Watch"] = [position(9)]
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await rig.get("/changes", after=2, wait=0.3)).json() == {"changes": [], "next_position": 9}
    assert 0.3 <= loop.time() - began < 10
    rig.gateway.problem(await rig.get("/changes", wait=31), 422, "wait")
    rig.gateway.problem(await rig.get("/changes", after=-1), 422, "after")
    rig.gateway.problem(await rig.get("/changes", kinds="stop,nothing"), 422, "kinds")


async def test_who_hangs_up_while_waiting_takes_no_read_any_more(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with suppressing(gateway_factory, fresh_nats.uri) as rig:
        rig.suppression.answers["Watch"] = [position(1)]
        rig.suppression.answers["Check"] = pb.CheckResponse(verdict=pb.VERDICT_ALLOWED)
        only = {"limits": {"concurrent_reads": 1}}
        await rig.gateway.client.patch("/admin/v1/tenants/acme", headers=rig.gateway.admin, json=only)
        waiting = asyncio.create_task(rig.get("/changes", wait=30))
        await rig.suppression.hangs.wait()
        assert (await rig.post("/check", {"address": NUMBER})).status_code == 429
        waiting.cancel()
        await rig.suppression.ended.wait()

        async with asyncio.timeout(60):
            # The call has ended; the read ends some turns of the gateway's loop later.
            while (await rig.post("/check", {"address": NUMBER})).status_code == 429:
                await asyncio.sleep(0.01)
