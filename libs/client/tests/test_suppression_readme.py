"""The README's programs about suppression run as they stand there."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from stand_in import TOKEN, StandIn

README = Path(__file__).parents[1] / "README.md"


async def test_the_programs_run_as_they_stand_there(service: StandIn, port: int) -> None:
    environ = {
        "BACKHAUL_SUPPRESSION": f"127.0.0.1:{port}",
        "BACKHAUL_SERVICE_TOKEN": TOKEN,
        "BACKHAUL_TENANT": "globex",
    }
    programs = [
        one for one in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "suppression" in one
    ]
    shown = []
    for program in programs:
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, env=environ, stdout=PIPE, stderr=PIPE
        )
        out, err = await running.communicate()
        assert running.returncode == 0, err.decode()
        shown.append(out.decode())
    assert shown == [
        "Send it.\nFalse ['stop']\n['+15005550001']\n",
        "50 of 50\nstop True\nmanual True\n",
    ]
    assert {one.metadata["authorization"] for one in service.asked} == {f"Bearer {TOKEN}"}
    assert service.methods.count("Check") + service.methods.count("CheckBatch") < 50
