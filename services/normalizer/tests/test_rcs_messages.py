"""An RCS message that goes by SMS after all and is answered, from stored callbacks to messages, in many orders."""

from __future__ import annotations

import random
from itertools import permutations

from backhaul_common.names import EVENTS_COLLECTION, MESSAGES_COLLECTION
from backhaul_testing import make
from backhaul_testing.rcs import RcsMessage
from normalizer_rig import Rig

ORDERS = 24


async def test_a_message_by_rcs_and_then_by_sms_is_the_same_in_every_order(rig: Rig) -> None:
    message = RcsMessage(address="", reference="r-1", event_id="e-1", campaign="spring")
    story = [
        message.sent().body,
        message.failed(404, "Device does not support RCS.").body,
        message.by_sms().sent().body,
        message.by_sms().post("DELIVERED").body,
        message.by_sms().said("STOP").body,
    ]
    orders = random.Random(7).sample(list(permutations(story)), ORDERS)  # noqa: S311  # the same ones each time.
    tenants = [make.tenant(f"t{number}", rcs={}) for number in range(ORDERS)]
    await rig.register(*tenants)
    for tenant, order in zip(tenants, orders, strict=True):
        for body in (*order, order[0]):
            await rig.publish(tenant, make.callback(tenant, body, channel="rcs"))
    await rig.drained()

    messages = await rig.rows(MESSAGES_COLLECTION)
    assert {(row["message_id"], row["state"], row["event_count"]) for row in messages if row["state"] != "inbound"} == {
        ("r-1", "delivered", 4)
    }
    assert len([row for row in messages if row["state"] == "inbound"]) == ORDERS
    assert len(messages) == 2 * ORDERS
    assert len(await rig.rows(EVENTS_COLLECTION)) == 5 * ORDERS
    for communication in await rig.communications():
        # The reply is no message of the campaign's.
        assert (communication["communication_id"], communication["messages"]) == ("spring", 1)
        assert {state: count for state, count in communication["fulfilment"].items() if count} == {"Delivered": 1}
