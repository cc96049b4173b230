"""Fifty thousand STOPs of one tenant keep no other tenant's from holding, and no copy from answering."""

from __future__ import annotations

import asyncio
import time

import pytest
from backhaul_common.ids import derived_id
from backhaul_common.names import events_subject
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Consent, Event, EventBatch
from backhaul_testing import broker
from backhaul_testing.twilio import OWN_NUMBER, new_sid
from faults.copies import ALLOWED, SUPPRESSED, Copy, Pair, heard
from nats.aio.client import Client
from simulators.people import Tenant

pytestmark = [pytest.mark.faults, pytest.mark.timed]

FLOOD = 50_000
GROUP = 100
"""Events of one message of the stream, as the normalizer groups them under load."""

DELAY_S = 3.0
DELAY_PART = 0.2
"""Where other work keeps the machine so busy that the flood takes longer than ten seconds, a STOP may take this part of
that time. Who had to wait behind the flood would take most of it."""

QUIET = "+15005559999"


def _number(n: int) -> str:
    return f"+1415{n:07}"


async def _flood(client: Client, tenant: Tenant) -> None:
    """Put the STOPs into the stream, as the normalizer would have published them."""
    js = client.jetstream()
    subject = events_subject(tenant.queue_path, "twilio", "inbound")
    consent = Consent(action=event_pb2.CONSENT_ACTION_OPT_OUT, by=event_pb2.CONSENT_BY_KEYWORD, word="STOP")
    for first in range(0, FLOOD, GROUP):
        now_us = time.time_ns() // 1000
        events = [
            Event(
                id=derived_id("event", tenant.registration, str(n)),
                tenant_id=tenant.id,
                registration=tenant.registration,
                channel="twilio",
                provider="twilio",
                kind=event_pb2.EVENT_KIND_INBOUND,
                message_id=new_sid(),
                recipient=_number(n),
                recipient_family=event_pb2.ADDRESS_FAMILY_PHONE,
                sender=OWN_NUMBER,
                occurred_at_us=now_us,
                received_at_us=now_us,
                occurred_at_basis=event_pb2.TIME_BASIS_PROVIDER,
                verification=callback_pb2.VERIFICATION_VERIFIED,
                consent=consent,
                text="STOP",
            )
            for n in range(first, first + GROUP)
        ]
        await js.publish(subject, EventBatch(events=events).SerializeToString())


async def test_a_flood_of_stops_keeps_nobody_elses_stop_waiting_and_no_copy_from_answering(pair: Pair) -> None:
    flooded, quick = await pair.two_tenants()
    client = await broker.connect(pair.stack.nats_url)
    over = asyncio.Event()
    asked: list[float] = []
    others: list[str] = []

    async def keep_asking(copy: Copy) -> None:
        while not over.is_set():
            began = time.perf_counter()
            verdict = await copy.verdict(quick, QUIET)
            asked.append(time.perf_counter() - began)
            if verdict != ALLOWED:
                others.append(f"{verdict} by {copy.name}")
            await asyncio.sleep(0.02)

    async def left() -> int:
        info = await client.jetstream().consumer_info("EVENTS", "suppression")
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def stop_holds(number: str) -> float:
        began = time.perf_counter()
        post = quick.twilio.inbound(quick.address("Twilio"), new_sid(), "STOP", sender=number)
        assert (await quick.send(post)).status_code == 200
        for copy in pair.copies:
            while await copy.verdict(quick, number) != SUPPRESSED:
                await asyncio.sleep(0.02)
        return time.perf_counter() - began

    try:
        async with asyncio.TaskGroup() as group:
            for copy in pair.copies:
                group.create_task(keep_asking(copy))
            began = time.perf_counter()
            await _flood(client, flooded)
            delays: list[float] = []
            while await left() > 10:
                delays.append(await stop_holds(_number(len(delays))))
                for copy in pair.copies:
                    assert await asyncio.to_thread(pair.stack.member(copy.name).probe) is None, "not ready"
            took_s = time.perf_counter() - began
            over.set()
        await heard(pair.stack)
        assert len(delays) >= 3, "the flood was too short to show anything"
        assert max(delays) < max(DELAY_S, DELAY_PART * took_s), (delays, took_s)
        assert others == []
        some = [_number(n) for n in range(0, FLOOD, FLOOD // 500)]
        for copy in pair.copies:
            assert set(await copy.verdicts(flooded, some)) == {SUPPRESSED}
    finally:
        over.set()
        await client.close()
