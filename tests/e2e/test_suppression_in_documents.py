"""The commands of docs/suppression-rest.md run as they stand there, and do what is said of them."""

from __future__ import annotations

import asyncio
import json
import os
import re
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Town

DOCUMENT = Path(__file__).parents[2] / "docs" / "suppression-rest.md"
MARK = "<status>"


async def test_the_commands_of_the_page_do_what_it_says(town: Town, installation: Stack, tmp_path: Path) -> None:
    tenant = await town.platform.register()
    (tmp_path / "key-header").write_text(f"X-Api-Key: {tenant.api_key}")
    (tmp_path / "admin-header").write_text(f"Authorization: Bearer {installation.admin_token}")
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    script = "\n".join(blocks).replace("/tenants/acme/", f"/tenants/{tenant.id}/")
    script = script.replace("curl -sS ", f"curl -sS -w '\\n{MARK}%{{http_code}}\\n' ")
    environ = {
        "PATH": os.environ["PATH"],
        "URL": installation.gateway_url,
        "KEY": "@key-header",
        "ADMIN": "@admin-header",
        "JSON": "Content-Type: application/json",
        "TMPDIR": str(tmp_path),
    }
    before = sorted(os.listdir(tmp_path))
    bash = await asyncio.create_subprocess_exec(
        "bash", "-eu", "-c", script, cwd=tmp_path, env=environ, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(60):
        out, err = await bash.communicate()
    assert (bash.returncode, err.decode()) == (0, "")
    assert sorted(os.listdir(tmp_path)) == before  # Whoever tries the page keeps nothing of it in the checkout.
    answers = re.findall(rf"(.*?)\n{MARK}(\d+)\n", out.decode(), re.DOTALL)
    statuses = [int(status) for _, status in answers]
    assert statuses == [200, 200, 201, 200, 200, 409, 200, 200, 200, 200, 200, 200, 201, 200, 200], out.decode()
    told: list[Any] = [
        [json.loads(line) for line in body.splitlines()] if number in (8, 9) else json.loads(body)
        for number, (body, _) in enumerate(answers)
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
