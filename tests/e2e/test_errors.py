"""What an error code means is said wherever the code is shown, and how often it was reported."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from backhaul_client.models import ErrorCounts
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid

if TYPE_CHECKING:
    from simulators.people import Town


async def test_a_code_is_counted_and_explained(town: Town) -> None:
    tenant = await town.platform.register()
    sids, mail = [new_sid(), new_sid()], new_message_id()
    for sid in sids:
        post = tenant.twilio.status(tenant.address("Twilio"), sid, "failed", ErrorCode="30006")
        for _ in range(2):
            assert (await tenant.send(post)).status_code == 200
        failed = await tenant.message_with("twilio", sid, 1)
    bounce = tenant.sendgrid.event(mail, "bounce", status="5.1.1", reason="550 no such user")
    assert (await tenant.send(tenant.sendgrid.batch(tenant.address("SendGrid"), [bounce]))).status_code == 200
    bounced = await tenant.message_with("sendgrid", mail, 1)

    counts = (await tenant.client.errors()).errors
    assert [(one.channel, one.error_code, one.count) for one in counts] == [
        ("twilio", "30006", 2),
        ("sendgrid", "5.1.1", 1),
    ]
    for count, message in zip(counts, (failed, bounced), strict=True):
        assert count.error_class == "hard"
        assert count.text
        assert (count.url or "").startswith("https://")
        assert (message.error_class, message.error_url) == (count.error_class, count.url)
        (event,) = await tenant.events(
            error_code=count.error_code, message_id=message.message_id, channel=message.channel
        )
        assert (event.error_class, event.error_url) == (count.error_class, count.url)
    assert await tenant.client.errors(channel="SendGrid") == ErrorCounts(errors=counts[1:])
    assert await tenant.client.errors(to=datetime.now(UTC) - timedelta(hours=1)) == ErrorCounts(errors=())
