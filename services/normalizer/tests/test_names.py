"""One mail by each of its names, as people ask for it, on real servers."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from backhaul_common.names import JOINS_COLLECTION, MESSAGES_COLLECTION
from backhaul_normalizer.facts import message_key
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_OBSERVED_INVALID
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig

ANNE = "anne@example.com"
SG, SMTP = "abc.filter1.0", f"mail-1:{ANNE}"


def mail(event: str, **more: Any) -> dict[str, Any]:
    """An event of SendGrid."""
    return {"event": event, "email": ANNE, "timestamp": 1_772_366_400, "sg_event_id": f"{event}-1", **more}


BY_SMTP_ID = mail("bounce", **{"smtp-id": "<mail-1@ismtpd-1>"})
BY_ITS_ID = mail("delivered", sg_message_id=SG, **{"smtp-id": "<mail-1@ismtpd-1>"})
BY_ARGUMENT = mail("open", sg_message_id=SG, order="7", **{"smtp-id": "<mail-1@ismtpd-1>"})


async def post(rig: Rig, tenant: Any, *events: dict[str, Any], **more: Any) -> None:
    for event in events:
        await rig.publish(tenant, make.callback(tenant, json.dumps([event]), channel="sendgrid", **more))
        await rig.drained()


async def get(rig: Rig, name: str) -> pb.GetMessageResponse:
    found: pb.GetMessageResponse = await rig.stub.GetMessage(
        pb.GetMessageRequest(tenant_id="acme", channel="sendgrid", message_id=name)
    )
    return found


async def listed(rig: Rig, name: str, channel: str = "sendgrid") -> tuple[list[str], list[str]]:
    """What the lists of messages and of events answer for a message's name."""
    messages = await rig.stub.ListMessages(pb.ListMessagesRequest(tenant_id="acme", message_id=name))
    events = await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme", channel=channel, message_id=name))
    return [row.message_id for row in messages.messages], sorted(event.provider_status for event in events.events)


@pytest.mark.parametrize("order", list(permutations((BY_SMTP_ID, BY_ITS_ID, BY_ARGUMENT))))
async def test_a_mail_is_found_by_each_of_its_names_however_many_lie_between(rig: Rig, order: Any) -> None:
    tenant = make.tenant("acme", sendgrid={"message_id_from": ["order"]})
    await rig.register(tenant)
    await post(rig, tenant, *order)
    for name in (f"7:{ANNE}", SG, SMTP):
        assert (await get(rig, name)).message.message_id == f"7:{ANNE}"
        assert await listed(rig, name) == ([f"7:{ANNE}"], ["bounce", "delivered", "open"])


async def test_a_chain_of_names_is_followed_to_its_end(rig: Rig) -> None:
    tenant = make.tenant("acme", sendgrid={"message_id_from": ["order"]})
    await rig.register(tenant)
    # Neither tells all three names.
    await post(rig, tenant, BY_SMTP_ID, BY_ITS_ID, mail("open", sg_message_id=SG, order="7"))
    assert len(await rig.rows(MESSAGES_COLLECTION)) == 1
    assert (await get(rig, SMTP)).message.message_id == f"7:{ANNE}"
    assert await listed(rig, SMTP) == ([f"7:{ANNE}"], ["bounce", "delivered", "open"])


async def test_what_nobody_verified_takes_no_event_from_its_message(rig: Rig) -> None:
    tenant = make.tenant("acme")
    await rig.register(tenant)
    forged = [
        mail("delivered", sg_event_id=str(number), sg_message_id=f"forged{number}", **{"smtp-id": "mail-1@ismtpd-1"})
        for number in range(8)
    ]
    await post(rig, tenant, BY_SMTP_ID)
    await post(rig, tenant, *forged, verification=VERIFICATION_OBSERVED_INVALID)
    # One of them would be the least.
    found = await get(rig, SMTP)
    assert (found.message.message_id, len(found.timeline)) == (SMTP, 1)
    await post(rig, tenant, BY_ITS_ID)
    await post(rig, tenant, *forged, verification=VERIFICATION_OBSERVED_INVALID)
    found = await get(rig, SG)
    assert [event.provider_status for event in found.timeline] == ["delivered", "bounce"]
    assert found.message.state == event_pb2.EVENT_KIND_BOUNCED
    (join,) = await rig.rows(JOINS_COLLECTION, _id=message_key("acme.1", "sendgrid", SMTP))
    assert join["message_id"] == SG
