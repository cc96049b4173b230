"""Who may be contacted, who was written to, and what could not be read, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backhaul_testing.waiting import until
from simulators.terminal import HOSTILE, fits, line_of

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
