"""Who may be contacted, who was written to, and what could not be read, from the command line."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from backhaul_testing.proxy import CHUNK_BYTES, End, Proxy
from backhaul_testing.waiting import until
from simulators.terminal import HOSTILE, Said, fits, line_of

if TYPE_CHECKING:
    from simulators.people import Town


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


class Restarting(Proxy):
    """A gateway that can be away: who is connected is cut off, and who connects finds nobody."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self._away = False

    def go_away(self) -> None:
        self._away = True
        for writer in self._writers:
            writer.transport.abort()

    def come_back(self) -> None:
        self._away = False

    async def join(self, client: End) -> None:
        """See Proxy."""
        if self._away:
            client.writer.transport.abort()
            return
        server = await self.server()
        await self.first_of(_pass_on(client, server), _pass_on(server, client))


async def _pass_on(source: End, target: End) -> None:
    with suppress(OSError):
        while data := await source.reader.read(CHUNK_BYTES):
            target.writer.write(data)
            await target.writer.drain()


async def test_whoever_watches_the_list_misses_nothing_while_the_gateway_is_away(town: Town, tmp_path: Path) -> None:
    person, other = [await town.platform.register() for _ in range(2)]
    line = line_of(person, tmp_path)
    port = urlsplit(person.base_url).port
    assert port is not None
    async with Restarting(port) as gateway:
        behind = line_of(person, tmp_path, BACKHAUL_URL=f"http://127.0.0.1:{gateway.port}")
        async with behind.terminal("suppressions", "watch") as terminal:
            await terminal.shows("Ctrl-C")
            assert (await line.pipe("suppressions", "add", "+15005550071", "--note", HOSTILE)).code == 0
            await terminal.shows("+15005550071")
            gateway.go_away()
            await other.client.suppress("+15005550079", "manual")
            assert (await line.pipe("suppressions", "lift", "+15005550071")).code == 0
            await terminal.shows("Not now")
            gateway.come_back()
            await terminal.shows("lifted")
            assert (await line.pipe("suppressions", "add", "+15005550072", "--kind", "stop")).code == 0
            await terminal.shows("+15005550072")
            terminal.press("\x03")
            assert await terminal.end() == 0
            shown = terminal.shown
    assert "+15005550079" not in shown
    assert [shown.count(one) for one in ("  suppressed  ", "  lifted  ")] == [2, 1], shown
    fits(Said(shown.replace("^C", ""), "", 0), width=200)
    after = re.search(r"backhaul suppressions watch --after (\d+)", shown)
    assert after is not None

    # A program goes on where that one ended, and sees what it asked for alone.
    watcher = await line.start("suppressions", "watch", "--json", "--after", after[1], "--kind", "complaint")
    assert watcher.stdout is not None
    for kind in ("stop", "complaint"):
        await person.client.suppress("+15005550073", kind)
    async with asyncio.timeout(60):
        told = json.loads(await watcher.stdout.readline())
        assert (told["suppression"]["kind"], told["position"] > int(after[1])) == ("complaint", True)
        watcher.send_signal(signal.SIGINT)
        assert await watcher.wait() == 0


async def test_members_of_a_file_are_added_once_however_often_it_is_sent(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    file, refused = tmp_path / "members.csv", tmp_path / "refused.csv"
    # Larger than the pieces that it is sent in.
    rows = [f"person-{number},+1500555{number:04},{'x' * 40}" for number in range(2_000)]
    file.write_text("\n".join(["member_key,recipient,first_name", *rows, f"{'y' * 600},+15005559999,Bad"]) + "\n")
    add = ("communications", "import", str(file), "--batch", "autumn-1")
    assert (await line.pipe(*add)).code == 4, "nobody has registered the batch"
    whole = (*add, "--communication", "autumn", "--channel", "Twilio", "--close")
    first = await line.pipe(*whole, "--errors", str(refused), "--json")
    assert first.code == 7, first.err
    assert (first.rows[0]["added"], first.rows[0]["refused"]) == (2_000, 1)
    assert "y" * 600 in refused.read_text()
    assert "not closed" in first.err
    assert (await person.client.batches.get("autumn-1")).status == "open"

    file.write_text("\n".join(["member_key,recipient,first_name", *rows]) + "\n")
    again = await line.type(*whole)
    assert again.code == 0, again.plain
    assert "100% sent" in again.out, "whoever looks on sees how far it is"
    shown = fits(again)
    assert [row.split() for row in shown if row.startswith(("added", "unchanged"))] == [
        ["added", "0"],
        ["unchanged", "2000"],
    ]
    assert (await person.client.batches.get("autumn-1")).status == "closed"
    elsewhere = await line.pipe(*add, "--communication", "spring")
    assert (elsewhere.code, "of communication autumn" in elsewhere.err) == (5, True)
    (tmp_path / "more.jsonl").write_text('{"member_key": "anna", "destinations": [{"recipient": "+15005550010"}]}\n')
    more = ("communications", "import", str(tmp_path / "more.jsonl"), "--communication", "autumn", "--json")
    assert (await line.pipe(*more, "--batch", "autumn-2")).rows[0]["added"] == 1
    (shown_now,) = (await line.pipe("communications", "show", "autumn", "--json")).rows
    assert {batch["id"]: batch["progress"]["members"] for batch in shown_now["batches"]} == {
        "autumn-1": 2_000,
        "autumn-2": 1,
    }
