"""Keeps a member of the stack running: one that dies is started again, later each time it dies soon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from backhaul_local.errors import LocalStackError
from backhaul_local.member import Member
from backhaul_local.process import describe_exit

_FIRST_DELAY = 0.5
_MAX_DELAY = 30.0
# A process that ran this long, in seconds, was healthy: its next restart comes quickly again.
_HEALTHY_AFTER = 60.0


async def supervise(member: Member, announce: Callable[[str], None]) -> None:
    """Restart the member whenever it ends, until cancelled; cancel this before stopping the member on purpose.

    The process is launched and not waited for: a service whose dependency is away reports not ready and becomes ready
    by itself, so slowness is no reason to end it.
    """
    delay = _FIRST_DELAY
    started = time.monotonic()
    while True:
        returncode = await member.wait_exit()
        if time.monotonic() - started > _HEALTHY_AFTER:
            delay = _FIRST_DELAY
        problem = f"{member.name} died ({describe_exit(returncode)})"
        while True:
            announce(f"{problem}; starting it again in {delay:g} s. Its log: {member.log_path}")
            await asyncio.sleep(delay)
            delay = min(delay * 2, _MAX_DELAY)
            try:
                member.launch()
            except (LocalStackError, OSError) as error:
                problem = f"{member.name} cannot be started: {error}"
                continue
            break
        started = time.monotonic()
        announce(f"{member.name} runs again as process {member.pid}.")
