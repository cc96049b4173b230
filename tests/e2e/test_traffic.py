"""Signed traffic in, states, timelines and counts out."""

from __future__ import annotations

import asyncio
import itertools
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from backhaul_client.models import Communication, Event, Pair
from backhaul_testing.posts import Post, over
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import RetryRules, new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from simulators.people import Tenant, Town

Json = dict[str, Any]


async def _send_all(tenant: Tenant, posts: list[Post]) -> None:
    for post in posts:
        answer = await tenant.send(post)
        assert answer.status_code == 200, answer.text


async def test_a_message_goes_through_its_states_whatever_the_order_and_however_often(town: Town) -> None:
    tenant = await town.platform.register()
    address = tenant.address("Twilio", communicationId="spring-offer", color="blue")
    in_order, mixed = new_sid(), new_sid()
    words = ("queued", "sent", "delivered")

    await _send_all(tenant, [tenant.twilio.status(address, in_order, word) for word in words])
    repeated = [tenant.twilio.status(address, mixed, word, to="+15005550009") for word in ("delivered", *words, "sent")]
    await _send_all(tenant, repeated)

    for sid, recipient in ((in_order, "+15005550001"), (mixed, "+15005550009")):
        message = await tenant.message_with("tWILIO", sid, 3)
        assert (message.state, message.fulfilment_state) == ("delivered", "Delivered")
        assert (message.recipient, message.communication_id) == (recipient, "spring-offer")
        assert sorted(event.provider_status for event in message.timeline) == sorted(words)
        assert Pair("color", "blue") in message.vars
        assert {event.verification for event in message.timeline} == {"verified"}
    assert [event.kind for event in (await tenant.message_with("twilio", in_order, 3)).timeline] == list(words)

    async def settled() -> Communication | None:
        found = await tenant.communication("spring-offer")
        return found if found is not None and sum(found.events.values()) == 6 else None

    counts = await until("the communication's counts", settled)
    assert counts.messages == 2
    assert counts.events == {"queued": 2, "sent": 2, "delivered": 2}
    assert counts.fulfilment == {
        "Queued": 0, "Sent": 0, "Delivered": 2, "Undelivered": 0, "Failed": 0, "InvalidNumber": 0,
    }  # fmt: skip


async def test_errors_replies_and_events_of_both_providers_are_told_apart(town: Town) -> None:
    tenant = await town.platform.register()
    address = tenant.address("twilio", offerId="o-1")
    landline, wrong, reply, streamed = new_sid(), new_sid(), new_sid(), new_sid()
    twilio = tenant.twilio
    await _send_all(
        tenant,
        [
            twilio.status(address, landline, "failed", ErrorCode="30006"),
            twilio.status(address, wrong, "undelivered", ErrorCode="21614"),
            twilio.inbound(tenant.address("twilio"), reply, "Stop", sender="+15005550002"),
            twilio.cloud_events(
                address,
                [
                    {
                        "specversion": "1.0",
                        "id": "EZ1",
                        "source": "/test",
                        "type": "com.twilio.messaging.message.sent",
                        "data": {"messageSid": streamed, "to": "+15005550003", "messageStatus": "SENT"},
                    }
                ],
            ),
        ],
    )
    first, second = new_message_id(), new_message_id()
    mail = tenant.sendgrid
    post = mail.batch(
        tenant.address("SendGrid"),
        [
            mail.event(first, "processed", campaign="o-1"),
            mail.event(first, "delivered", campaign="o-1"),
            mail.event(first, "click", campaign="o-1", url="https://example.com/"),
            mail.event(second, "bounce", campaign="o-1", type="bounce", status="5.1.1", reason="550 no such user"),
        ],
    )
    await _send_all(tenant, [post, post])

    failed = await tenant.message_with("twilio", landline, 1)
    assert (failed.state, failed.fulfilment_state, failed.error_code) == ("failed", "Failed", "30006")
    assert failed.error_text
    assert (await tenant.message_with("twilio", wrong, 1)).fulfilment_state == "InvalidNumber"
    answered = await tenant.message_with("twilio", reply, 1)
    assert (answered.state, answered.fulfilment_state, answered.recipient) == (
        "inbound", None, "+15005550002",
    )  # fmt: skip
    consent = answered.timeline[0].consent
    assert consent is not None
    assert (consent.action, consent.by, consent.word) == ("opt_out", "keyword", "STOP")
    clicked = await tenant.message_with("sendgrid", first, 3)
    assert (clicked.state, clicked.fulfilment_state, clicked.event_count) == ("clicked", "Delivered", 3)
    bounced = await tenant.message_with("sendgrid", second, 1)
    assert (bounced.fulfilment_state, bounced.error_code) == ("Undelivered", "5.1.1")

    async def settled() -> Communication | None:
        found = await tenant.communication("o-1")
        return found if found is not None and found.messages == 5 else None

    counts = await until("the counts over both channels", settled)
    assert counts.fulfilment == {
        "Queued": 0, "Sent": 1, "Delivered": 1, "Undelivered": 1, "Failed": 1, "InvalidNumber": 1,
    }  # fmt: skip
    assert sum(counts.events.values()) == 7


async def test_filters_give_what_they_name_and_nothing_else(town: Town) -> None:
    tenant = await town.platform.register()
    sids = [new_sid() for _ in range(6)]
    for number, sid in enumerate(sids):
        address = tenant.address("Twilio", communicationId=f"c-{number % 2}")
        fields = {"ErrorCode": "30003"} if number % 3 == 0 else {}
        word = "undelivered" if fields else "delivered"
        await _send_all(
            tenant,
            [
                tenant.twilio.status(address, sid, "sent", to=f"+1500555000{number}"),
                tenant.twilio.status(address, sid, word, to=f"+1500555000{number}", **fields),
            ],
        )
    mail = new_message_id()
    event = tenant.sendgrid.event(mail, "delivered", communicationId="c-0", email="a@example.com")
    await _send_all(tenant, [tenant.sendgrid.batch(tenant.address("SendGrid"), [event])])
    for sid in sids:
        await tenant.message_with("twilio", sid, 2)
    await tenant.message_with("sendgrid", mail, 1)

    async def ids(**filters: Any) -> set[str]:
        return {row.message_id for row in await tenant.messages(**filters)}

    assert await ids() == {*sids, mail}
    assert await ids(channel="SENDGRID") == {mail}
    assert await ids(state="undelivered") == {sids[0], sids[3]}
    assert await ids(fulfilment_state="Delivered", channel="twilio") == {sids[1], sids[2], sids[4], sids[5]}
    assert await ids(recipient="+15005550004") == {sids[4]}
    assert await ids(communication="c-0") == {sids[0], sids[2], sids[4], mail}
    assert await ids(error_code="30003", communication="c-1") == {sids[3]}
    assert await ids(state="queued") == set()

    events = await tenant.events()
    assert len(events) == 13
    expected: tuple[tuple[Json, int], ...] = (
        ({"kind": "sent"}, 6),
        ({"kind": "delivered"}, 5),
        ({"kind": "delivered", "channel": "sendgrid"}, 1),
        ({"message_id": sids[0], "channel": "twilio"}, 2),
        ({"error_code": "30003"}, 2),
        ({"recipient": "a@example.com"}, 1),
        ({"communication": "c-1"}, 6),
    )
    for filters, count in expected:
        found = await tenant.events(**filters)
        assert len(found) == count, filters
        assert {row.id for row in found} <= {row.id for row in events}
    # A time span: inclusive at its start, exclusive at its end, and cutting without a gap.
    times = sorted(_arrival(row) for row in events)
    middle = times[len(times) // 2]
    early, late = await tenant.events(to=middle), await tenant.events(from_=middle)
    assert all(_arrival(row) < middle for row in early)
    assert all(_arrival(row) >= middle for row in late)
    assert early
    assert late
    assert {row.id for row in early} | {row.id for row in late} == {row.id for row in events}

    for what, name in (("messages", "state"), ("events", "kind"), ("events", "cursor"), ("events", "from")):
        refused = await tenant.get(f"/v1/{what}", **{name: "nonsense"})
        assert refused.status_code == 422, name
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["errors"][0]["field"], name


async def test_pages_skip_and_repeat_nothing_while_events_arrive(town: Town) -> None:
    tenant = await town.platform.register()
    address = tenant.address("Twilio")
    old = {new_sid() for _ in range(60)}
    await asyncio.gather(*(tenant.send(tenant.twilio.status(address, sid, "sent")) for sid in old))
    await until("the first events", lambda: _count_is(tenant, len(old)))

    stop = asyncio.Event()
    changing = itertools.cycle(sorted(old))
    written: list[str] = []

    async def news(seen: int) -> bool:
        return len(written) > seen

    async def keep_writing() -> None:
        while not stop.is_set():
            sid = new_sid()
            # New messages, and news of old ones, which must not move them between the pages.
            changed = next(changing)
            for post in (
                tenant.twilio.status(address, sid, "sent"),
                tenant.twilio.status(address, changed, "delivered"),
            ):
                assert (await tenant.send(post)).status_code == 200
            written.append(sid)

    writing = asyncio.create_task(keep_writing())
    try:
        for what in ("events", "messages"):
            for _ in range(2):
                before = len(written)
                rows: list[Json] = []
                cursor = ""
                pages = 0
                while True:
                    pages += 1
                    answer = await tenant.read(f"/v1/{what}", limit=7, cursor=cursor)
                    rows += answer[what]
                    cursor = answer["next_cursor"]
                    # Every page must see news behind it, or else nothing would be tested.
                    await until("news between two pages", partial(news, len(written)))
                    if not cursor:
                        break
                assert pages >= 9
                assert len(written) > before
                keys = [row["id" if what == "events" else "message_id"] for row in rows]
                assert len(set(keys)) == len(keys), f"{what}: a row came twice"
                assert old <= {row["message_id"] for row in rows}, f"{what}: a row was skipped"
    finally:
        stop.set()
        await writing


async def test_a_provider_that_tries_again_is_counted_once(town: Town) -> None:
    tenant = await town.platform.register()
    sid = new_sid()
    address = tenant.address("Twilio", fragment="rc=5&rp=all", communicationId="retried")
    post = tenant.twilio.status(address, sid, "sent")
    # The channel is not there yet, so the first tries are refused; the retries that the fragment asks for arrive.
    await town.platform.client.put_channel(tenant.id, "Twilio", secrets=[])
    delivering = asyncio.create_task(tenant.twilio.deliver(over(town.http), post, RetryRules.of(address)))
    await town.platform.client.put_channel(tenant.id, "Twilio", secrets=[tenant.twilio.auth_token])
    delivery = await delivering
    assert delivery.accepted
    assert (await tenant.twilio.deliver(over(town.http), post)).outcomes == [200]

    message = await tenant.message_with("twilio", sid, 1)
    # What was accepted after it has been processed too: the broker keeps the order of one channel.
    last = new_sid()
    await _send_all(tenant, [tenant.twilio.status(address, last, "sent")])
    await tenant.message_with("twilio", last, 1)
    message = await tenant.message_with("twilio", sid, 1)
    assert message.event_count == 1
    counts = await tenant.communication("retried")
    assert counts is not None
    assert counts.events == {"sent": 2}


def _arrival(event: Event) -> datetime:
    assert event.received_at is not None
    return event.received_at


async def _count_is(tenant: Tenant, count: int) -> bool:
    return len(await tenant.events()) >= count
