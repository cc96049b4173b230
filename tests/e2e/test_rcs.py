"""RCS by both of its providers: what was sent, what became of it, what people answered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_client.models import Communication, Event
from backhaul_testing.posts import Post, over
from backhaul_testing.rbm import AGENT, RbmSimulator
from backhaul_testing.rcs import RcsMessage, deliver_callback
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from simulators.people import Tenant, Town

PROVIDERS = Path(__file__).parents[2] / "libs" / "channels" / "src" / "backhaul_channels" / "providers"
DEVICE_WITHOUT_RCS = "Device does not support RCS."


async def _send_all(tenant: Tenant, *posts: Post) -> None:
    for post in posts:
        assert (await deliver_callback(over(tenant.http), post)).outcomes == [200]


async def _events(tenant: Tenant, count: int, **filters: str) -> list[Event]:
    """The events that ``filters`` let through, as soon as they are ``count``."""

    async def there() -> list[Event] | None:
        found = await tenant.events(**filters)
        return found if len(found) >= count else None

    found = await until(f"{count} events", there)
    assert len(found) == count
    return found


async def test_rcs_from_the_sending_to_the_reply_and_each_callback_twice(town: Town) -> None:
    tenant, neighbour = await town.platform.register(), await town.platform.register()
    for one in (tenant, neighbour):
        await town.platform.client.put_channel(one.id, "RCS")
    message = RcsMessage(address=tenant.address("RCS"))
    reply = message.pressed("REPLY", "Sim", "yes-1")
    # The last comes first, and all of them again.
    story = [
        reply,
        message.post("READ"),
        message.post("DELIVERED"),
        message.sent(),
        message.pressed("CALL", "Ligue", "c"),
    ]
    await _send_all(tenant, *story, *story)
    # Another tenant's message of the same names is another message.
    await _send_all(neighbour, RcsMessage(address=neighbour.address("rcs"), reference=message.reference).sent())

    told = await tenant.message_with("rcs", message.reference, 4)
    assert (told.state, told.fulfilment_state, told.event_count) == ("clicked", "Delivered", 4)
    assert {event.kind for event in told.timeline} == {"sent", "delivered", "read", "clicked"}
    assert {event.verification for event in told.timeline} == {"credential"}
    assert (told.recipient, told.communication_id) == ("+5511987654321", "spring")
    (said,) = await _events(tenant, 1, kind="inbound")
    assert said.reply is not None
    assert (said.reply.message_id, said.reply.payload, said.reply.option) == (message.reference, "yes-1", "Sim")
    assert (said.text, said.recipient) == ("Sim", told.recipient)
    assert said.message_id != message.reference

    async def counted() -> Communication | None:
        found = await tenant.communication("spring")
        return found if found is not None and sum(found.events.values()) == 4 else None

    counts = await until("the campaign's counts", counted)
    assert (counts.messages, counts.fulfilment["Delivered"]) == (1, 1)
    # Whoever knows the sending's own id finds the message too.
    found = await tenant.message("rcs", message.event_id)
    assert found is not None
    assert found.message_id == message.reference
    assert (await neighbour.message_with("rcs", message.reference, 1)).state == "sent"
    assert len(await tenant.events()) == 5
    assert await tenant.dead_letters() == []


async def test_rcs_falls_back_to_sms_and_says_nothing_about_the_person(town: Town) -> None:
    tenant = await town.platform.register()
    await town.platform.client.put_channel(tenant.id, "RCS")
    address = tenant.address("RCS")
    message = RcsMessage(address=address)
    await _send_all(tenant, message.failed(404, DEVICE_WITHOUT_RCS))
    told = await tenant.message_with("rcs", message.reference, 1)
    assert (told.state, told.fulfilment_state, told.error_code) == ("failed", "Failed", "404")

    await _send_all(tenant, message.by_sms().sent(), message.by_sms().post("DELIVERED"))
    told = await tenant.message_with("rcs", message.reference, 3)
    assert (told.state, told.fulfilment_state) == ("delivered", "Delivered")
    ways = {event.kind: {pair.name: pair.value for pair in event.attributes}["channel"] for event in told.timeline}
    assert ways == {"failed": "RCS", "sent": "SMS", "delivered": "SMS"}
    assert not any(event.invalid_recipient for event in told.timeline)

    # The code is part of the fact, and nothing else of an error is.
    twice, duplicate, broke = (RcsMessage(address=address) for _ in range(3))
    await _send_all(
        tenant,
        twice.failed(403, DEVICE_WITHOUT_RCS),
        twice.failed(404, DEVICE_WITHOUT_RCS),
        twice.failed(404, "other words"),
        duplicate.blocked(),
        broke.post("PREPAID_BLOCKED", message="Limite de créditos da conta atingido 4711"),
    )
    told = await tenant.message_with("rcs", twice.reference, 2)
    assert sorted(event.error_code for event in told.timeline) == ["403", "404"]
    assert (await tenant.message_with("rcs", duplicate.reference, 1)).state == "duplicate_blocked"
    blocked = (await tenant.message_with("rcs", broke.reference, 1)).timeline[0]
    assert blocked.kind == "blocked_credit"
    assert ("account_id", "4711") in {(pair.name, pair.value) for pair in blocked.attributes}
    assert len(await tenant.events(channel="rcs")) == 7


async def test_an_rcs_channel_with_a_name_and_a_password_asks_for_both(town: Town) -> None:
    tenant = await town.platform.register()
    secret = {"username": "pontaltech", "password": "long enough to be one"}
    await town.platform.client.put_channel(tenant.id, "RCS", secrets=[secret])
    address = tenant.address("RCS")
    for credentials in (None, ("pontaltech", "another"), ("somebody", secret["password"])):
        assert (await tenant.send(RcsMessage(address=address, credentials=credentials).sent())).status_code == 403
    good = RcsMessage(address=address, credentials=(secret["username"], secret["password"]))
    await _send_all(tenant, good.sent())
    told = await tenant.message_with("rcs", good.reference, 1)
    assert [event.verification for event in told.timeline] == ["verified"]
    assert len(await tenant.events()) == 1


async def test_google_asks_whose_address_it_is_and_then_signs_what_it_posts(town: Town) -> None:
    tenant = await town.platform.register()
    google = RbmSimulator(tenant.address("Google RBM"))
    await town.platform.client.put_channel(tenant.id, "Google RBM", secrets=[google.client_token])
    answer = await tenant.send(google.question("1234567890"))
    assert (answer.status_code, answer.text) == (200, "1234567890")
    impostor = RbmSimulator(google.address)
    assert (await tenant.send(impostor.question("1234567890"))).status_code == 403
    assert (await tenant.send(impostor.event("READ", "m-1"))).status_code == 403
    good = google.event("DELIVERED", "m-1")
    assert (await tenant.send(Post(good.url, good.headers, google.event("READ", "m-1").body))).status_code == 403

    await _send_all(
        tenant,
        google.event("READ", "m-1"),
        good,
        good,
        google.event("IS_TYPING"),
        google.said("u-1", suggestionResponse={"type": "REPLY", "text": "Yes", "postbackData": "yes-1"}),
        google.said("u-2", suggestionResponse={"type": "ACTION", "text": "Open", "postbackData": "url-1"}),
        google.expired("m-2"),
        google.event("UNSUBSCRIBE"),
        google.signed({"agentId": AGENT, "eventId": "l-1", "oldLaunchState": "PENDING", "newLaunchState": "LAUNCHED"}),
        google.signed("no event"),
    )
    # The label RCS means the other provider, unless a channel says otherwise.
    labelled = await town.platform.client.put_channel(tenant.id, "RCS")
    assert labelled.provider == "rcs"
    labelled = await town.platform.client.put_channel(tenant.id, "RCS", provider="google_rbm")
    assert labelled.provider == "google_rbm"

    read = await tenant.message_with("google-rbm", "m-1", 2)
    assert (read.state, [event.verification for event in read.timeline]) == ("read", ["verified"] * 2)
    assert (await tenant.message_with("google-rbm", "m-2", 1)).state == "expired"
    events = await _events(tenant, 7)
    assert sorted(event.kind for event in events) == [
        "clicked", "delivered", "expired", "inbound", "read", "unknown", "unsubscribed",
    ]  # fmt: skip
    kinds = {event.kind: event for event in events}
    assert {event.recipient for event in events if event.kind != "unknown"} == {google.person}
    consent, reply = kinds["unsubscribed"].consent, kinds["inbound"].reply
    assert consent is not None
    assert (consent.action, consent.by) == ("opt_out", "provider")
    assert reply is not None
    assert (reply.payload, reply.option, kinds["inbound"].text) == ("yes-1", "Yes", "Yes")
    # A launch, a click and an unsubscription are of no message.
    assert {row.message_id for row in await tenant.messages()} == {"m-1", "m-2", "u-1"}

    async def filed() -> bool:
        return len(await tenant.dead_letters()) == 1

    await until("the dead letter of what was signed and is no event", filed)


def _cases(provider: str) -> list[dict[str, Any]]:
    files = [
        json.loads(path.read_text("utf-8")) for path in sorted((PROVIDERS / provider / "tests/cases").glob("*.json"))
    ]
    return [case for file in files if isinstance(file, list) for case in file]


@pytest.mark.parametrize(("label", "provider"), [("RCS", "rcs"), ("Google RBM", "google_rbm")])
async def test_every_case_of_the_adapter_goes_through_the_gateway(town: Town, label: str, provider: str) -> None:
    tenant = await town.platform.register()
    # Most cases are signed by nobody.
    await town.platform.client.put_channel(tenant.id, label, verification="off")
    cases = _cases(provider)
    headers = (("Content-Type", "application/json"),)
    posts = [Post(tenant.address(label), headers, case["body"].encode()) for case in cases]
    answers = await asyncio.gather(*(tenant.send(post) for post in posts))
    assert {answer.status_code for answer in answers} == {200}

    facts: dict[tuple[str, str], set[str]] = {}
    for event in [event for case in cases for event in case.get("events", []) if "key" in event]:
        facts.setdefault((event.get("message_id", ""), event["key"]), set()).add(event["kind"])
    letters = sum("error" in case or any("error" in event for event in case["events"]) for case in cases)

    async def all_read() -> bool:
        return len(await tenant.events()) >= len(facts) and len(await tenant.dead_letters()) >= letters

    await until(f"the events of {len(cases)} cases", all_read, within_s=30)
    events = await tenant.events()
    assert len(events) == len(facts)
    assert {event.kind for event in events} == {kind for kinds in facts.values() for kind in kinds}
    assert not any(event.invalid_recipient for event in events)
