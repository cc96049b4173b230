"""The time as a simulated provider has it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Clock:
    """The time in UTC: the machine's, or, from ``at`` on, one that runs on or stands until it is told to go on.

    ``at`` must have a time zone. It may be read in any thread.
    """

    def __init__(self, at: datetime | None = None, *, running: bool = True) -> None:
        machine = datetime.now(UTC)
        begin = machine if at is None else at.astimezone(UTC)
        self._ahead = begin - machine
        self._standing = None if running else begin

    def now(self) -> datetime:
        """The time."""
        return self._standing or datetime.now(UTC) + self._ahead

    def advance(self, seconds: float) -> datetime:
        """Let ``seconds`` pass at once; the time afterwards. ValueError where they are negative."""
        if seconds < 0:
            raise ValueError(f"seconds is {seconds:g}: time does not go back, give 0 or more")
        if self._standing is None:
            self._ahead += timedelta(seconds=seconds)
        else:
            self._standing += timedelta(seconds=seconds)
        return self.now()

    def days_ago(self, days: int) -> datetime:
        """This time of an earlier day."""
        return self.now() - timedelta(days=days)
