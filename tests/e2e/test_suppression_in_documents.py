"""The commands of docs/suppression-rest.md run as they stand there, and do what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulators.commands import run_commands

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Town

DOCUMENT = Path(__file__).parents[2] / "docs" / "suppression-rest.md"


async def test_the_commands_of_the_page_do_what_it_says(town: Town, installation: Stack, tmp_path: Path) -> None:
    tenant = await town.platform.register()
    answers = await run_commands(DOCUMENT.read_text(), tenant, installation, tmp_path)
    statuses = [answer.status for answer in answers]
    assert statuses == [200, 200, 201, 200, 200, 409, 200, 200, 200, 200, 200, 200, 201, 200, 200], answers
    told: list[Any] = [
        [json.loads(line) for line in answer.body.splitlines()] if number in (8, 9) else json.loads(answer.body)
        for number, answer in enumerate(answers)
    ]
    check, batch, added, record, listed, refused, lifted, imported, progress, exported, *rest = told
    assert check == {"verdict": "allowed", "blocking": []}
    assert [one["verdict"] for one in batch["results"]] == ["allowed", "invalid"]
    row = added["suppression"]
    assert (row["since"], row["author"]) == ("2026-11-01T09:30:00.000000Z", f"key:{tenant.api_key.split('_')[1]}")
    assert record["suppressions"] == listed["suppressions"] == [row]
    assert refused["detail"].startswith("stop_by_recipient")
    assert (lifted["changed"], lifted["suppression"]["active"]) == (True, False)
    assert (imported["lines"], imported["changed"], imported["refused"]) == (2, 1, 1)
    assert imported["errors_complete"]
    assert "0151 1234567" in imported["errors"]
    assert (progress[-1]["unchanged"], progress[-1]["done"]) == (1, True)
    assert [one["address"] for one in exported] == ["+14155550124"]
    changes, later, legal, legals, free = rest
    assert [one["position"] for one in changes["changes"]] == [1, 2, 3]
    assert ([one["position"] for one in later["changes"]], later["next_position"]) == ([2, 3], 3)
    assert (legal["suppression"]["kind"], legal["suppression"]["author"]) == ("legal", "operator")
    assert [one["id"] for one in legals["suppressions"]] == [legal["suppression"]["id"]]
    assert not free["suppression"]["active"]
