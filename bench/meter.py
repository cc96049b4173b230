"""What processes use: CPU seconds and resident memory, by process id."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
from backhaul_local.stack import Stack


@dataclass(frozen=True)
class Reading:
    """CPU seconds of each running process since it started, by name; ``at`` is a monotonic time in seconds."""

    at: float
    seconds: Mapping[tuple[str, int], float]

    def since(self, before: Reading) -> dict[str, float]:
        """CPU seconds that each process which runs since ``before`` has used."""
        return {
            name: used - before.seconds[name, pid]
            for (name, pid), used in self.seconds.items()
            if (name, pid) in before.seconds
        }

    def per_1000(self, before: Reading, count: int) -> dict[str, float]:
        """The same for each 1,000 of ``count``, without processes that did nothing."""
        return {name: used / count * 1000 for name, used in self.since(before).items() if used > 0}


class Meter:
    """Reads the processes of one stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def read(self) -> Reading:
        """Now. The kernel counts in hundredths of a second: measure for a second or more."""
        seconds = {}
        for member in self._stack.members:
            if member.running:
                times = psutil.Process(member.pid).cpu_times()
                seconds[member.name, member.pid] = times.user + times.system
        return Reading(time.monotonic(), seconds)

    def resident_mb(self) -> dict[str, float]:
        """Resident memory of every running process, in MB (1e6 bytes)."""
        return {
            member.name: psutil.Process(member.pid).memory_info().rss / 1e6
            for member in self._stack.members
            if member.running
        }
