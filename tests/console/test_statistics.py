"""How many events and messages there were, and which errors were told of, as the console shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid

if TYPE_CHECKING:
    from simulators.people import Tenant, Town
    from simulators.visiting import Open, Visitor

_DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Waits until the browser has drawn what it was told."""

HOSTILE = '"><script>alert(1)</script> 30%'


async def some_events(tenant: Tenant) -> None:
    """Two messages that failed, one of them with an error that nobody knows; one that was delivered; a mail."""
    sids, mail = [new_sid() for _ in range(3)], new_message_id()
    address = tenant.address("Twilio", communicationId=HOSTILE)
    await tenant.receive(
        tenant.twilio.status(address, sids[0], "failed", ErrorCode="30006"),
        tenant.twilio.status(address, sids[1], "failed", ErrorCode=HOSTILE),
        tenant.twilio.status(address, sids[2], "sent"),
        tenant.twilio.status(address, sids[2], "delivered"),
        tenant.sendgrid.batch(tenant.address("SendGrid"), [tenant.sendgrid.event(mail, "delivered")]),
    )
    for sid, events in zip(sids, (1, 1, 2), strict=True):
        await tenant.message_with("twilio", sid, events, within_s=60)
    await tenant.message_with("sendgrid", mail, 1, within_s=60)


async def test_numbers_are_a_table_however_they_are_split(town: Town, visitor: Visitor) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    await some_events(tenant)
    await visitor.sign_in(tenant.api_key)
    page = f"/console/t/{tenant.id}/statistics"

    async def told(**query: str) -> tuple[list[str], list[int]]:
        await visitor.go(page)
        await visitor.submit("/statistics", None, **query)
        assert visitor.status == 200, visitor.text
        # Who cannot see the chart is told the same.
        (plot,), (caption,) = visitor.page.select(".plot"), visitor.page.select("figcaption")
        assert plot["aria-label"] == " ".join(caption.get_text().split())
        assert plot.get_text() == ""
        heads = [head.get_text() for head in visitor.page.select("main thead th")][1:]
        counts = [[int(cell) for cell in row[1:]] for row in visitor.rows("Numbers")]
        # The hour may have changed meanwhile.
        return heads, [sum(column) for column in zip(*counts, strict=True)]

    every = ["Events", "Messages", "Events by machines", "Messages opened", "Messages clicked"]
    for span in ("24h", "7d", "30d", "365d"):
        assert await told(span=span) == (every, [5, 4, 0, 0, 0])
    assert "Events: 5 in all." in visitor.main
    assert await told(group_by="channel") == (["twilio", "sendgrid"], [4, 1])
    assert await told(group_by="channel", measure="messages") == (["twilio", "sendgrid"], [3, 1])
    assert await told(group_by="communication") == ([HOSTILE, "Of no communication"], [4, 1])
    assert await told(group_by="kind", measure="messages") == (["delivered", "failed", "sent"], [2, 2, 1])
    assert await told(group_by="fulfilment_state") == (["Delivered", "Failed"], [2, 2])
    assert await told(group_by="kind", channel="SendGrid") == (["delivered"], [1])
    assert await told(communication=HOSTILE, group_by="channel") == (["twilio"], [4])
    assert "<script>alert" not in str(visitor.page)

    await visitor.submit("/statistics", until="2026-01-01", communication="", group_by="", channel="")
    assert visitor.rows("Numbers") == [["Nothing was counted in this time."]]
    await visitor.follow("Earlier")
    assert "until=2025-12-31" in visitor.url
    await visitor.follow("Later")
    assert "until=2026-01-01" in visitor.url
    await visitor.go(page + "?until=yesterday")
    assert visitor.status == 422
    assert "Write it like 2026-03-01." in visitor.main

    await visitor.sign_in(other.api_key)
    await visitor.go(f"/console/t/{other.id}/statistics?span=30d")
    assert visitor.rows("Numbers") == [["Nothing was counted in this time."]]


async def test_errors_say_what_they_mean_and_lead_to_their_messages(town: Town, visitor: Visitor) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    await some_events(tenant)
    await visitor.sign_in(tenant.api_key)
    await visitor.go(f"/console/t/{tenant.id}/errors")
    rows = {row[0]: row[1:] for row in visitor.rows("Errors")}
    assert {*rows} == {"30006", HOSTILE}
    assert rows["30006"][1] == "1"
    assert "The address will never work." in rows["30006"][2]
    assert rows[HOSTILE][2].startswith("This code is not known.")
    links = [str(link["href"]) for link in visitor.page.select("main td a")]
    outside = [link for link in links if not link.startswith("/console/")]
    assert outside
    assert all(link.startswith("https://") for link in outside)
    # Of the same span as the count.
    assert any(
        link.startswith(f"/console/t/{tenant.id}/messages?channel=twilio&error_code=30006&from=") for link in links
    )
    assert "<script>alert" not in str(visitor.page)

    await visitor.submit("/errors", error_code=HOSTILE, span="7d", channel="Twilio")
    assert [row[0] for row in visitor.rows("Errors")] == [HOSTILE]
    await visitor.submit("/errors", channel="SendGrid")
    assert visitor.rows("Errors") == [["No error was told of in this time."]]
    await visitor.sign_in(other.api_key)
    await visitor.go(f"/console/t/{other.id}/errors")
    assert visitor.rows("Errors") == [["No error was told of in this time."]]


async def test_the_overview_has_the_last_hours(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await some_events(tenant)
    await visitor.sign_in(tenant.api_key)
    assert sum(int(row[1]) for row in visitor.rows("Events by the hour")) == 5
    bars = visitor.page.select("svg.hours rect")
    assert len(bars) == 24
    (chart,) = visitor.page.select("svg.hours")
    assert str(chart["aria-label"]).startswith("Events: 5 in all.")
    # What only asks for what changes is not made to count again.
    await visitor.go(visitor.url, **{"hx-request": "true"})
    assert visitor.page.select("#now")
    assert not visitor.page.select("svg.hours")
    await visitor.go(visitor.url + "?part=hours", **{"hx-request": "true"})
    assert visitor.page.select("svg.hours")


async def test_whatever_stands_in_an_address_is_no_error_of_ours(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    queries = [
        "span=x&group_by=x&measure=x&channel=%00&communication=%00",
        "until=0001-01-01",
        "until=9999-12-31",
        "until=2999-12-31&span=365d",
        "until=1971-01-01&span=365d&communication=" + "x" * 600,
        "error_code=%00%FF&span=30d&channel=" + "y" * 600,
        "status=x&registered=x&mode=%00",
        "to=9999-12-31",
        "from=0001-01-01T00:00:00%2B05:00",
        "from=0001-01-01&to=0001-01-01",
        "cursor=x",
    ]
    for page in ("statistics", "errors", "communications", "communications/x", "batches/x", "communications/.."):
        for query in queries:
            await visitor.go(f"/console/t/{tenant.id}/{page}?{query}")
            assert visitor.status in (200, 400, 404, 422), (page, query, visitor.text)
            assert visitor.page.find("h1"), (page, query)


@pytest.mark.browser
async def test_a_browser_draws_the_numbers(town: Town, opened: Open) -> None:
    from simulators.visiting import LOOKS

    tenant = await town.platform.register()
    await some_events(tenant)
    for context in LOOKS:
        browser = await opened(**context)
        await browser.sign_in(tenant.api_key)
        await browser.walk(
            *(
                f"/console/t/{tenant.id}{path}"
                for path in ("", "/statistics", "/statistics?span=30d&group_by=kind", "/errors")
            )
        )
    # Every time on the page is as the visitor chose, those in sentences and in charts too.
    await browser.go(f"/console/t/{tenant.id}")
    await browser.page.get_by_label("Times").select_option("relative")
    assert " UTC" not in await browser.page.locator("main").inner_text()
    titles = await browser.page.locator("svg.hours title").all_text_contents()
    assert titles
    assert not [title for title in titles if "UTC" in title]
    await browser.page.get_by_label("Times").select_option("utc")
    # What is open stays open when the overview tells of new events.
    await browser.go(f"/console/t/{tenant.id}")
    await browser.page.locator("#hours summary").press("Enter")
    await browser.page.locator("#hours td").first.wait_for()
    await some_events(tenant)
    await browser.page.evaluate(
        """() => {
            const path = document.getElementById("hours").getAttribute("hx-get");
            return htmx.ajax("GET", path, { target: "#hours", select: "#hours", swap: "outerMorph" });
        }"""
    )
    await browser.page.get_by_text("Events: 10 in all.").wait_for()
    await browser.page.locator("#hours td").first.wait_for()

    await browser.go(f"/console/t/{tenant.id}/statistics")
    await browser.page.locator(".plot canvas").wait_for()
    await browser.page.get_by_label("Split by").select_option("channel")
    await browser.page.get_by_role("button", name="Show").press("Enter")
    await browser.page.get_by_role("columnheader", name="sendgrid").wait_for()
    # It draws what the table has: wherever the pointer is, the key tells that hour's numbers.
    await browser.page.locator(".key li").first.wait_for()
    assert await browser.page.locator(".key li").count() == 2
    await browser.page.locator(".u-over").scroll_into_view_if_needed()
    plot = await browser.page.locator(".u-over").bounding_box()
    assert plot is not None
    told = 0
    for hour in (22, 23):
        await browser.page.mouse.move(plot["x"] + (plot["width"] - 1) * hour / 23, plot["y"] + 20)
        await browser.page.evaluate(_DRAWN)
        told += int(await browser.page.locator(".key li b").first.text_content() or "0")
    assert told == 8  # Of Twilio; the hour may have changed meanwhile.
