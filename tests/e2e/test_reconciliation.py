"""What a provider's API tells, and what comes of it: as a tenant reads it, and as docs/reconciliation.md says."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from backhaul_client import FailedPreconditionError
from backhaul_testing.apis.sendgrid import SendGridApi
from backhaul_testing.apis.serving import ProviderApi
from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi
from backhaul_testing.waiting import until
from simulators.commands import run_commands
from simulators.people import Tenant, Town
from simulators.terminal import CommandLine

DOCUMENT = Path(__file__).parents[2] / "docs" / "reconciliation.md"
SIMULATORS = ".venv/bin/python -m backhaul_testing.apis"


def _origins(*apis: ProviderApi) -> dict[str, dict[str, str]]:
    origins = {origin: url for api in apis for origin, url in api.origins.items()}
    return {"reconciler": {"BACKHAUL_RECONCILER_ORIGINS": json.dumps(origins)}}


def _delivered(api: TwilioApi, account: TwilioAccount) -> str:
    """The SID of a message that was delivered ten minutes ago."""
    began = api.clock.now() - timedelta(minutes=10)
    steps = [(began + timedelta(seconds=second), word) for second, word in enumerate(("queued", "sent", "delivered"))]
    return account.text("+15005550010", steps).sid


async def _put(town: Town, tenant: Tenant, account: TwilioAccount, **settings: Any) -> None:
    credentials = {"account_sid": account.sid, "auth_token": account.auth_token}
    await town.platform.client.put_channel(
        tenant.id, "Twilio", pull_credentials=credentials, settings={"reconcile": settings}
    )


async def test_what_no_callback_told_is_found_by_a_run(own_stack: Callable[..., Any]) -> None:
    with TwilioApi() as api:
        account = api.account()
        async with own_stack(service_env=_origins(api)) as stack, Town(stack.gateway_url, stack.admin_token) as town:
            tenant = await town.platform.register()
            reconciliation = tenant.client.reconciliation
            with pytest.raises(FailedPreconditionError, match="pull_credentials"):
                await reconciliation.begin("Twilio")
            # Once a day by itself: what is found here is found by whoever asks.
            first = _delivered(api, account)
            await _put(town, tenant, account, every_minutes=1440)

            async def asked() -> bool:
                (channel,) = [one for one in await reconciliation.channels() if one.channel == "twilio"]
                return channel.standing == "asked" and channel.report_id is not None

            await until("the provider is asked by itself", asked)
            assert (await tenant.message_with("twilio", first, 1)).state == "delivered"

            second = _delivered(api, account)
            counted = [one async for one in reconciliation.run("Twilio", dry_run=True)][-1]
            assert (counted.state, counted.dry_run, counted.counts.seen, counted.counts.missing) == ("done", True, 2, 1)
            assert await tenant.message("twilio", second) is None
            told = [one async for one in reconciliation.run("Twilio")][-1]
            assert (told.state, told.counts.known, told.counts.missing) == ("done", 1, 1)
            assert (await tenant.message_with("twilio", second, 1)).state == "delivered"
            again = [one async for one in reconciliation.run("Twilio")][-1]
            assert (again.counts.known, again.counts.missing, again.counts.better) == (2, 0, 0)
            assert await reconciliation.report(told.id) == told
            causes = [one.cause async for one in reconciliation.reports(channel="Twilio")]
            assert causes == ["call", "call", "call", "schedule"]
            assert [one async for one in reconciliation.differences()] == []

            # As people ask: by the command line.
            line = CommandLine({"BACKHAUL_URL": tenant.base_url, "BACKHAUL_API_KEY": tenant.api_key})
            (shown,) = (await line.pipe("reconcile", "report", told.id, "--json")).rows
            assert (shown["id"], shown["counts"]["missing"]) == (told.id, 1)
            asked_for = await line.type("reconcile", "run", "Twilio", "--dry-run")
            assert asked_for.code == 0
            assert "yes, nothing was brought" in asked_for.plain
            (today,) = (await line.pipe("reconcile", "reports", "--limit", "1", "--json")).rows
            assert (today["dry_run"], today["counts"]["known"]) == (True, 2)

            # What nobody may see any more says so in the status.
            account.auth_token = "another-token"
            refused = [one async for one in reconciliation.run("Twilio")][-1]
            assert (refused.state, refused.text is not None) == ("stopped", True)
            stopped = await line.pipe("reconcile", "run", "Twilio", "--json")
            assert (stopped.code, stopped.rows[0]["state"]) == (7, "stopped")
            part = (await tenant.client.channel_status("Twilio")).parts.reconciliation
            assert part is not None
            assert (part.state, part.standing) == ("Error", "credentials_refused")


async def test_the_commands_of_the_page_do_what_it_says(own_stack: Callable[..., Any], tmp_path: Path) -> None:
    with TwilioApi() as api, SendGridApi() as mails:
        account = api.account()
        key, secret = account.key()
        keys = {"api_key": mails.user("acme").key()}
        access = {"account_sid": account.sid, "auth_token": account.auth_token}
        page = DOCUMENT.read_text()
        for shown, own in (
            ("AC0123456789abcdef0123456789abcdef", account.sid),
            ("SK0123456789abcdef0123456789abcdef", key),
            ('"0123456789abcdef0123456789abcdef"', f'"{secret}"'),
            # What the simulators print is pasted.
            (SIMULATORS, f"TWILIO='{json.dumps(access)}' SENDGRID='{json.dumps(keys)}'"),
            ("sleep 10 ", "sleep 0 "),
        ):
            assert shown in page
            page = page.replace(shown, own)
        async with (
            own_stack(service_env=_origins(api, mails)) as stack,
            Town(stack.gateway_url, stack.admin_token) as town,
        ):
            tenant = await town.platform.register()
            answers = await run_commands(page, tenant, stack, tmp_path)
    tried, answers = answers[:4], answers[4:]
    assert [one.status for one in tried] == [201, 201, 200, 200]
    put, channels, reports, differences, begun, followed, day = answers
    assert [one.status for one in (put, channels, reports, differences)] == [200] * 4
    assert json.loads(put.body)["has_pull_credentials"]
    assert {"sendgrid", "twilio"} <= {one["channel"] for one in json.loads(channels.body)["channels"]}
    assert json.loads(differences.body)["differences"] == []
    assert begun.status == 202
    head, _, body = begun.body.partition("\r\n\r\n")
    assert f"location: /v1/reconciliation/reports/{json.loads(body)['id']}" in head
    # Where the one before is under way still, it says so.
    assert followed.status in (200, 409)
    if followed.status == 200:
        assert json.loads(followed.body.splitlines()[-1])["state"] == "done"
    assert day.status in (200, 404)
