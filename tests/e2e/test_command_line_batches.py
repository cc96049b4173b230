"""Batches of communications from the command line: registered, filled, closed, and how far they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from backhaul_testing.waiting import until
from simulators.terminal import HOSTILE, fits, line_of

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.people import Town


async def test_a_batch_is_registered_filled_and_followed(town: Town, tmp_path: Path) -> None:
    person, other = await town.platform.register(), await town.platform.register()
    line, stranger = line_of(person, tmp_path), line_of(other, tmp_path)
    add = ("communications", "add-batch", "spring-1", "--communication", "spring-sale")
    assert (await line.pipe(*add)).code == 4, "its communication is not registered"
    await person.client.communications.put("spring-sale", channel="Twilio")
    made = await line.pipe(*add, "--label", HOSTILE, "--expected", "2", "--deadline", "12h", "--json")
    assert (made.code, made.rows[0]["status"], made.rows[0]["expected_members"]) == (0, "open", 2), made.err
    # What is not said stays as it is, whichever it is; an empty text takes away.
    (changed,) = (await line.pipe(*add, "--deadline", "24h", "--json")).rows
    assert (changed["label"], changed["expected_members"]) == (HOSTILE, 2)
    assert changed["deadline"] > made.rows[0]["deadline"]
    (named,) = (await line.pipe(*add, "--label", "Spring", "--json")).rows
    assert (named["label"], named["expected_members"], named["deadline"]) == ("Spring", 2, changed["deadline"])
    (counted,) = (await line.pipe(*add, "--label", "", "--expected", "2", "--json")).rows
    assert (counted["label"], counted["expected_members"]) == ("", 2)
    members = [
        {"member_key": "anna\n", "destinations": [{"recipient": "+15005550010"}]},
        {"member_key": "bert", "destinations": [{"recipient": "+15005550011", "message_id": "SM2"}]},
    ]
    file = tmp_path / "members.json"
    imported = ("communications", "import", str(file), "--batch", "spring-1", "--json")
    for wrong, said in (("{", "not JSON"), ("{}", "no list")):
        file.write_text(wrong)
        refused = await line.pipe(*imported)
        assert (refused.code, said in refused.err, refused.err.count("\n")) == (2, True, 1)
    file.write_text(json.dumps([{**members[0], "member_key": "anna"}]))
    assert (await line.pipe(*imported)).rows[0]["added"] == 1
    assert (await line.pipe("communications", "close-batch", "spring-1")).code == 5, "one is missing"
    (now,) = (await line.pipe("communications", "batches", "--json")).rows
    assert (now["status"], now["progress"]["members"]) == ("open", 1)
    assert "1/2" in (await line.pipe("communications", "batches", "--communication", "spring-sale")).out
    file.write_text(json.dumps([{**members[0], "member_key": "anna"}, members[1]], indent=2))
    (again,) = (await line.pipe(*imported)).rows
    assert (again["added"], again["unchanged"]) == (1, 1)
    assert (await line.pipe("communications", "close-batch", "spring-1")).code == 0, "repeated, it changes nothing"
    address = person.address("Twilio", communicationId="spring-sale")
    await person.receive(person.twilio.status(address, "SM2", "delivered", to="+15005550011"))

    async def delivered() -> bool:
        told = (await line.pipe("communications", "batch", "spring-1", "--json")).rows[0]["progress"]
        return bool(told["final"] == 1)

    await until("one of them to be delivered", delivered, within_s=60.0)
    shown = await line.type("communications", "batch", "spring-1")
    fits(shown)
    assert "2/2" in shown.plain
    listed = await line.type("communications", "batch", "spring-1", "--members")
    assert any("bert" in one and "Delivered" in one for one in fits(listed)), listed.plain
    keys = [
        row["member_key"]
        for row in (await line.pipe("communications", "batch", "spring-1", "--members", "--json")).rows
    ]
    assert sorted(keys) == ["anna", "bert"]
    fits(await line.type("communications", "batches"))

    # Nobody else sees, fills or closes it.
    assert (await stranger.pipe("communications", "batch", "spring-1")).code == 4
    assert (await stranger.pipe("communications", "close-batch", "spring-1")).code == 4
    assert (await stranger.pipe(*imported)).code == 4
    assert (await stranger.pipe("communications", "batches")).err == "No batches.\n"
