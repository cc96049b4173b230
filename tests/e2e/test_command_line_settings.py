"""Tenants, channels and what applications are told, from the command line."""

from __future__ import annotations

import json
import re
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from backhaul_client import AsyncTenantClient
from backhaul_testing.waiting import until
from simulators.terminal import HOSTILE, CommandLine, Said, fits, line_of

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Town


@pytest.fixture
def platform_line(installation: Stack, tmp_path: Path) -> CommandLine:
    """The platform team's, by the environment."""
    return CommandLine(
        {
            "XDG_CONFIG_HOME": str(tmp_path / "platform"),
            "BACKHAUL_URL": installation.gateway_url,
            "BACKHAUL_ADMIN_TOKEN": installation.admin_token,
        }
    )


async def test_the_platform_team_registers_whoever_then_has_a_profile(
    platform_line: CommandLine, town: Town, installation: Stack, tmp_path: Path
) -> None:
    made = await platform_line.pipe(
        "tenants", "add", "by-the-line", "--name", "By the line", "--queue-path", "by-the-line", "--json"
    )
    (tenant,) = made.rows
    fits(await platform_line.type("tenants", "list", "--all"))
    fits(await platform_line.type("tenants", "show", "by-the-line"))
    overview = await platform_line.pipe("overview", "--json")
    assert overview.code in (0, 7)
    assert overview.rows[0]["tenants"] >= 1

    own = CommandLine({"XDG_CONFIG_HOME": str(tmp_path)})
    add = ("profile", "add", "acme", "--url", installation.gateway_url)
    assert (await own.pipe("messages")).code == 2
    assert (await own.pipe(*add)).code == 2, "no key was given"
    async with own.terminal(*add) as terminal:
        await terminal.shows("API key")
        terminal.press(tenant["api_key"] + "\n")
        assert await terminal.end() == 0
        assert tenant["api_key"] not in terminal.shown, "a key is typed unseen"
    file = tmp_path / "backhaul" / "config.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (profile,) = (await own.pipe("profile", "list", "--json")).rows
    assert (profile["name"], profile["current"], profile["has_api_key"]) == ("acme", True, True)
    assert tenant["api_key"] not in (await own.type("profile", "list")).out

    # A channel's secret is read, and is in no answer.
    secret = "0123456789abcdef0123456789abcdef"
    added = await own.pipe("channels", "add", "Twilio", "--secret", "--verification", "observe", given=secret)
    assert (added.code, secret in added.out + added.err) == (0, False)
    settings = tmp_path / "settings.json"
    for wrong in ("{", "[]"):
        settings.write_text(wrong)
        assert (await own.pipe("channels", "add", "mPulse", "--settings", str(settings))).code == 2
    settings.write_text('{"statuses": {"arrived": "delivered"}}')
    (mapped,) = (await own.pipe("channels", "add", "mPulse", "--settings", str(settings), "--json")).rows
    assert mapped["settings"]["statuses"] == {"arrived": "delivered"}
    fits(await own.type("channels", "list"))
    assert "{ingest_token}" in (await own.pipe("channels", "show", "Twilio")).out
    assert [
        row["label"] for row in (await platform_line.pipe("channels", "list", "--tenant", "by-the-line", "--json")).rows
    ] == ["mPulse", "Twilio"]
    status = await own.type("status", "Twilio")
    assert status.code in (0, 7)
    fits(status)
    assert (await own.pipe("status", "SendGrid")).code == 4
    fits(await own.type("overview"))

    # Keys are revoked with a yes.
    (key,) = (await own.pipe("keys", "add", "--scopes", "read", "--expires", "1d", "--json")).rows
    assert (await own.pipe("keys", "remove", key["id"])).code == 2
    assert (await own.pipe("keys", "remove", key["id"], "--yes")).code == 0
    assert key["id"] not in [row["id"] for row in (await own.pipe("keys", "list", "--json")).rows]

    # What is open to others is refused, with the fix.
    file.chmod(0o644)
    refused = await own.pipe("messages")
    assert refused.code == 2
    assert "chmod 600" in refused.err
    file.chmod(0o600)

    # The same as a document.
    document = tmp_path / "acme.json"
    exported = await platform_line.pipe("export", "--tenant", "by-the-line")
    document.write_text(exported.out)
    assert (await platform_line.pipe("diff", str(document))).code == 0
    document.write_text(exported.out.replace('"observe"', '"off"'))
    changes = await platform_line.type("diff", str(document))
    assert changes.code == 7
    assert "observe" in changes.plain
    fits(changes)
    assert (await platform_line.pipe("apply", str(document), "--yes")).code == 0
    assert (await own.pipe("channels", "show", "Twilio", "--json")).rows[0]["verification"] == "off"
    await town.platform.client.delete_tenant("by-the-line")


async def test_what_an_application_is_told(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    made = await person.client.subscriptions.create(
        ["message.*"], http={"url": "https://example.invalid/told"}, name=HOSTILE[:5]
    )
    assert [row["id"] for row in (await line.pipe("subscriptions", "list", "--json")).rows] == [made.id]
    fits(await line.type("subscriptions", "list"))
    assert (await line.pipe("subscriptions", "pause", made.id, "--yes", "--json")).rows[0]["state"] == "paused"
    await person.receive(person.twilio.status(person.address("Twilio"), "SM1", "sent"))

    async def waiting() -> str | None:
        return next(iter([one.id async for one in person.client.deliveries.list()]), None)

    delivery = await until("the delivery", waiting)
    assert [row["id"] for row in (await line.pipe("deliveries", "list", "--json")).rows] == [delivery]
    fits(await line.type("deliveries", "list"))
    fits(await line.type("deliveries", "show", delivery))
    assert "… waiting" in (await line.pipe("message", "SM1", "--view", "timeline")).out
    counted = await line.pipe(
        "deliveries",
        "redeliver",
        "--subscription",
        made.id,
        "--which",
        "never_attempted",
        "--from",
        "1h",
        "--dry-run",
        "--json",
    )
    assert counted.rows == [{"deliveries": 1}]
    tried = await line.pipe("subscriptions", "test", made.id)
    assert tried.code == 7
    replay = await line.pipe("replay", "run", "Twilio", "--from", "1h", "--dry-run", "--json")
    assert (replay.code, replay.rows[0]["state"], replay.rows[0]["dry_run"]) == (0, "done", True)
    assert [row["id"] for row in (await line.pipe("replay", "list", "--json")).rows] == [replay.rows[0]["id"]]
    assert {row["channel"] for row in (await line.pipe("reconcile", "channels", "--json")).rows} == {
        "twilio",
        "sendgrid",
    }
    fits(await line.type("reconcile", "channels"))
    # Twilio cannot be asked without its credentials, and so no day has an account.
    asked = await line.pipe("reconcile", "run", "Twilio")
    assert (asked.code, asked.err.count("\n")) == (5, 1)
    assert (await line.pipe("reconcile", "day", "Twilio", "2026-11-01")).code == 4
    assert (await line.pipe("reconcile", "differences")).err == "No differences.\n"


async def test_what_a_callback_would_become(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    body, headers = tmp_path / "body", tmp_path / "headers"
    address = person.address("Twilio", communicationId="spring")
    post = person.twilio.status(address, "SM1", "failed", ErrorCode="30006", to="+15005550011")
    body.write_bytes(post.body)
    headers.write_text("".join(f"{name}: {value}\n" for name, value in post.headers))
    preview = ("channels", "preview", "Twilio", str(body), "--headers", str(headers))
    async with line.terminal(*preview, "--url") as terminal:
        await terminal.shows("Address")
        terminal.press(post.url + "\n")
        assert await terminal.end() == 0, terminal.shown
        assert person.ingest_token not in terminal.shown, "an address has a token, and is typed unseen"
        assert re.search(r"failed +SM1 +\+15005550011 +30006", Said(terminal.shown, "", 0).plain)
    # With another address than the signature's it would be refused, and it is said what it would have become.
    other = await line.pipe(*preview, "--query", "communicationId=spring", "--json")
    assert (other.code, other.rows[0]["verification"]["result"]) == (7, "refused")
    assert other.rows[0]["parts"][0]["event"]["kind"] == "failed"
    broken = await line.pipe("channels", "preview", "SendGrid", given="[broken")
    assert (broken.code, "refused" in broken.out) == (7, True)
    fits(await line.type(*preview))
    assert await person.events() == []
    assert (await line.pipe("channels", "preview", "Pigeons", str(body))).code == 4


async def test_settings_of_an_rpi_callback_service_become_a_tenant(
    platform_line: CommandLine, town: Town, tmp_path: Path
) -> None:
    path = f"Rpi-{secrets.token_hex(4)}"
    provider = {"ChannelLabel": "SendGrid", "CallbackServiceQueuePath": path, "CallbackServiceQueueSettings": {}}
    stored = {"Folder": "https://files.example.com/rpi", "SaveEmailEvents": True}
    settings = {"QueueEnabled": True, "QueueProvider": provider, "ExternalContentProvider": stored}
    file, out = tmp_path / "appsettings.json", tmp_path / "tenant.json"
    file.write_text(json.dumps({"CallbackServiceConfig": {**settings, "EnableHttpsRedirection": True}}))
    said = await platform_line.type("import-rpi", str(file), "--out", str(out))
    assert said.code == 0, said.plain
    # The names of files are as wide as they are.
    assert "IRECTION=true." in "".join(row.split("  ")[-1].strip() for row in fits(said, width=250))
    assert (await platform_line.pipe("diff", str(out))).code == 7
    (applied,) = (await platform_line.pipe("apply", str(out), "--yes", "--json")).rows
    # Callbacks are taken as RPI took them, also those without a signature, and where they were posted before.
    callback = f"{town.platform.base_url}/in/{applied['ingest_token']}/api/postevents?channelLabel=SendGrid"
    event = {"event": "delivered", "sg_event_id": "1", "sg_message_id": "m1", "email": "a@example.com", "timestamp": 9}
    assert (await town.http.post(callback, json=[event])).status_code == 200
    tenant = AsyncTenantClient(town.platform.base_url, applied["api_key"], http=town.http)

    async def there() -> bool:
        return [one.kind async for one in tenant.events()] == ["delivered"]

    await until("the event", there)
    (channel,) = await tenant.channels()
    assert (channel.processing, channel.settings["save_email_events"]) == ("on", True)
    # The same again changes nothing.
    assert (await platform_line.pipe("diff", str(out))).code == 0
    await town.platform.client.delete_tenant(applied["id"], purge=True)
