"""The service, which dies or falls asleep at one step of a file's life: ``python filing_program.py STEP``.

Of ``before_…`` and ``after_…`` the step is what the process does not, or just, get done. It dies as by kill -9. At
``asleep_at_…`` it stops as by SIGSTOP, and does the step first of all when it goes on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from backhaul_audit import app
from backhaul_audit.books import Books
from backhaul_audit.objects import Bucket
from backhaul_audit.settings import AuditSettings
from backhaul_common.service import main

STEPS = {"record": (Books, "record"), "upload": (Bucket, "create"), "seal": (Books, "seal"), "move": (Books, "move")}
AWAKE = "the step that was slept before is over"
"""A line of its log, however the step ended."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(step: str) -> None:
    """Have the step end the process, or stop it."""
    when, _, name = step.rpartition("_")
    owner, method = STEPS[name]
    real: Callable[..., Awaitable[Any]] = getattr(owner, method)

    async def armed(*args: Any, **kwargs: Any) -> Any:
        if name == "upload" and not args[1].startswith("tenants/"):
            return await real(*args, **kwargs)  # A probe of the bucket, or a digest.
        if when == "before":
            die()
        if when == "asleep_at":
            os.kill(os.getpid(), signal.SIGSTOP)
        try:
            result = await real(*args, **kwargs)
        finally:
            if when == "asleep_at":
                sys.stdout.write(f"{AWAKE}\n")
                sys.stdout.flush()
        if when == "after":
            die()
        return result

    setattr(owner, method, armed)


if __name__ == "__main__":
    arm(sys.argv[1])
    main(AuditSettings, app.run)
