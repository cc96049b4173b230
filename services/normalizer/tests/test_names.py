"""One mail by each of its names, as people ask for it, on real servers."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from backhaul_common.names import MESSAGES_COLLECTION
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb

ANNE = "anne@example.com"
SG, SMTP = "abc.filter1.0", f"mail-1@ismtpd-1:{ANNE}"


def mail(event: str, **more: Any) -> dict[str, Any]:
    """An event of SendGrid."""
    return {"event": event, "email": ANNE, "timestamp": 1_772_366_400, "sg_event_id": f"{event}-1", **more}


BY_SMTP_ID = mail("bounce", **{"smtp-id": "<mail-1@ismtpd-1>"})
BY_ITS_ID = mail("delivered", sg_message_id=SG, **{"smtp-id": "<mail-1@ismtpd-1>"})
BY_ARGUMENT = mail("open", sg_message_id=SG, order="7", **{"smtp-id": "<mail-1@ismtpd-1>"})


async def post(rig: Any, make: Any, tenant: Any, *events: dict[str, Any], **more: Any) -> None:
    for event in events:
        await rig.publish(tenant, make.callback(tenant, json.dumps([event]), channel="sendgrid", **more))
        await rig.drained()


async def get(rig: Any, name: str) -> pb.GetMessageResponse:
    found: pb.GetMessageResponse = await rig.stub.GetMessage(
        pb.GetMessageRequest(tenant_id="acme", channel="sendgrid", message_id=name)
    )
    return found


async def listed(rig: Any, name: str, channel: str = "sendgrid") -> tuple[list[str], list[str]]:
    """What the lists of messages and of events answer for a message's name."""
    messages = await rig.stub.ListMessages(pb.ListMessagesRequest(tenant_id="acme", message_id=name))
    events = await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme", channel=channel, message_id=name))
    return [row.message_id for row in messages.messages], sorted(event.provider_status for event in events.events)


@pytest.mark.parametrize("order", list(permutations((BY_SMTP_ID, BY_ITS_ID, BY_ARGUMENT))))
async def test_a_mail_is_found_by_each_of_its_names_however_many_lie_between(rig: Any, make: Any, order: Any) -> None:
    tenant = make.tenant("acme", sendgrid={"message_id_from": ["order"]})
    await rig.register(tenant)
    await post(rig, make, tenant, *order)
    for name in (f"7:{ANNE}", SG, SMTP):
        assert (await get(rig, name)).message.message_id == f"7:{ANNE}"
        assert await listed(rig, name) == ([f"7:{ANNE}"], ["bounce", "delivered", "open"])


async def test_a_chain_of_names_is_followed_to_its_end(rig: Any, make: Any) -> None:
    tenant = make.tenant("acme", sendgrid={"message_id_from": ["order"]})
    await rig.register(tenant)
    # Neither tells all three names.
    await post(rig, make, tenant, BY_SMTP_ID, BY_ITS_ID, mail("open", sg_message_id=SG, order="7"))
    assert len(await rig.rows(MESSAGES_COLLECTION)) == 1
    assert (await get(rig, SMTP)).message.message_id == f"7:{ANNE}"
    assert await listed(rig, SMTP) == ([f"7:{ANNE}"], ["bounce", "delivered", "open"])
