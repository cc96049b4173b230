"""The commands of a document's page, run as they stand there, by who has the files that the README makes."""

from __future__ import annotations

import asyncio
import os
import re
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Tenant

_MARK = "<status>"


class Answer(NamedTuple):
    """What one curl was answered."""

    status: int
    body: str


async def run_commands(page: str, tenant: Tenant, installation: Stack, folder: Path) -> list[Answer]:
    """The answers to all curls of the blocks of commands of ``page``, in their order. Nothing of them is left in
    ``folder``: whoever tries the page keeps nothing of it in the checkout."""
    (folder / "key-header").write_text(f"X-Api-Key: {tenant.api_key}")
    (folder / "admin-header").write_text(f"Authorization: Bearer {installation.admin_token}")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    script = "\n".join(blocks).replace("/tenants/acme/", f"/tenants/{tenant.id}/")
    script = script.replace("curl -sS ", f"curl -sS -w '\\n{_MARK}%{{http_code}}\\n' ")
    environ = {
        "PATH": os.environ["PATH"],
        "URL": installation.gateway_url,
        "KEY": "@key-header",
        "ADMIN": "@admin-header",
        "JSON": "Content-Type: application/json",
        "TMPDIR": str(folder),
    }
    before = sorted(os.listdir(folder))
    bash = await asyncio.create_subprocess_exec(
        "bash", "-eu", "-c", script, cwd=folder, env=environ, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(60):
        out, err = await bash.communicate()
    assert (bash.returncode, err.decode()) == (0, "")
    assert sorted(os.listdir(folder)) == before
    found = re.findall(rf"(.*?)\n{_MARK}(\d+)\n", out.decode(), re.DOTALL)
    return [Answer(int(status), body) for body, status in found]
