"""What is expected to fail now and then, and a logger that does not repeat itself about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from backhaul_common.jetstream import is_away
from backhaul_common.logs import get_logger
from backhaul_common.mongo import is_transient

REPEAT_S = 60.0
"""How often a line says that something is still as it was."""


def is_outage(exc: BaseException) -> bool:
    """Whether ``exc`` says that a part is away, slow or full: the same may succeed later, without any change to it."""
    return is_transient(exc) or is_away(exc)


class Repeated:
    """Says a thing at once, then once a minute with the number of times, and at its end once more with that number.

    ``warning`` and ``error`` are called each time that it happens, ``over`` when it does not any more. Another reason
    is another thing. The lines end in ``times`` (since it began) and, at the end, ``lasted_s``.
    """

    def __init__(self, event: str, *, clock: Callable[[], float] = time.monotonic, **bound: Any) -> None:
        self._event = event
        self._clock = clock
        self._log = get_logger(**bound)
        self._times = 0
        self._reason = ""
        self._began = 0.0
        self._said = 0.0

    @property
    def times(self) -> int:
        """How often it has happened since it began; 0 when it is over."""
        return self._times

    def warning(self, reason: str, **values: Any) -> None:
        """It happened, as it may."""
        if self._worth_a_line(reason):
            self._log.warning(self._event, error=reason, times=self._times, **values)

    def error(self, reason: str, **values: Any) -> None:
        """It happened, and somebody has to do something about it."""
        if self._worth_a_line(reason):
            self._log.error(self._event, error=reason, times=self._times, **values)

    def over(self) -> None:
        """It is over, if it ever was."""
        if self._times:
            lasted_s = round(self._clock() - self._began, 1)
            self._log.info(f"{self._event}_over", times=self._times, lasted_s=lasted_s)
            self._times, self._reason = 0, ""

    def _worth_a_line(self, reason: str) -> bool:
        now = self._clock()
        if not self._times:
            self._began = now
        self._times += 1
        if self._times > 1 and reason == self._reason and now - self._said < REPEAT_S:
            return False
        self._reason, self._said = reason, now
        return True
