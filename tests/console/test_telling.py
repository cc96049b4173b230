"""What a tenant's application is told: subscriptions and deliveries, as people see and change them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from backhaul_testing.endpoints import Call, endpoint
from backhaul_testing.receiver import Receiver
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_client.notificationmodels import Delivery
    from simulators.people import Tenant, Town
    from simulators.visiting import Open, Visitor

HOSTILE = '"><script>alert(1)</script>'
ANSWERED = HOSTILE + "\N{RIGHT-TO-LEFT OVERRIDE}"


def at(tenant: Tenant, path: str) -> str:
    return f"/console/t/{tenant.id}{path}"


def since(when: str) -> dict[str, Any]:
    """The field from, whose name is a word of Python's."""
    return {"from": when}


async def told(tenant: Tenant, sid: str, state: str) -> Delivery:
    """The delivery about a message, as soon as it is in a state."""
    await tenant.receive(tenant.twilio.status(tenant.address("Twilio"), sid, "sent"))

    async def probe() -> Delivery | None:
        found = tenant.client.deliveries.list(channel="twilio", message_id=sid, state=state)
        return next(iter([one async for one in found]), None)

    return await until(f"a delivery that is {state}", probe, within_s=60)


async def test_one_is_made_by_a_form_that_keeps_what_was_typed(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    await visitor.go(at(tenant, "/subscriptions"))
    await visitor.follow("New subscription")
    typed: dict[str, Any] = {
        "name": HOSTILE,
        "types": "message.snet\nreply.*",
        "http.url": "https://example.com/told",
        "http.headers": "X-One: 1",
        "way": "basic",
        "http.credentials.basic.username": "backhaul",
        "http.credentials.basic.password": "geheim-7",
        "rate_per_s": "a few",
    }
    page = await visitor.submit("/new", **typed)
    assert visitor.status == 422
    assert "This is no whole number." in visitor.text
    page = await visitor.submit("/new", **{**typed, "rate_per_s": "20"})
    assert visitor.status == 422
    wrong = page.select_one('[aria-invalid="true"]')
    assert wrong is not None
    assert wrong["name"] == "types"
    assert wrong.get_text().strip() == typed["types"]
    # A secret is never shown again, and what a stranger may have typed is no markup.
    assert "geheim-7" not in str(page)
    assert not [one for one in page.find_all("script") if not one.get("src")]

    key = page.select_one('[name="idempotency_key"]')
    assert key is not None
    good = {**typed, "types": "message.sent\nreply.*", "rate_per_s": "20"}
    await visitor.submit("/new", **good)
    assert visitor.status == 200, visitor.text
    assert "whsec_" in visitor.main
    assert "whsec_" not in visitor.url
    (made,) = [one async for one in tenant.client.subscriptions.list()]
    assert (made.name, made.types, made.rate_per_s) == (HOSTILE, ("message.sent", "reply.*"), 20)
    assert made.http is not None
    assert made.http.credentials is not None
    assert made.http.credentials.basic is not None
    assert made.http.credentials.basic.username == "backhaul"
    await visitor.follow("I have it: go on")
    assert "whsec_" not in visitor.text
    assert HOSTILE in visitor.text
    assert not [one for one in visitor.page.find_all("script") if not one.get("src")]

    # What is not typed anew stays, and a change that somebody else made meanwhile is not overwritten.
    await visitor.follow("Change")
    stale = visitor.page
    await visitor.submit("/edit", name="Reports")
    assert "Saved." in visitor.text
    (changed,) = [one async for one in tenant.client.subscriptions.list()]
    assert (changed.name, changed.types, changed.rate_per_s) == ("Reports", made.types, 20)
    assert changed.http is not None
    assert [(one.name, one.value) for one in changed.http.headers] == [("X-One", "1")]
    visitor.page = stale
    page = await visitor.submit("/edit", name="Others")
    assert visitor.status == 409
    typed_name = page.select_one('[name="name"]')
    assert typed_name is not None
    assert typed_name["value"] == "Others"


async def test_it_is_tested_paused_resumed_and_sent_again(town: Town, visitor: Visitor) -> None:
    async def hostile(call: Call) -> None:
        await call.answer(ANSWERED.encode(), 500 if "/bad" in call.head else 200)

    tenant = await town.platform.register()
    async with endpoint(hostile) as server:
        made = await tenant.client.subscriptions.create(
            ["message.*"],
            http={"url": server.url("/bad")},
            policy={"kind": "custom", "timeout_s": 5},
        )
        await visitor.sign_in(tenant.api_key)
        await visitor.go(at(tenant, f"/subscriptions/{made.id}"))
        await visitor.submit("/test", type="message.delivered")
        assert "500" in visitor.main
        assert HOSTILE in visitor.main
        assert not [one for one in visitor.page.find_all("script") if not one.get("src")]

        sid = f"{HOSTILE}/../a b?c#d"
        delivery = await told(tenant, sid, "failed")
        await visitor.go(at(tenant, f"/deliveries/{delivery.id}"))
        assert "Try 1" in visitor.main
        assert HOSTILE in visitor.main
        await visitor.follow("all that was told of it")
        assert [sid in row[4] for row in visitor.rows("Deliveries")] == [True]
        assert not [one for one in visitor.page.find_all("script") if not one.get("src")]
        await visitor.go(at(tenant, "/deliveries?reason=5xx"))
        assert [row[1] for row in visitor.rows("Deliveries")] == ["message.sent"]
        await visitor.go(at(tenant, "/deliveries?reason=timeout"))
        assert "No deliveries fit." in visitor.main

        # Those that fit, counted first: what is sent is what was counted.
        await visitor.go(at(tenant, f"/deliveries?state=failed&subscription_id={made.id}&from=2020-01-01"))
        await visitor.follow("All that fits, counted first…")
        assert parse_qs(urlsplit(visitor.url).query)["which"] == ["failed"]
        await visitor.submit("/redeliver", **since("tomorrow"))
        assert (visitor.status, "This is no time." in visitor.text) == (422, True)
        await visitor.submit("/redeliver", **since("2020-01-01"))
        assert "Deliveries 1" in visitor.main
        assert (await tenant.client.deliveries.get(delivery.id)).attempts == 1
        await tenant.client.subscriptions.replace(made.id, ["message.*"], http={"url": server.url("/good")})
        await visitor.submit("/redeliver/now")
        assert "sent again" in visitor.main

        async def delivered() -> bool:
            return bool((await tenant.client.deliveries.get(delivery.id)).state == "delivered")

        await until("it is delivered", delivered, within_s=60)

        await visitor.go(at(tenant, f"/subscriptions/{made.id}"))
        await visitor.follow("Pause…")
        assert "called no more" in visitor.main
        assert (await tenant.client.subscriptions.get(made.id)).state == "active"
        await visitor.submit("/pause")
        assert "what happens now waits" in visitor.text
        waiting = await told(tenant, new_sid(), "waiting")
        await visitor.go(at(tenant, f"/subscriptions/{made.id}"))
        await visitor.follow("Resume…")
        assert "Waiting 1" in visitor.main
        await visitor.submit("/resume", rate_per_s="5000")
        assert visitor.status == 422
        await visitor.submit("/resume", rate_per_s="50")
        assert (await tenant.client.subscriptions.get(made.id)).state == "active"

        async def sent() -> bool:
            return bool((await tenant.client.deliveries.get(waiting.id)).state == "delivered")

        await until("what waited is delivered", sent, within_s=60)
        await visitor.go(at(tenant, "/deliveries"))
        await visitor.submit("/deliveries/again")
        assert "2 deliveries are sent again" in visitor.main
        await visitor.submit("/deliveries/again/now")
        assert "sent again" in visitor.text

        # Where it breaks off, the page says how many were sent; all of it leads back to the list as it was asked for.
        asked = {"subscription_id": [made.id], "undelivered": [], "type": ["message.sent"]}
        await visitor.go(at(tenant, f"/deliveries?subscription_id={made.id}&type=message.sent"))
        await visitor.submit("/deliveries/again")
        await visitor.submit("/deliveries/again/now", ids=f"{delivery.id} no-id {waiting.id}")
        assert (visitor.status, "Sent again 1 Not sent 2" in visitor.main) == (422, True)
        await visitor.submit("/deliveries/again/now", ids=waiting.id)
        assert "sent again" in visitor.text
        query = parse_qs(urlsplit(visitor.url).query)
        assert {name: query.get(name, []) for name in asked} == asked

    await visitor.go(at(tenant, f"/subscriptions/{made.id}/rotate"))
    await visitor.submit("/rotate", grace_s="x")
    assert visitor.status == 422
    await visitor.submit("/rotate")
    assert "whsec_" in visitor.main
    await visitor.go(at(tenant, f"/subscriptions/{made.id}"))
    assert "whsec_" not in visitor.text
    await visitor.follow("Delete…")
    assert [one.id async for one in tenant.client.subscriptions.list()] == [made.id]
    await visitor.submit("/delete")
    assert "Deleted." in visitor.text
    assert [one async for one in tenant.client.subscriptions.list()] == []


async def test_a_key_that_only_reads_and_another_tenant_change_nothing(town: Town, visitor: Visitor) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    made = await tenant.client.subscriptions.create(["message.*"], http={"url": "https://example.com/told"})
    reading = await tenant.client.add_key(scopes=["read"])
    await visitor.sign_in(reading.key)
    page = await visitor.go(at(tenant, f"/subscriptions/{made.id}"))
    assert [one["action"] for one in page.select("main form")] == []
    assert "Delete…" not in visitor.text
    await visitor.go(at(tenant, f"/subscriptions/{made.id}/delete"))
    await visitor.submit("/delete")
    assert visitor.status == 403
    await visitor.go(at(tenant, "/subscriptions/types"))
    assert "message.delivered" in visitor.main
    await visitor.follow("message.delivered")
    assert "occurred_at" in visitor.text

    await visitor.sign_in(other.api_key)
    await visitor.go(at(other, "/subscriptions"))
    assert made.id not in str(visitor.page)
    for path in ("", "/edit", "/redeliver", "/rotate", "/resume", "/delete"):
        await visitor.go(at(other, f"/subscriptions/{made.id}{path}"))
        assert visitor.status == 404, path


@pytest.mark.browser
async def test_a_browser_finds_nothing_wrong_and_makes_one(town: Town, opened: Open) -> None:
    from simulators.visiting import LOOKS

    tenant = await town.platform.register()
    async with Receiver() as receiver:
        made = await tenant.client.subscriptions.create(
            ["message.*"],
            http={"url": receiver.url("/told"), "credentials": {"basic": {"username": "u", "password": "p"}}},
            name="Reports",
            filter={"channels": ["Twilio"]},
            policy={"kind": "custom", "retry_after_s": [1, 60], "timeout_s": 5},
        )
        delivery = await told(tenant, new_sid(), "delivered")
        one = f"/subscriptions/{made.id}"
        paths = ["/subscriptions", "/subscriptions/types", "/subscriptions/types?type=message.sent"]
        paths += [
            "/subscriptions/new",
            one,
            *(f"{one}/{page}" for page in ("edit", "pause", "resume", "rotate", "redeliver")),
        ]
        paths += [f"{one}/delete", "/deliveries", f"/deliveries/{delivery.id}"]
        for context in LOOKS:
            browser = await opened(**context)
            await browser.sign_in(tenant.api_key)
            await browser.walk(*(at(tenant, path) for path in paths))
        await browser.go(at(tenant, "/subscriptions/new"))
        await browser.page.get_by_label("What to tell").fill("message.sent")
        await browser.page.get_by_label("Address", exact=False).first.fill("https://example.com/told")
        await browser.page.get_by_role("button", name="Make it").press("Enter")
        await browser.page.get_by_text("whsec_").wait_for()
        await browser.accessible()
