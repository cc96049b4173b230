"""The command line against a running installation: as a person types it, and as a program reads it."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from backhaul_testing.waiting import until
from simulators.archive import ask_for_files, filed, in_digests
from simulators.terminal import WIDTH, CommandLine, Said

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.archive import Archive
    from simulators.people import Tenant, Town

HOSTILE = "STOP \x1b]0;owned\x07\x1b[2J\x9b31m \u202egnp.exe [red]x[/red]\r\nbackhaul: all is well"
NOWHERE = "http://127.0.0.1:9"


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


def line_of(tenant: Tenant, folder: Path, **more: str) -> CommandLine:
    """A tenant's, by the environment."""
    environment = {"BACKHAUL_URL": tenant.base_url, "BACKHAUL_API_KEY": tenant.api_key, **more}
    return CommandLine({"XDG_CONFIG_HOME": str(folder), **environment})


def fits(said: Said) -> list[str]:
    """The lines of a screen: none wider than the terminal, and none with a control of whoever wrote to us."""
    lines = said.plain.split("\n")
    assert all(len(line) <= WIDTH for line in lines), said.plain
    assert all(line.isprintable() for line in lines), repr(said.plain)
    return [line.rstrip() for line in lines]


async def test_what_became_of_messages_as_people_see_it_and_as_programs_read_it(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    address = person.address("Twilio", communicationId="spring-sale")
    sid = "SM" + 32 * "1"
    await person.receive(
        person.twilio.status(address, sid, "sent"),
        person.twilio.status(address, sid, "delivered"),
        person.twilio.status(address, "SM2", "failed", to="+15005550011", ErrorCode="30006"),
        person.twilio.inbound(address, "SM3", HOSTILE, sender="+15005550012"),
    )
    await person.message_with("twilio", sid, 2)
    for other in ("SM2", "SM3"):
        await person.message_with("twilio", other, 1)
    line = line_of(person, tmp_path)

    rows = (await line.pipe("messages", "--json")).rows
    assert sorted(row["message_id"] for row in rows) == sorted([sid, "SM2", "SM3"])
    piped = await line.pipe("messages", "--state", "failed")
    assert (piped.code, piped.err) == (0, "")
    head, failed = piped.out.splitlines()
    assert head.split() == ["MESSAGE", "CHANNEL", "STATE", "RECIPIENT", "ERROR", "AGE"]
    assert re.fullmatch(r"SM2      twilio   failed  \+15005550011  30006  +\d+[sm]", failed)
    seen = await line.type("messages")
    assert "\x1b[" in seen.out, "a terminal has colours"
    assert "\x1b" not in (await line.pipe("messages")).out, "a pipe has none"
    assert any(re.fullmatch(rf"{sid}  twilio   delivered  \+15005550001 +\d+[sm]", row) for row in fits(seen)), (
        seen.plain
    )
    few = await line.pipe("messages", "--limit", "2", "--json")
    assert len(few.rows) == 2
    assert "--all" in few.err
    assert (await line.pipe("messages", "--all", "--limit", "2", "--json")).rows == rows

    # One message: three views, and the whole of it.
    (whole,) = (await line.pipe("message", sid, "--json")).rows
    assert [event["kind"] for event in whole["timeline"]] == ["sent", "delivered"]
    compact = fits(await line.type("message", sid))
    assert "state          delivered" in compact
    assert [row.split()[:2] for row in compact if row.startswith(("sent ", "delivered "))] == [
        ["sent", "1"],
        ["delivered", "1"],
    ]
    timeline = fits(await line.type("message", sid, "--view", "timeline", "--channel", "Twilio"))
    assert (
        sum(
            bool(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z +\+\d+s +(sent|delivered) ", row))
            for row in timeline
        )
        == 2
    )
    assert f'"message_id": "{sid}",' in (await line.pipe("message", sid, "--view", "raw")).out
    missing = await line.pipe("message", "SM9")
    assert (missing.code, missing.out) == (4, "")
    assert "SM9" in missing.err

    # What a stranger wrote moves nothing, in whatever view.
    for said in (
        await line.type("message", "SM3", "--view", "raw"),
        await line.type("message", "SM3", "--json"),
        await line.pipe("events"),
    ):
        assert said.code == 0
        assert "SM3" in said.out
        assert not any(part in said.plain for part in ("\x1b", "\x07", "\x9b", "\u202e", "\nbackhaul: all is well"))
    timeline = fits(await line.type("message", "SM3", "--view", "timeline"))
    assert r"STOP\x1b]0;owned\x07" in "".join(timeline).replace(" ", "")

    kinds = {row["kind"]: row["events"] for row in (await line.pipe("stats", "--by", "kind", "--json")).rows}
    assert kinds == {"sent": 1, "delivered": 1, "failed": 1, "inbound": 1}
    (counts,) = (await line.pipe("communications", "show", "spring-sale", "--json")).rows
    assert counts["fulfilment"]["Delivered"] == 1
    assert "Delivered         1" in fits(await line.type("communications", "show", "spring-sale"))
    assert (await line.pipe("communications", "show", "autumn-sale")).code == 4


async def test_whoever_follows_sees_each_event_until_ctrl_c(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    async with line.terminal("tail", "--after", "0") as terminal:
        await terminal.shows("Ctrl-C")
        await person.receive(person.twilio.status(person.address("Twilio"), "SM1", "sent"))
        await terminal.shows("SM1")
        terminal.press("\x03")
        assert await terminal.end() == 0
        assert "Traceback" not in terminal.shown
        after = re.search(r"backhaul tail --after (\S+)", terminal.shown)
    assert after is not None

    # A program reads a line for each event, from where that one ended, and may stop when it likes.
    follower = await line.start("tail", "--json", "--after", after[1])
    assert follower.stdout is not None
    assert follower.stderr is not None
    await person.receive(person.twilio.status(person.address("Twilio"), "SM1", "delivered"))
    async with asyncio.timeout(60):
        assert b'"delivered"' in await follower.stdout.readline()
        follower.stdout._transport.close()  # type: ignore[attr-defined]  # a reader has no way to stop
        await person.receive(person.twilio.status(person.address("Twilio"), "SM2", "sent"))
        assert await follower.wait() == 0
        assert await follower.stderr.read() == b"Following; Ctrl-C ends it.\n"


async def test_who_must_not_be_contacted(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    address = "+15005550077"
    asked = ("suppressions", "check", address, "--purpose", "transactional")
    assert (await line.pipe(*asked)).code == 0
    (added,) = (await line.pipe("suppressions", "add", address, "--note", HOSTILE, "--json")).rows
    assert (added["changed"], added["suppression"]["kind"]) == (True, "manual")
    refused = await line.pipe(*asked)
    assert refused.code == 7
    assert refused.out.splitlines()[0] == "suppressed"
    assert (await line.pipe(*asked, "--json")).rows[0]["blocking"][0]["kind"] == "manual"
    fits(await line.type("suppressions", "show", address))
    exported = (await line.pipe("suppressions", "export")).out
    assert f"{address},phone,manual,all" in exported
    lines = (await line.type("suppressions", "export")).plain.splitlines()
    assert all(one.isprintable() for one in lines), lines
    assert [row["address"] for row in (await line.pipe("suppressions", "list", "--json")).rows] == [address]
    assert (await line.pipe("suppressions", "lift", address)).code == 0
    assert (await line.pipe(*asked)).code == 0
    (tmp_path / "list.csv").write_text("address,kind\n+15005550078,stop\nnobody,stop\n")
    imported = await line.pipe("suppressions", "import", str(tmp_path / "list.csv"), "--json")
    assert (imported.code, imported.rows[0]["changed"], imported.rows[0]["refused"]) == (7, 1, 1)
    invalid = await line.pipe("suppressions", "add", address, "--kind", "colour")
    assert invalid.code == 5
    assert "kind" in invalid.err


async def test_dead_letters_are_asked_about_before_many_are_sent_through(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    for number in range(2):
        await person.receive(person.sendgrid.signed(person.address("SendGrid"), b'[{"event": "%d"' % number))

    async def both() -> bool:
        return len(await person.dead_letters()) == 2

    await until("two dead letters", both)
    letters = [row["id"] for row in (await line.pipe("dead-letters", "list", "--json")).rows]
    assert len(letters) == 2
    fits(await line.type("dead-letters", "list"))
    assert "body" not in (await line.type("dead-letters", "show", letters[0])).err
    assert [row["state"] for row in (await line.pipe("dead-letters", "discard", letters[0], "--json")).rows] == [
        "discarded"
    ]
    again = await line.pipe("dead-letters", "discard", letters[0])
    assert again.code == 5

    fitting = ("--channel", "SendGrid")
    nobody = await line.pipe("dead-letters", "discard", *fitting)
    assert nobody.code == 2
    assert "--yes" in nobody.err
    assert (await line.pipe("dead-letters", "discard", *fitting, "--dry-run", "--json")).rows[0]["counts"][
        "dead_letters"
    ] == 1
    for answer, code in (("n", 130), ("y", 0)):
        async with line.terminal("dead-letters", "discard", *fitting) as terminal:
            await terminal.shows("Discard 1 dead letters?")
            terminal.press(f"{answer}\n")
            assert await terminal.end() == code
    assert await person.dead_letters(state="open") == []


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
    fits(await own.type("channels", "list"))
    assert "{ingest_token}" in (await own.pipe("channels", "show", "Twilio")).out
    assert [
        row["label"] for row in (await platform_line.pipe("channels", "list", "--tenant", "by-the-line", "--json")).rows
    ] == ["Twilio"]
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
    assert (await line.pipe("subscriptions", "pause", made.id, "--json")).rows[0]["state"] == "paused"
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


async def test_files_are_fetched_whole_and_one_that_was_changed_is_found(
    storing_town: Town, archive: Archive, tmp_path: Path
) -> None:
    person = await storing_town.platform.register()
    await ask_for_files(storing_town.platform, person, "Twilio")
    await person.receive(person.twilio.status(person.address("Twilio"), "SM1", "delivered"))
    (file,) = await in_digests(person, await filed(person, 1))
    line = line_of(person, tmp_path)
    assert [row["id"] for row in (await line.pipe("audits", "list", "--json")).rows] == [file.id]
    fits(await line.type("audits", "list"))
    copy = tmp_path / "copy"
    assert (await line.pipe("audits", "get", file.id, "-o", str(copy))).code == 0
    assert sha256(copy.read_bytes()).hexdigest() == file.sha256
    assert b"SM1" in (await line.pipe("audits", "get", file.id, "--decrypted")).out.encode()
    assert (await line.pipe("audits", "get", "0" * 32, "-o", str(tmp_path / "none"))).code == 4
    assert sorted(os.listdir(tmp_path)) == ["copy"]
    assert (await line.pipe("audits", "verify")).code == 0
    (event,) = await person.events()
    (proved,) = (await line.pipe("audits", "prove", event.id, "--json")).rows
    assert [row["file"]["id"] for row in proved["proofs"]] == [file.id]
    assert proved["heads"]

    await archive.put(file.key, copy.read_bytes().replace(b"delivered", b"failed___"))
    changed = await line.type("audits", "verify")
    assert changed.code == 7
    assert file.name in "".join(row.strip() for row in fits(changed))
    (result,) = (await line.pipe("audits", "verify", "--json")).rows
    assert result["done"]
    assert [one["name"] for one in result["findings"] if not one["valid"]] == [f"{file.bucket}/{file.key}"]
    assert result["valid_files"] < result["files"]
    await archive.put(file.key, copy.read_bytes())


async def test_what_cannot_be_done_says_what_to_do(town: Town, tmp_path: Path) -> None:
    person, other = await town.platform.register(), await town.platform.register()
    await person.receive(person.twilio.status(person.address("Twilio"), "SM1", "sent"))
    await person.message_with("twilio", "SM1", 1)
    assert (await line_of(other, tmp_path).pipe("message", "SM1", "--channel", "Twilio")).code == 4

    wrong = f"{person.api_key[:-1]}{'0' if person.api_key[-1] != '0' else '1'}"
    for more, code, said in (
        ({"BACKHAUL_API_KEY": wrong}, 3, "profile add"),
        ({"BACKHAUL_API_KEY": ""}, 3, "no API key"),
        ({"BACKHAUL_URL": NOWHERE}, 6, "No answer"),
        ({"BACKHAUL_URL": f"{person.base_url}/elsewhere"}, 4, ""),
        ({"BACKHAUL_URL": ""}, 2, "BACKHAUL_URL"),
    ):
        failed = await line_of(person, tmp_path, **more).pipe("messages")
        assert (failed.code, failed.out) == (code, ""), failed
        assert failed.err.startswith("backhaul: ")
        assert failed.err.count("\n") == 1
        assert said in failed.err
        assert person.api_key[17:] not in failed.err
    tenants = await line_of(person, tmp_path).pipe("tenants", "list")
    assert (tenants.code, "no admin token" in tenants.err) == (3, True)


async def test_a_reader_that_stops_and_a_ctrl_c_are_no_errors(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    for number in range(3):
        await person.receive(person.twilio.status(person.address("Twilio"), f"SM{number}", "sent"))
        await person.message_with("twilio", f"SM{number}", 1)
    line = line_of(person, tmp_path)
    command = await line.start("messages", "--json", "--all")
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout._transport.close()  # type: ignore[attr-defined]  # a reader has no way to stop
    async with asyncio.timeout(60):
        assert await command.wait() == 0
        assert await command.stderr.read() == b""

    # A server that takes its time: whoever waits may stop.
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    asked = asyncio.Event()
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        slow = line_of(person, tmp_path, BACKHAUL_URL=f"http://127.0.0.1:{port}")
        async with slow.terminal("messages") as terminal, asyncio.timeout(60):
            await asked.wait()
            terminal.press("\x03")
            assert await terminal.end() == 130
            assert terminal.shown.strip() in ("^C", "")
