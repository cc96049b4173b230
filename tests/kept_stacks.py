"""Stacks that several tests use one after another: starting one takes longer than most of what is tried on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backhaul_local.pytest_plugin import START_S
from backhaul_local.scratch import scratch
from backhaul_local.stack import Stack, StackConfig


@contextmanager
def kept(logs: Path, **settings: Any) -> Iterator[Stack]:
    """A stack that runs while this is open, whichever event loops come and go; ``settings`` are a ``StackConfig``'s."""
    with scratch() as folder:
        stack = Stack(StackConfig(data_dir=folder, log_dir=logs, **settings))
        try:
            for member in stack.members:
                member.launch()
            for member in stack.members:
                member.wait_ready_blocking(START_S)
            yield stack
        finally:
            # Its data is about to be removed, so there is nothing that an orderly end would save.
            for member in reversed(stack.members):
                member.kill_blocking()
