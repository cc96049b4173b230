"""The first page of each side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from playwright.async_api import Route
    from simulators.people import Town
    from simulators.visiting import Open, Visitor


async def test_a_tenant_sees_its_channels_and_nobody_elses(town: Town, visitor: Visitor) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    rows = visitor.rows("Channels")
    assert {row[0] for row in rows} == {channel.label for channel in await tenant.client.channels()}
    assert other.id not in visitor.text
    # Filing is off until somebody switches it on, which nobody would know otherwise.
    assert "Nothing is filed" in visitor.main
    await visitor.go(f"/console/t/{tenant.id}/audits")
    assert "Nothing is filed" in visitor.main
    await tenant.client.put_channel("Twilio", settings={"audit": {"enabled": True}})
    await visitor.go(f"/console/t/{tenant.id}")
    assert "Filed are the events of Twilio." in visitor.main


async def test_signing_in_says_which_credential_is_meant_and_what_is_open(town: Town, visitor: Visitor) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    await visitor.go("/console/sign-in")
    await visitor.submit("/sign-in", credential=tenant.ingest_token)
    assert visitor.status == 422
    assert "This is an ingest token" in visitor.main
    assert "bhk_" in visitor.main
    assert tenant.ingest_token not in str(visitor.page)
    await visitor.sign_in(tenant.api_key)
    await visitor.follow("Add…")
    heading = visitor.page.h1
    assert heading is not None
    assert heading.get_text() == "Open more pages"
    await visitor.follow(tenant.id)
    assert visitor.url.endswith(f"/console/t/{tenant.id}")
    await visitor.follow("Add…")
    await visitor.submit("/sign-in", credential="wrong")
    assert visitor.status == 401
    await visitor.follow("Back")
    assert visitor.url.endswith(f"/console/t/{tenant.id}")
    await visitor.follow("Add…")
    await visitor.submit("/sign-in", credential=other.api_key)
    assert visitor.url.endswith(f"/console/t/{other.id}")


async def test_the_platform_team_sees_all_of_them(town: Town, visitor: Visitor, admin_token: str) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(admin_token)
    assert visitor.url.endswith("/console/admin")

    async def seen() -> bool:
        # Of many tenants some are asked at a time, and each page has some.
        await visitor.go("/console/admin")
        while tenant.id not in visitor.main and "Older" in visitor.main:
            await visitor.follow("Older")
        return tenant.id in visitor.main

    await until("the tenant is among those that were asked", seen, within_s=60.0)
    await visitor.follow(f"Tenant {tenant.id.removeprefix('tenant-')}")
    assert visitor.url.endswith(f"/console/admin/tenants/{tenant.id}")


@pytest.mark.browser
async def test_a_page_that_is_not_answered_stays_and_says_so(town: Town, opened: Open) -> None:
    tenant = await town.platform.register()
    browser = await opened()
    page = browser.page
    await page.clock.install()
    await browser.sign_in(tenant.api_key)
    title = await page.title()
    stale = page.locator("main").get_by_role("status")
    table = page.get_by_role("region", name="Channels")

    async def asked() -> None:
        """The next time that the page asks by itself."""
        async with page.expect_event("requestfinished", lambda one: "hx-request" in one.headers):
            await page.clock.run_for(15_000)

    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, content_type="text/html", body="<title>Away</title><h1>Away</h1>")

    await page.route("**/console/t/*", refuse)
    for _ in range(2):
        await asked()
        await stale.wait_for()
        assert await stale.count() == 1
        assert "not up to date" in await stale.inner_text()
        assert await table.is_visible()
        assert await page.title() == title
    await browser.accessible()
    await page.unroute("**/console/t/*", refuse)
    await asked()
    await stale.wait_for(state="detached")
    assert await table.is_visible()
    assert await page.title() == title
    browser.wrong[:] = [one for one in browser.wrong if "503" not in one]


@pytest.mark.browser
async def test_a_browser_finds_nothing_wrong_with_either(town: Town, opened: Open, admin_token: str) -> None:
    from simulators.visiting import LOOKS

    tenant = await town.platform.register()
    for context in LOOKS:
        browser = await opened(**context)
        await browser.go("/console/sign-in")
        await browser.accessible()
        await browser.sign_in(admin_token)
        await browser.accessible()
        await browser.sign_in(tenant.api_key)
        await browser.accessible()
        await browser.fits()
