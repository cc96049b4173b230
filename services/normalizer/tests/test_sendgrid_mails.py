"""SendGrid's mails by their several names, from stored callbacks to messages, in every order of arrival."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from backhaul_common.names import EVENTS_COLLECTION, MESSAGES_COLLECTION
from backhaul_testing import make
from normalizer_rig import Rig

SMTP = "m1@geopod-ismtpd-1"
OWN = {"message_id_from": ["my_message_id"]}


def event(word: str, who: str, **fields: Any) -> dict[str, Any]:
    return {"event": word, "email": who, "timestamp": 1_700_000_000, "sg_event_id": f"{word}{who}0", **fields}


def mail(word: str, who: str, *, arguments: bool, part: int = 0) -> dict[str, Any]:
    """An event with all that SendGrid has of it; its page shows smtp-id with brackets and without."""
    fields: dict[str, Any] = {"sg_message_id": f"m1.recvd-1.{part}", "smtp-id": f"<{SMTP}>"}
    return event(word, who, **fields, **({"my_message_id": "order-77", "campaign": "spring"} if arguments else {}))


@pytest.mark.parametrize("settings", [{}, OWN], ids=["by default", "by an argument"])
async def test_an_asynchronous_bounce_is_of_the_mail_that_was_delivered(rig: Rig, settings: dict[str, Any]) -> None:
    events = [
        mail("processed", "User@Example.com", arguments=True),
        mail("delivered", "User@Example.com", arguments=True),
        event("bounce", "user@example.com", status="5.1.1", type="bounce", **{"smtp-id": SMTP}),
    ]
    orders = list(permutations(events))
    tenants = [make.tenant(f"t{n}", sendgrid=settings) for n in range(len(orders))]
    await rig.register(*tenants)
    for tenant, order in zip(tenants, orders, strict=True):
        for one in order:
            await rig.publish(tenant, make.callback(tenant, make.sendgrid(one), channel="sendgrid"))
            if order[-1] is one or order[0] is one:
                await rig.drained()  # So that some meet within a batch, and some over a stored message.
    await rig.drained()

    messages = await rig.rows(MESSAGES_COLLECTION)
    named = "order-77:user@example.com" if settings else "m1.recvd-1.0"
    assert sorted((row["registration"], row["message_id"], row["state"]) for row in messages) == sorted(
        (tenant.registration, named, "bounced") for tenant in tenants
    )
    assert {row["event_count"] for row in messages} == {3}
    communications = await rig.communications()
    assert len(communications) == len(tenants)
    for communication in communications:
        assert communication["messages"] == 1
        assert {state: count for state, count in communication["fulfilment"].items() if count} == {"Undelivered": 1}


async def test_one_argument_for_to_and_cc_is_two_messages(rig: Rig) -> None:
    acme = make.tenant("acme", sendgrid=OWN)
    await rig.register(acme)
    events = [
        mail("delivered", "to@example.com", arguments=True, part=0),
        mail("bounce", "cc@example.com", arguments=True, part=1),
    ]
    await rig.publish(acme, make.callback(acme, make.sendgrid(*events), channel="sendgrid"))
    await rig.drained()
    assert {(row["message_id"], row["state"]) for row in await rig.rows(MESSAGES_COLLECTION)} == {
        ("order-77:to@example.com", "delivered"),
        ("order-77:cc@example.com", "bounced"),
    }


async def test_recipients_of_one_smtp_id_are_messages_of_their_own(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    people = [f"{name}@example.com" for name in "abc"]
    words = ("delivered", "bounce", "deferred")
    events = [event(word, who, **{"smtp-id": SMTP}) for word, who in zip(words, people, strict=True)]
    # A bounce that brings neither name is an event, and no message of anybody's.
    nameless = event("bounce", "d@example.com", sg_message_id="", status="5.1.10")
    await rig.publish(acme, make.callback(acme, make.sendgrid(*events, nameless), channel="sendgrid"))
    await rig.drained()
    assert {(row["message_id"], row["state"]) for row in await rig.rows(MESSAGES_COLLECTION)} == {
        ("m1:a@example.com", "delivered"),
        ("m1:b@example.com", "bounced"),
        ("m1:c@example.com", "deferred"),
    }
    assert len(await rig.rows(EVENTS_COLLECTION)) == 4
