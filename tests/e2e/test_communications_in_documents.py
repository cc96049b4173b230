"""The commands of docs/communications.md run as they stand there, and do what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulators.commands import run_commands

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Town

DOCUMENT = Path(__file__).parents[2] / "docs" / "communications.md"


async def test_the_commands_of_the_page_do_what_it_says(town: Town, installation: Stack, tmp_path: Path) -> None:
    tenant = await town.platform.register()
    answers = await run_commands(DOCUMENT.read_text(), tenant, installation, tmp_path)
    assert [answer.status for answer in answers] == [201, 201, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]
    told: list[Any] = [
        [json.loads(line) for line in answer.body.splitlines()] if number == 8 else json.loads(answer.body)
        for number, answer in enumerate(answers)
    ]
    put, batch, added, imported, closed, members, described, page, lines, batches, listed, disabled, enabled = told
    assert put["registered"]["environments"]["test"] == {"shop": "https://test.example.com"}
    assert (put["registered"]["channel"], put["registered"]["deadline_hours"]) == ("twilio", 48)
    assert (batch["status"], batch["completes_on"], batch["label"]) == ("open", "final", "Early birds")
    assert (added["added"], added["refused"]) == (2, 0)
    assert (imported["lines"], imported["added"], imported["changed"], imported["refused"]) == (2, 1, 1, 0)
    assert (closed["status"], closed["progress"]["members"]) == ("closed", 3)
    names = {one["member_key"]: one["attributes"] for one in members["members"]}
    assert names == {"anna": {"first_name": "Anna"}, "bert": {"first_name": "Bert"}, "clara": {"first_name": "Clara"}}
    assert (described["batches"][0]["id"], described["status"]) == ("autumn-1", "active")
    assert (len(page["members"]), bool(page["next_cursor"]), len(lines)) == (2, True, 3)
    assert [one["id"] for one in batches["batches"]] == ["autumn-1"]
    assert [one["id"] for one in listed["communications"]] == ["autumn-sale"]
    assert (disabled["status"], disabled["switched"][0]["author"]) == ("disabled", "anna@example.com")
    assert (enabled["status"], [one["disabled"] for one in enabled["switched"]]) == ("active", [False, True])
    assert enabled["switched"][0]["author"] == f"key:{tenant.api_key.split('_')[1]}"


async def test_an_id_with_slashes_leads_to_itself(town: Town) -> None:
    client = (await town.platform.register()).client
    for communication in ("a/b c?d%2F", "batches", "disable/x", "é", "a/disable"):
        await client.communications.put(communication, name=communication)
        found = await client.communications.get(communication)
        assert found.registered is not None
        assert (found.id, found.registered.name) == (communication, communication)
        batch = f"of-{communication}/close"
        await client.batches.put(communication, batch)
        assert (await client.batches.get(batch)).communication_id == communication
        assert (await client.batches.close(batch)).id == batch
        assert (await client.communications.disable(communication, reason="x")).id == communication
