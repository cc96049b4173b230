"""What people write and what a rig has of it, for the tests of replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from backhaul_common.tenants import Tenant
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig

SHOP, PERSON = "+15005550006", "+15005550001"


def inbound(sid: str, text: str, **more: str) -> str:
    """What a person wrote, as Twilio posts it."""
    return urlencode(
        {
            "MessageSid": sid,
            "SmsStatus": "received",
            "Body": text,
            "From": PERSON,
            "To": SHOP,
            "AccountSid": "AC1",
            **more,
        }
    )


async def post(rig: Rig, of: Tenant, *bodies: str, query: str = "", **fields: Any) -> None:
    for body in bodies:
        await rig.publish(of, make.callback(of, body, query=query, **fields))
    await rig.drained()


async def replies(rig: Rig, of: str = "acme", **filters: Any) -> list[Event]:
    return list((await rig.stub.ListReplies(pb.ListRepliesRequest(tenant_id=of, **filters))).replies)


async def counts(rig: Rig, communication: str, of: str = "acme") -> pb.ReplyCounts:
    request = pb.GetCommunicationRequest(tenant_id=of, communication_id=communication)
    return (await rig.stub.GetCommunication(request)).communication.replies


async def held(rig: Rig) -> dict[str, Event]:
    """What a consumer of EVENTS knows: of each event the highest revision."""
    found: dict[str, Event] = {}
    for event in await rig.published():
        if event.id not in found or event.revision >= found[event.id].revision:
            found[event.id] = event
    return found


async def within(condition: Callable[[], Any], *, seconds: float = 20) -> Any:
    """The first true value that ``condition`` gives."""
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
        return found
