"""A live tail in a real browser, while the services behind it are killed and come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from conftest import StackOnSharedMongo


@pytest.mark.browser
@pytest.mark.timeout(600)
async def test_it_comes_back_without_a_gap_and_ends_with_its_session(
    own_stack: StackOnSharedMongo, chromium: Browser
) -> None:
    from simulators.people import Town
    from simulators.visiting import Watched

    async with own_stack() as stack, Town(stack.gateway_url, stack.admin_token) as town:
        tenant = await town.platform.register()
        address = tenant.address("Twilio")
        browser = await Watched.opened(chromium, stack.gateway_url)
        await browser.sign_in(tenant.api_key)
        await browser.go(f"/console/t/{tenant.id}/events?live=1")
        await browser.page.get_by_text("Following.").wait_for()
        expected: list[str] = []
        # Nothing has come before the first restart: the place is known all the same.
        for service in ("gateway", "normalizer", "gateway"):
            await stack.kill(service)
            await stack.restart(service)
            for _ in range(3):
                expected.append(sid := new_sid())

                async def taken(sid: str = sid) -> bool:
                    answer = await tenant.send(tenant.twilio.status(address, sid, "delivered"))
                    return answer.status_code == 200

                await until("the callback's answer", taken)

            async def shown() -> bool:
                found = await browser.page.locator("#rows tr a.id").all_inner_texts()
                return found[::-1] == expected

            await until(f"rows after the restart of the {service}", shown, within_s=120)
        other = await browser.page.context.new_page()
        await other.goto(f"{stack.gateway_url}/console/t/{tenant.id}")
        await other.get_by_role("button", name="Sign out").click()
        await other.get_by_text("You have signed out.").wait_for()
        await browser.page.bring_to_front()
        await browser.page.get_by_text("Your session has ended.").wait_for(timeout=120_000)
        # Only what the restarts themselves made was wrong.
        ours = ("Failed to load resource", "htmx:sse:error")
        assert not [one for one in browser.wrong if not any(text in one for text in ours)]
