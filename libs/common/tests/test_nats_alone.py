"""A service starts without what nats-py would take along and no service asks of it."""

from __future__ import annotations

import asyncio
import sys

_PROGRAM = """
import sys
import backhaul_common.service
assert "nats.aio.client" in sys.modules
assert "aiohttp" not in sys.modules
import aiohttp
assert aiohttp.ClientSession
"""


async def test_aiohttp_is_imported_by_whoever_needs_it_and_by_nobody_else() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _PROGRAM, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
