"""Stacks that run for a whole session: starting one takes longer than most of what is tried on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backhaul_local.scratch import scratch
from backhaul_local.stack import Stack, StackConfig


@contextmanager
def kept(logs: Path, **settings: Any) -> Iterator[Stack]:
    """A stack that runs while this is open, whichever event loops come and go; ``settings`` are a ``StackConfig``'s."""
    with scratch() as folder:
        # All processes at once, on a machine that may have other work.
        stack = Stack(StackConfig(data_dir=folder, log_dir=logs, **{"start_timeout": 90.0, **settings}))
        try:
            for member in stack.members:
                member.launch()
            for member in stack.members:
                member.wait_ready_blocking()
            yield stack
        finally:
            for member in reversed(stack.members):
                member.stop_blocking()
