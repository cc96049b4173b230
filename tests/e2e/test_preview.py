"""What the gateway and the normalizer say of a callback before it is sent is what becomes of it when it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_client.models import Event
    from backhaul_testing.posts import Post
    from simulators.people import Town


def lasting(event: Event) -> Event:
    """``event`` without what each request has of its own."""
    kept = msgspec.structs.replace(event, callback_id="", traceparent="", received_at=None)
    return kept if kept.occurred_at_basis == "provider" else msgspec.structs.replace(kept, occurred_at=None)


async def test_what_is_previewed_is_what_comes_of_it(town: Town) -> None:
    tenant = await town.platform.register()
    sms, mails = tenant.address("Twilio", communicationId="spring", category="x"), tenant.address("SendGrid")
    bounced = tenant.sendgrid.event(new_message_id(), "bounce", status="5.1.1", reason="550 no such user")
    posts: list[tuple[str, Post]] = [
        ("Twilio", tenant.twilio.status(sms, new_sid(), "failed", ErrorCode="30006")),
        ("Twilio", tenant.twilio.status(sms, new_sid(), "a word of tomorrow")),
        ("SendGrid", tenant.sendgrid.batch(mails, [tenant.sendgrid.event(new_message_id(), "delivered"), bounced, {}])),
        ("SendGrid", tenant.sendgrid.signed(mails, b"[broken")),
    ]
    shown: dict[str, Event] = {}
    reasons = []
    for label, post in posts:
        found = await tenant.client.preview(label, body=post.body, headers=dict(post.headers), url=post.url)
        assert (found.verification.result, found.answer.status, found.truncated) == ("verified", 200, False)
        shown |= {part.event.id: lasting(part.event) for part in found.parts if part.event is not None}
        reasons += [part.dead_letter for part in found.parts if part.dead_letter]
    assert (await tenant.events(), await tenant.dead_letters()) == ([], [])
    assert (len(shown), len(reasons)) == (4, 2)

    for _, post in posts:
        assert (await tenant.send(post)).status_code == 200

    async def all_of_it() -> bool:
        return len(await tenant.events()) == len(shown) and len(await tenant.dead_letters()) == len(reasons)

    await until("all that was previewed", all_of_it)
    assert {event.id: lasting(event) for event in await tenant.events()} == shown
    assert sorted(letter.reason for letter in await tenant.dead_letters()) == sorted(map(str, reasons))
