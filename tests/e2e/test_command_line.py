"""The command line against a running installation: as a person types it, and as a program reads it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

from simulators.terminal import HOSTILE, fits, line_of

if TYPE_CHECKING:
    from simulators.people import Town

NOWHERE = "http://127.0.0.1:9"


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
