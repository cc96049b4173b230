"""Reconciliation in the console: what can be asked, a run that is begun after a question, and what it found."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_testing.apis.twilio import TwilioApi
from backhaul_testing.waiting import until
from simulators.people import Town
from simulators.visiting import Visitor

if TYPE_CHECKING:
    from simulators.visiting import Open


async def test_a_run_is_begun_after_a_question_and_tells_what_it_found(own_stack: Callable[..., Any]) -> None:
    with TwilioApi() as api:
        account, origins = api.account(), json.dumps(api.origins)
        env = {"reconciler": {"BACKHAUL_RECONCILER_ORIGINS": origins}}
        async with own_stack(service_env=env) as stack, Town(stack.gateway_url, stack.admin_token) as town:
            tenant = await town.platform.register()
            credentials = {"account_sid": account.sid, "auth_token": account.auth_token}
            await town.platform.client.put_channel(
                tenant.id,
                "Twilio",
                pull_credentials=credentials,
                settings={"reconcile": {"every_minutes": 1440}},
            )

            async def asked() -> bool:
                # A channel is "asked" from when it is known, up to a minute before that is done for the first time.
                return bool([one async for one in tenant.client.reconciliation.reports()])

            await until("the provider is asked by itself", asked, within_s=120.0)
            began = api.clock.now() - timedelta(minutes=10)
            steps = [(began + timedelta(seconds=n), word) for n, word in enumerate(("queued", "sent", "undelivered"))]
            message = account.text("+15005550010", steps).sid
            async with Visitor(stack.gateway_url) as visitor:
                await _runs(visitor, tenant.id, tenant.api_key)
                assert (await tenant.message_with("twilio", message, 1, within_s=60)).state == "undelivered"
                await visitor.go(f"/console/t/{tenant.id}/reconciliation/reports")
                assert len(visitor.rows("Reports")) == 2
                await visitor.go(f"/console/t/{tenant.id}/reconciliation/days?channel=Twilio")
                assert len(visitor.rows("Days")) == 14
                await visitor.go(f"/console/t/{tenant.id}/reconciliation/days?channel=Twilio&last=yesterday")
                assert visitor.status == 422


async def _runs(visitor: Visitor, tenant_id: str, api_key: str) -> None:
    here = f"/console/t/{tenant_id}/reconciliation"
    await visitor.sign_in(api_key)
    await visitor.go(here)
    standing = {row[0].lower(): row[1] for row in visitor.rows("Channels")}
    assert (standing["twilio"], standing["sendgrid"]) == ("asked regularly", "no credentials")
    await visitor.follow("Run now")
    await visitor.submit("/run", channel="twilio")
    assert "Ask the provider of twilio?" in visitor.main
    await visitor.submit("/run")
    assert "The run has begun." in visitor.main

    async def over() -> bool:
        await visitor.go(visitor.url)
        return "running" not in visitor.main

    await until("the run is over", over, within_s=60.0)
    assert "done" in visitor.main
    # Of a provider that nobody has credentials for, the form says so, with what was typed.
    await visitor.go(f"{here}/run?channel=sendgrid")
    await visitor.submit("/run")
    await visitor.submit("/run")
    assert visitor.status == 409
    assert "pull_credentials" in visitor.main
    await visitor.submit("/run", None, **{"from": "soon"})
    assert visitor.status == 422
    assert visitor.page.select_one('input[name="from"][value="soon"]') is not None


async def test_who_only_reads_begins_no_run(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    key = await tenant.client.add_key(scopes=["read"])
    await visitor.sign_in(key.key)
    await visitor.go(f"/console/t/{tenant.id}/reconciliation")
    assert "Run now" not in visitor.main
    await visitor.go(f"/console/t/{tenant.id}/reconciliation/run?channel=twilio")
    await visitor.submit("/run")
    await visitor.submit("/run")
    assert visitor.status == 403
    for view in ("reports", "days", "differences"):
        await visitor.go(f"/console/t/{tenant.id}/reconciliation/{view}")
        assert visitor.status == 200, view
    assert visitor.rows("Differences") == [["No difference."]]
    # A form that is sent again asks for the same channel, one that was removed as well.
    for view in ("reports", "days", "differences"):
        await visitor.go(f"/console/t/{tenant.id}/reconciliation/{view}?channel=Gone")
        await visitor.submit(f"/{view}")
        assert "channel=Gone" in visitor.url, view


async def test_what_a_run_is_asked_for_can_be_changed_and_is_checked_first(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    typed = {"channel": "twilio", "from": "2026-03-01T00:00Z", "to": "2026-03-02T00:00Z", "dry_run": "yes"}
    await visitor.go(f"/console/t/{tenant.id}/reconciliation/run")
    await visitor.submit("/run", None, **typed)
    await visitor.follow("Change what is asked")
    for name in ("from", "to"):
        assert visitor.page.select_one(f'input[name="{name}"][value^="{typed[name][:16]}"]') is not None, name
    assert visitor.page.select_one('option[value="twilio"][selected]') is not None
    assert visitor.page.select_one('input[name="dry_run"][checked]') is not None
    for to in (typed["from"], "2026-02-28"):
        await visitor.submit("/run", None, to=to)
        assert visitor.status == 422, to
        assert visitor.page.select_one(f'input[name="to"][aria-invalid="true"][value="{to}"]') is not None


@pytest.mark.parametrize(
    ("path", "name", "back"),
    [
        ("communications", "from", False),
        ("statistics", "until", False),
        ("audits", "from", False),
        ("reconciliation/reports", "to", True),
        ("reconciliation/differences", "from", True),
        ("reconciliation/days", "last", False),
        ("replies", "to", True),
        ("suppressions", "from", True),
        ("changes", "from", True),
    ],
)
async def test_a_mistyped_time_comes_back_in_its_form(
    town: Town, visitor: Visitor, path: str, name: str, back: bool
) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    here = f"/console/t/{tenant.id}/{path}"
    await visitor.go(f"{here}?{name}=yesterday&channel=Twilio")
    assert visitor.status == 422
    field = visitor.page.select_one(f'form.filters input[name="{name}"][aria-invalid="true"]')
    assert field is not None, visitor.main
    assert field["value"] == "yesterday"
    assert "Write" in visitor.main
    if back:
        await visitor.go(f"{here}?{name}=2h")
        assert visitor.status == 200, visitor.main


@pytest.mark.browser
async def test_a_browser_finds_nothing_wrong_with_reconciliation(town: Town, opened: Open) -> None:
    from simulators.visiting import LOOKS

    tenant = await town.platform.register()
    for context in LOOKS:
        browser = await opened(**context)
        await browser.sign_in(tenant.api_key)
        await browser.walk(
            *(
                f"/console/t/{tenant.id}/reconciliation{path}"
                for path in ("", "/reports", "/days", "/differences", "/run")
            )
        )
        await browser.page.get_by_label("Channel").select_option("twilio")
        await browser.page.get_by_role("button", name="Go on").press("Enter")
        await browser.page.get_by_role("heading", name="Ask the provider of twilio?").wait_for()
        await browser.accessible()
