"""A sample of each provider's callbacks, sent from a channel's page and followed into the timeline of its message."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_samples import PROVIDERS
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from bs4 import BeautifulSoup
    from simulators.people import Tenant, Town
    from simulators.visiting import Open, Visitor

HOSTILE = 'a/b?c#d %\N{RIGHT-TO-LEFT OVERRIDE}"><script>alert(1)</script>'


def at(tenant: Tenant, path: str) -> str:
    return f"/console/t/{tenant.id}{path}"


def posts(page: BeautifulSoup) -> list[str]:
    """Where the forms of a page post to."""
    return [str(form["action"]) for form in page.select("main form[method=post]")]


def seen(visitor: Visitor) -> str:
    """All that a browser has of a page."""
    return f"{visitor.url} {visitor.page}"


async def followed(visitor: Visitor) -> None:
    """Load the page of a sample that was sent again until its event can be read, and follow that to its message."""
    where = visitor.url

    async def readable() -> bool:
        await visitor.go(where)
        assert visitor.status == 200, visitor.text
        return "Its event is in the timeline of its message." in visitor.main

    await until("the sample's event", readable, within_s=60)
    (link,) = visitor.page.select("main dl.facts a")
    await visitor.go(str(link["href"]))
    assert visitor.status == 200, visitor.text


@pytest.mark.parametrize("name", sorted(PROVIDERS))
async def test_the_first_sample_of_each_provider_is_sent_and_followed(name: str, town: Town, visitor: Visitor) -> None:
    tenant, provider = await town.platform.register(), PROVIDERS[name]
    pair = provider.trying("of this test") if provider.trying is not None else None
    made = await tenant.client.put_channel(
        "Our own",
        provider=name,
        secrets=[pair.verifies] if pair is not None else [],
        verification="observe" if provider.is_public else "enforce",
    )
    event = next(iter(provider.events))
    await visitor.sign_in(tenant.api_key)
    await visitor.go(at(tenant, "/channels/Our%20own"))
    await visitor.follow("Send a sample…")
    await visitor.submit("/sample", event=event)
    assert visitor.status == 200, visitor.text
    assert "What would become of it" in visitor.main
    assert await tenant.events() == []
    asks = visitor.page.select("main input[type=password]")
    assert bool(asks) == (pair is not None and not provider.is_public)
    (form,) = visitor.page.select("main form[method=post]")
    message_id = str(form.select("input[name=message]")[0]["value"])
    typed: dict[str, Any] = {"secret": pair.signs} if pair is not None and asks else {}
    page = await visitor.submit("/sample/send", **typed)
    assert "The sample is stored." in visitor.text, visitor.text
    assert page.select("main form") == []
    await followed(visitor)
    (told,) = await tenant.events()
    assert (told.channel, told.message_id, told.source) == (made.key, message_id, "callback")
    assert told.verification == (
        "observed_invalid" if provider.is_public else "verified" if pair is not None else "credential"
    )
    assert told.message_id in visitor.main


async def test_a_secret_that_does_not_fit_sends_nothing_and_is_kept_nowhere(
    town: Town, installation: Stack, visitor: Visitor
) -> None:
    tenant = await town.platform.register()
    await tenant.client.put_channel("mPulse", secrets=[{"username": "acme", "password": "pass:word"}])
    await visitor.sign_in(tenant.api_key)
    wrong = {"Twilio": "planted-and-wrong \N{SNOWMAN}\x00", "mPulse": "acme:planted-and-wrong"}
    for label, secret in wrong.items():
        await visitor.go(at(tenant, f"/channels/{label}/sample"))
        assert "required" in visitor.page.select("main input[type=password]")[0].attrs
        for typed in (secret, ""):
            await visitor.submit("/sample/send", secret=typed)
            assert (visitor.status, "Nothing was sent." in visitor.main) == (422, True), visitor.text
            assert "planted" not in seen(visitor)
            assert visitor.page.select("main input[aria-invalid]")
        assert (await tenant.client.channel_status(label)).parts.verification.refused == 0
    assert await tenant.events() == []

    # From there it goes on: what fits is taken.
    await visitor.submit("/sample/send", secret="acme:pass:word")
    assert "The sample is stored." in visitor.text
    assert "pass:word" not in seen(visitor)
    await followed(visitor)
    await visitor.go(at(tenant, "/channels/Twilio/sample"))
    await visitor.submit("/sample/send", secret=tenant.twilio.auth_token)
    assert tenant.twilio.auth_token not in seen(visitor)
    await followed(visitor)
    assert len(await tenant.events()) == 2
    assert tenant.twilio.auth_token not in seen(visitor)

    # Nor has the log of changes anything of it, or a service's own.
    changes = [one async for one in tenant.client.changes()]
    assert not [one for one in changes if "postevents" in one.action or "preview" in one.action]
    logs = "".join(service.log_path.read_text("utf-8", "replace") for service in installation.services)
    for secret in ("planted-and-wrong", "pass:word", tenant.twilio.auth_token):
        assert secret not in repr(changes) + logs


async def test_only_sendgrid_signs_as_sendgrid(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    page = await visitor.go(at(tenant, "/channels/SendGrid/sample"))
    assert "Only SendGrid has the key" in visitor.main
    assert "delivered" in visitor.main
    assert posts(page) == []
    token = str(page.select("input[name=form_token]")[0]["value"])
    forced = {"form_token": token, "event": "delivered", "secret": "-----BEGIN"}
    answer = await visitor.post(at(tenant, "/channels/SendGrid/sample/send"), data=forced)
    assert (answer.status_code, "-----BEGIN" in answer.text) == (422, False)
    assert (await tenant.client.channel_status("SendGrid")).parts.verification.refused == 0
    assert await tenant.events() == []


async def test_whoever_may_not_send_is_told_so(town: Town, visitor: Visitor) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    # As an operator opens a tenant's pages.
    opened = await tenant.client.add_key(scopes=["read", "manage"])
    await visitor.sign_in(opened.key)
    page = await visitor.go(at(tenant, "/channels/Twilio/sample"))
    assert "lacks the scope ingest" in visitor.main
    assert "What would become of it" in visitor.main
    assert posts(page) == []
    token = str(page.select("input[name=form_token]")[0]["value"])
    forced = {"form_token": token, "event": "sent", "secret": tenant.twilio.auth_token}
    answer = await visitor.post(at(tenant, "/channels/Twilio/sample/send"), data=forced)
    assert (answer.status_code, "ingest" in answer.text, tenant.twilio.auth_token in answer.text) == (403, True, False)
    assert await tenant.events() == []

    # Of another tenant's there is neither the page nor what became of a sample.
    await other.client.put_channel("Elsewhere", provider="twilio", secrets=["x"])
    await other.receive(other.twilio.status(other.address("Twilio"), "SM" + "7" * 32, "sent"))
    event = await other.event_of("twilio", "SM" + "7" * 32)
    await visitor.go(at(tenant, "/channels/Elsewhere/sample"))
    assert visitor.status == 404
    await visitor.go(at(tenant, f"/channels/Twilio/sample/sent?event={event.id}&message={event.message_id}"))
    assert "Its event is not in the timeline yet." in visitor.main
    await visitor.go(at(other, "/channels/Twilio/sample"))
    assert "/console/sign-in" in visitor.url


async def test_what_is_hostile_is_text_and_leads_where_it_should(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await tenant.client.put_channel("RCS")
    await visitor.sign_in(tenant.api_key)
    await visitor.go(at(tenant, "/channels/RCS/sample"))
    page = await visitor.submit("/sample", event=HOSTILE)
    assert (visitor.status, "Choose one of the list." in visitor.main, posts(page)) == (422, True, [])
    await visitor.go(at(tenant, "/channels/RCS/sample"))
    page = await visitor.submit("/sample", event="read", message=HOSTILE)
    assert HOSTILE in visitor.main
    assert page.select("main script") == []
    await visitor.submit("/sample/send")
    await followed(visitor)
    assert HOSTILE in visitor.main
    (event,) = await tenant.events()
    assert (event.kind, event.message_id) == ("read", HOSTILE)
    # An address that nobody was given says nothing.
    await visitor.go(at(tenant, "/channels/RCS/sample/sent?event=%3Cscript%3E&message=..&sample=%00&said=%3Cb%3E"))
    assert (visitor.status, visitor.page.select("main script")) == (200, [])


async def test_of_a_sample_that_becomes_no_event_that_is_said(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    await visitor.go(at(tenant, "/channels/Twilio/sample"))
    await visitor.submit("/sample", message="x" * 600)
    assert "Dead letter" in visitor.main
    await visitor.submit("/sample/send", secret=tenant.twilio.auth_token)
    assert "It becomes no event" in visitor.main
    await visitor.follow("Dead letters")
    assert visitor.url.endswith("/dead-letters")


async def test_what_is_held_waits_and_what_is_sent_twice_counts_once(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await tenant.client.put_channel("Twilio", processing="held")
    await visitor.sign_in(tenant.api_key)
    await visitor.go(at(tenant, "/channels/Twilio/sample"))
    shown: Any = visitor.page
    assert "waits until processing is on again" in visitor.main
    for _ in range(2):
        visitor.page = shown
        await visitor.submit("/sample/send", secret=tenant.twilio.auth_token)
        assert "its event comes when processing is on again" in visitor.main
    await tenant.client.put_channel("Twilio", processing="on")
    await followed(visitor)
    assert len(await tenant.events()) == 1


async def test_a_page_that_nobody_looks_at_asks_for_ever_less(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)

    async def asks(sent: int) -> str | None:
        page = await visitor.go(at(tenant, f"/channels/Twilio/sample/sent?event=x&message=y&sent={sent}"))
        assert "Load again" in visitor.main
        (now,) = page.select("#now")
        assert now.has_attr("hx-get") == now.has_attr("hx-trigger")
        assert ("no longer by itself" in visitor.main) != now.has_attr("hx-trigger")
        return str(now["hx-trigger"]) if now.has_attr("hx-trigger") else None

    now = int(time.time())
    assert await asks(now - 90) == "every 5s"
    assert await asks(now - 601) is None
    # What an address says of it is nobody's word.
    assert await asks(0) is None
    assert await asks(now + 10_000) is None

    await visitor.go(at(tenant, "/channels/Twilio/sample"))
    await tenant.client.put_channel("Twilio", processing="held")
    await visitor.submit("/sample/send", secret=tenant.twilio.auth_token)
    (shown,) = visitor.page.select("#now")
    assert (shown["hx-trigger"], "&sent=" in str(shown["hx-get"])) == ("every 5s", True)
    await tenant.client.put_channel("Twilio", processing="on")
    await followed(visitor)


@pytest.mark.browser
async def test_a_browser_sends_a_sample_and_sees_it_come(town: Town, opened: Open) -> None:
    from simulators.visiting import LOOKS

    tenant = await town.platform.register()
    one = "/channels/Twilio/sample"
    for context in LOOKS:
        browser = await opened(**context)
        await browser.sign_in(tenant.api_key)
        for path in (one, f"{one}?event=flown", f"{one}/sent?event=x&message=y", "/channels/SendGrid/sample"):
            await browser.walk(at(tenant, path))
            if "flown" in path:
                browser.wrong.clear()
    # Ten minutes after it was sent a page stops to ask, on the answer to what it asked last.
    await browser.go(at(tenant, f"{one}/sent?event=x&message=y&sent={int(time.time()) - 590}"))
    await browser.page.locator("#now[hx-trigger='every 5s']").wait_for()
    await browser.page.locator("#now:not([hx-trigger])").wait_for(timeout=60_000)
    await browser.page.wait_for_load_state("networkidle")
    asked: list[str] = []
    browser.page.on("request", lambda request: asked.append(request.url))
    await browser.page.wait_for_timeout(6_000)
    assert asked == []
    await tenant.client.put_channel("Twilio", processing="held")
    await browser.go(at(tenant, one))
    await browser.page.get_by_label("Auth token of the Twilio account").fill(tenant.twilio.auth_token)
    await browser.page.get_by_role("button", name="Send it").press("Enter")
    await browser.page.get_by_text("The sample is stored.").wait_for()
    await browser.accessible()
    await tenant.client.put_channel("Twilio", processing="on")
    # Without a click: the page asks by itself.
    await browser.page.get_by_text("Its event is in the timeline of its message.").wait_for(timeout=60_000)
    await browser.accessible()
    await browser.page.locator("main dl.facts a").press("Enter")
    await browser.page.get_by_role("heading", level=1).wait_for()
    assert "/messages/twilio/SM" in browser.page.url
