"""What the normalizer has done, and what that cost: read from its log and from the kernel, never from the store.

A batch has its line in the log once it is acknowledged. Counting what is stored would cost the servers more than what
is measured, and would have to know how the normalizer lays it out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from backhaul_local.service import Service
from generators import LoadError
from meter import Reading

PIPELINE = ("gateway", "nats", "mongod", "normalizer")
"""The processes that a callback goes through, from its POST to EVENTS."""

_LOOK_S = 0.01
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Drained:
    """A backlog that was normalised: ``events`` between two readings, the first batch's end and the last ack.

    ``batches`` and ``all_events``: what there was altogether, the first batch included. ``checkpoint``: CPU seconds of
    each process while MongoDB wrote to its data files what the whole backlog had changed; empty where none was forced.
    """

    events: int
    before: Reading
    after: Reading
    batches: int
    all_events: int
    checkpoint: dict[str, float] = field(default_factory=dict)

    @property
    def per_1000(self) -> dict[str, float]:
        """CPU seconds of each process per 1,000 events, the checkpoint included."""
        used = self.after.per_1000(self.before, self.events)
        return {
            name: used.get(name, 0.0) + self.checkpoint.get(name, 0.0) / self.all_events * 1000
            for name in used | self.checkpoint
        }

    @property
    def per_core_s(self) -> float:
        """Events per CPU second of the normalizer."""
        return 1000 / self.per_1000["normalizer"]

    @property
    def per_second(self) -> float:
        """Events per second of the clock."""
        return self.events / (self.after.at - self.before.at)


def together(per_1000: dict[str, float]) -> float:
    """CPU seconds of all processes of the pipeline together."""
    return sum(per_1000.get(name, 0.0) for name in PIPELINE)


class Normalized:
    """The new events that copies of the normalizer report from now on."""

    def __init__(self, *copies: Service) -> None:
        self._copies = copies
        self._logs = [_BatchLines(one.log_path) for one in copies]

    @property
    def batches(self) -> int:
        """Batches that brought any, as of the last look."""
        return len(self.batches_ms)

    @property
    def batches_ms(self) -> list[float]:
        """How long each of these took."""
        return [ms for log in self._logs for ms in log.batches_ms]

    def events(self) -> int:
        """All so far."""
        for log in self._logs:
            log.read()
        return sum(log.events for log in self._logs)

    async def until(self, least: int, *, look_s: float = _LOOK_S) -> int:
        """How many there are, once there are at least so many. LoadError when a copy has ended, TimeoutError when it
        takes minutes."""
        # A log tells nobody of its lines as an event, so it is looked at, this often.
        async with asyncio.timeout(_PATIENCE_S):
            while (count := self.events()) < least:
                for one in self._copies:
                    if not one.running:
                        raise LoadError(f"{one.name} has ended:\n{one.log_tail()}")
                await asyncio.sleep(look_s)
        return count


class _BatchLines:
    """One copy's log from now on."""

    def __init__(self, path: Path) -> None:
        self.events = 0
        self.batches_ms: list[float] = []
        self._path = path
        # Opened late: a log that has grown large is moved away when the process starts.
        self._file: BinaryIO | None = None
        self._skip = path.stat().st_size if path.exists() else 0
        self._unfinished = b""

    def read(self) -> None:
        """Count what was added since."""
        if self._file is None:
            if not self._path.exists():
                return
            self._file = self._path.open("rb")
            if self._path.stat().st_size >= self._skip:
                self._file.seek(self._skip)
        *lines, self._unfinished = (self._unfinished + self._file.read()).split(b"\n")
        self._count(lines)

    def _count(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            if b'"event":"batch"' in line.replace(b": ", b":"):
                batch = json.loads(line)
                self.events += batch["events"]
                if batch["events"]:
                    self.batches_ms.append(batch["duration_ms"])
