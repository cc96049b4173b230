"""Messages, events, the live tail, and what became of one message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from backhaul_console import choices
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from simulators.people import Tenant, Town
    from simulators.visiting import Open, Visitor

HOSTILE = "<img src=x onerror=alert(1)>\"'&\u202e\r\n"
PERSON = "+15005550001"


async def sent(tenant: Tenant, *words: str, sid: str = "", person: str = PERSON, **custom: str) -> str:
    """A message of the tenant's at Twilio that went through these states."""
    sid = sid or new_sid()
    address = tenant.address("Twilio", communicationId="spring-sale", **custom)
    more = {"ErrorCode": "30006", "ErrorMessage": HOSTILE} if words[-1] in ("undelivered", "failed") else {}
    await tenant.receive(*(tenant.twilio.status(address, sid, word, to=person, **more) for word in words))
    await tenant.message_with("twilio", sid, len(words))
    return sid


async def test_messages_are_found_by_each_filter(town: Town, visitor: Visitor) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    good = await sent(tenant, "sent", "delivered")
    bad = await sent(tenant, "sent", "undelivered", person="+15005550009")
    foreign = await sent(other, "sent")
    await visitor.sign_in(tenant.api_key)
    pages = f"/console/t/{tenant.id}"
    await visitor.go(f"{pages}/messages")
    assert visitor.status == 200
    assert [row[3] for row in visitor.rows("Messages")] == [bad, good]
    assert foreign not in visitor.text
    asked: tuple[tuple[dict[str, Any], list[str]], ...] = (
        ({"state": "delivered"}, [good]),
        ({"fulfilment_state": "undelivered"}, [bad]),
        ({"recipient": "+1 500 555 0009"}, [bad]),
        ({"error_code": "30006"}, [bad]),
        ({"message_id": good}, [good]),
        ({"communication": "spring-sale", "channel": "Twilio"}, [bad, good]),
        ({"channel": "SendGrid"}, []),
        ({"from": "2h"}, [bad, good]),
        ({"to": "2h"}, []),
        ({"from": "2026-01-01", "to": "2026-01-02T00:00Z"}, []),
    )
    for filters, found in asked:
        await visitor.go(f"{pages}/messages")
        await visitor.submit("/messages", **filters)
        assert visitor.status == 200, visitor.text
        rows = visitor.rows("Messages")
        assert [row[3] for row in rows if len(row) > 1] == found, filters
        # The form shows what was asked for, so that it can be changed.
        for name, value in filters.items():
            field = visitor.page.select_one(f'form.filters [name="{name}"]')
            assert field is not None
            chosen = field.select_one("option[selected]") if field.name == "select" else field
            assert chosen is not None
            assert chosen["value"] == value
    await visitor.go(f"{pages}/messages?from=yesterday&recipient={quote(HOSTILE)}")
    assert visitor.status == 422
    assert "how long ago" in visitor.main
    await visitor.go(f"{pages}/messages?state=nonsense")
    assert visitor.status == 422
    assert "nonsense" in visitor.main


async def test_what_can_be_chosen_is_what_the_api_takes(town: Town) -> None:
    paths = (await town.http.get(f"{town.platform.base_url}/openapi.json")).json()["paths"]
    taken = {one["name"]: one["schema"].get("enum") for one in paths["/v1/messages"]["get"]["parameters"]}
    assert set(taken["state"]) == {"", *choices.KINDS}
    assert set(taken["fulfilment_state"]) == {"", *choices.FULFILMENT}


async def test_lists_go_on_page_by_page(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    address = tenant.address("SendGrid")
    ids = [new_message_id() for _ in range(60)]
    await tenant.receive(tenant.sendgrid.batch(address, [tenant.sendgrid.event(one, "delivered") for one in ids]))

    async def all_there() -> bool:
        return len(await tenant.messages()) == len(ids)

    await until("all messages", all_there)
    await visitor.sign_in(tenant.api_key)
    for path, label, column in (("messages", "Messages", 3), ("events", "Events", 2)):
        await visitor.go(f"/console/t/{tenant.id}/{path}?from=2h&channel=SendGrid")
        first = {row[column] for row in visitor.rows(label)}
        await visitor.follow("Older")
        assert visitor.status == 200, visitor.text
        second = {row[column] for row in visitor.rows(label)}
        assert (len(first), len(second), len(first | second)) == (50, 10, 60)
        assert "Older" not in visitor.main


async def test_one_message_is_shown_in_three_views(town: Town, visitor: Visitor) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    made = await tenant.client.subscriptions.create(["message.*"], http={"url": "https://example.com/told"})
    await tenant.client.subscriptions.pause(made.id)
    sid = await sent(tenant, "sent", "undelivered", secret="<b>blue</b>")
    await tenant.receive(tenant.reply(PERSON, "STOP", MessagingServiceSid="", OriginalRepliedMessageSid=sid))

    async def known() -> bool:
        told = [one async for one in tenant.client.deliveries.list(channel="twilio", message_id=sid)]
        record = await tenant.client.suppression_record(PERSON)
        replies = [one async for one in tenant.client.replies(recipient=PERSON)]
        return len(told) == 2 and len(record.history) == 2 and len(replies) == 1

    await until("all that follows from it", known)
    await visitor.sign_in(tenant.api_key)
    await visitor.go(f"/console/t/{tenant.id}/messages")
    await visitor.follow(sid)
    assert visitor.status == 200, visitor.text
    assert [row[0] for row in visitor.rows("What happened")] == ["sent", "undelivered"]
    for told in (PERSON, "spring-sale", "30006", "secret=<b>blue</b>", "<img src=x onerror=alert(1)>"):
        assert told in visitor.main, told
    assert not visitor.page.select("main img, main b")
    (link,) = [link for link in visitor.page.select("dl a") if "twilio" in link.get_text()]
    assert str(link["href"]).startswith("https://")
    assert link["rel"] == ["noreferrer", "noopener"]

    await visitor.follow("Timeline")
    steps = [" ".join(step.get_text(" ").split()) for step in visitor.page.select("ol.history h3")]
    assert steps[:2] == ["sent", "undelivered"]
    # Of an error that says so, and of the word STOP.
    assert sorted(steps[2:]) == ["reply", "suppressed", "suppressed", "waiting", "waiting"], steps
    assert "signature verified" in visitor.main
    await visitor.follow("Raw")
    (shown,) = visitor.page.select("main pre")
    assert json.loads(shown.get_text())["message"]["message_id"] == sid
    # A reference that several have leads to them; what is nobody's, or another tenant's, is not there.
    await visitor.go(f"/console/t/{tenant.id}/messages/twilio/{new_sid()}")
    assert visitor.status == 404
    await visitor.sign_in(other.api_key)
    await visitor.go(f"/console/t/{other.id}/messages/twilio/{sid}")
    assert visitor.status == 404


async def test_what_is_said_of_a_calls_number_is_looked_for_among_calls(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    call = new_sid("CA")
    await tenant.receive(
        tenant.twilio.call(tenant.address("Twilio"), call, "failed", 0, to=PERSON, SipResponseCode="404")
    )

    async def known() -> bool:
        return bool((await tenant.client.suppression_record(PERSON, family="voice")).history)

    await until("the number does not exist", known, within_s=60)
    await visitor.sign_in(tenant.api_key)
    await visitor.go(f"/console/t/{tenant.id}/messages/twilio/{call}?view=timeline")
    assert [step.get_text(strip=True) for step in visitor.page.select("ol.history h3")][-1] == "suppressed"
    links = [str(link["href"]) for link in visitor.page.select('main a[href*="/suppressions?"]')]
    assert len(links) == 2
    for link in links:
        await visitor.go(link)
        assert [row[1] for row in visitor.rows("Why, and since when")] == ["suppressed"], link
    # Of texts to the same number it is not said, and the one page leads to the other.
    await visitor.go(f"/console/t/{tenant.id}/suppressions?address=%2B{PERSON[1:]}")
    assert [row[0] for row in visitor.rows("Why, and since when")] == [
        "Nothing is known against contacting this address."
    ]
    await visitor.follow("What is known of calls to it")
    assert [row[1] for row in visitor.rows("Why, and since when")] == ["suppressed"]


@pytest.mark.browser
async def test_a_browser_shows_each_page_and_follows_what_comes(town: Town, opened: Open) -> None:
    from simulators.visiting import LOOKS

    tenant = await town.platform.register()
    sid = await sent(tenant, "sent", "undelivered", more=HOSTILE)
    await tenant.receive(tenant.reply(PERSON, HOSTILE))
    pages = f"/console/t/{tenant.id}"
    here = f"{pages}/messages/twilio/{sid}"
    for context in LOOKS:
        browser = await opened(**context)
        await browser.sign_in(tenant.api_key)
        for path in (
            f"{pages}/messages",
            f"{pages}/messages?from=never",
            f"{pages}/events",
            f"{pages}/events?live=1",
            here,
            f"{here}?view=timeline",
            f"{here}?view=raw",
        ):
            await browser.go(path)
            await browser.accessible()
            await browser.fits()
            browser.wrong[:] = [one for one in browser.wrong if "422" not in one]

    page = browser.page
    await browser.go(f"{pages}/events?live=1")
    await page.get_by_text("Following.").wait_for()
    first = await sent(tenant, "sent")
    await page.get_by_role("link", name=first).wait_for()
    await page.get_by_role("button", name="Pause").press("Enter")
    second = await sent(tenant, "sent", sid=f"<b>{HOSTILE}")
    await page.get_by_role("button", name="Resume (1 new)").press("Enter")
    await page.locator("#rows tr").nth(1).wait_for()
    assert await page.locator("#rows tr a.id").all_inner_texts() == [second.strip(), first]
    assert await page.locator("#rows b, #rows img").count() == 0
    await page.locator("#rows tr a.id").first.click()
    await page.get_by_role("heading", name="<b>").wait_for()
