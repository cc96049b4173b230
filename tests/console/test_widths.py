"""Whether tables fit the windows that people have, and say so where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from backhaul_testing.receiver import Receiver
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from simulators.people import Tenant, Town
    from simulators.visiting import Open

LISTS = (
    "messages",
    "events",
    "deliveries",
    "dead-letters",
    "suppressions",
    "changes",
    "subscriptions",
    "communications",
    "replies",
    "channels",
    "keys",
)


async def _usual(tenant: Tenant, told_at: str) -> None:
    """What a tenant has after some hours: of each list some rows."""
    texts = tenant.address("Twilio", communicationId="spring-sale-2026")
    mails = tenant.address("SendGrid", communicationId="spring-sale-2026")
    await tenant.client.subscriptions.create(["message.*"], http={"url": told_at}, name="Reports to the CRM")
    error = {"ErrorCode": "30006", "ErrorMessage": "Landline or unreachable carrier"}
    for sid, person in ((new_sid(), "+4915123456789"), (new_sid(), "+14155550123")):
        await tenant.receive(
            tenant.twilio.status(texts, sid, "sent", to=person),
            tenant.twilio.status(texts, sid, "undelivered", to=person, **error),
        )
        await tenant.message_with("twilio", sid, 2, within_s=60)
    mail = new_message_id()
    bounced = tenant.sendgrid.event(mail, "bounce", email="anna.schmidt@example.com", reason="550 No such user here")
    await tenant.receive(
        tenant.sendgrid.batch(mails, [bounced]),
        tenant.sendgrid.signed(mails, b'[{"event": "delivered"'),
        tenant.reply("+14155550123", "Please do not write to me again"),
    )
    await tenant.message_with("sendgrid", mail, 1, within_s=60)
    await tenant.client.suppress("+4915123456780", "manual", note="By telephone")

    async def there() -> bool:
        told = [one async for one in tenant.client.deliveries.list()]
        replies = [one async for one in tenant.client.replies()]
        rows = [one async for one in tenant.client.suppressions()]
        return len(told) >= 5 and len(replies) == 1 and len(rows) >= 3 and len(await tenant.dead_letters()) == 1

    await until("a row in each list", there, within_s=60)


@pytest.mark.browser
async def test_lists_fit_a_window_of_1280_pixels(town: Town, opened: Open) -> None:
    tenant = await town.platform.register()
    async with Receiver() as receiver:
        await _usual(tenant, receiver.url("/told"))
    browser = await opened(viewport={"width": 1280, "height": 800})
    await browser.sign_in(tenant.api_key)
    too_wide: dict[str, list[int]] = {}
    for path in LISTS:
        await browser.go(f"/console/t/{tenant.id}/{path}")
        over = await browser.page.evaluate(
            "[...document.querySelectorAll('.scroll')].map((one) => one.scrollWidth - one.clientWidth)"
        )
        assert over, f"{path} has no table"
        too_wide |= {path: over} if max(over) > 0 else {}
    assert not too_wide

    # In a smaller window what a row is about stays in sight, and there is a shadow where there is more.
    await browser.page.set_viewport_size({"width": 800, "height": 800})
    await browser.go(f"/console/t/{tenant.id}/messages")
    table = browser.page.get_by_role("region", name="Messages")
    first, second = (table.locator("tbody td").nth(column) for column in range(2))
    stays, goes = await first.bounding_box(), await second.bounding_box()
    await table.evaluate("(one) => one.scrollTo(one.scrollWidth, 0)")
    assert await first.bounding_box() == stays
    assert await second.bounding_box() != goes
    shades = await table.evaluate("(one) => getComputedStyle(one).backgroundAttachment")
    assert shades.startswith("local, local, scroll, scroll")
