"""A session, and a live tail in a real browser, while the services behind it are killed and come back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_local.service import default_services, service_spec
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


async def test_a_session_outlives_a_killed_gateway_and_holds_at_each(own_stack: StackOnSharedMongo) -> None:
    from simulators.people import Town
    from simulators.visiting import Visitor

    services = (*default_services(), replace(service_spec("gateway"), name="second"))
    async with (
        own_stack(services=services, with_object_store=False) as stack,
        Town(stack.gateway_url, stack.admin_token) as town,
        Visitor(stack.gateway_url) as visitor,
    ):
        one: dict[str, Any] = {"settings.communication_keys": "one"}
        second = f"http://127.0.0.1:{stack.port('second', 'http')}"
        tenant = await town.platform.register()
        here, edit = f"/console/t/{tenant.id}", f"/console/t/{tenant.id}/channels/Twilio/edit"
        await visitor.sign_in(tenant.api_key)
        await visitor.go(edit)
        # What one gateway gave is taken by another, also while the one is away: neither a session nor its forms are a
        # process's.
        async with visitor.at(second) as other:
            await stack.kill("gateway")
            await other.submit("/edit", **one)
            assert "Saved." in other.main
            await stack.restart("gateway")
            await other.go(edit)
            async with other.at(stack.gateway_url) as back:
                await back.submit("/edit", None, **{"settings.communication_keys": "two"})
                assert "Saved." in back.main
                assert (await tenant.client.channel("Twilio")).settings == {"communication_keys": ["two"]}
                await back.go(here)
                assert back.url.endswith(here)
                # Signed out at one, it is refused by the other, cookie and all.
                await other.go(here)
                await other.submit("/sign-out")
                assert "You have signed out." in other.main
                await back.go(here)
                assert "/console/sign-in" in back.url
