"""Whose queue paths they are, as the fence told the latest commits.

Whoever publishes what was committed a moment before needs not ask MongoDB again: the transaction has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from backhaul_common.fence import Living

_KEPT_S = 10.0
"""Far longer than an answer is believed."""


class Fenced:
    """Remembers it for a moment. Belongs to one loop; times are of ``clock``, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, tuple[str, float]] = {}

    def told(self, living: Collection[Living], at: float) -> None:
        """These tenants lived, as a transaction that has committed saw it; it began to read no earlier than ``at``."""
        if any(told_at < at - _KEPT_S for _, told_at in self._told.values()):
            self._told = {path: one for path, one in self._told.items() if one[1] >= at - _KEPT_S}
        for one in living:
            self._told[one.path] = one.registration, at

    def owners(self, paths: Collection[str], within_s: float) -> tuple[float, Mapping[str, str]] | None:
        """Since when that is so, and the registrations that have these queue paths; None unless all of it was told
        within the last ``within_s``."""
        found = [self._told.get(path) for path in paths]
        known = [one for one in found if one is not None]
        oldest = min((at for _, at in known), default=0.0)
        if len(known) < len(found) or self._clock() - oldest > within_s:
            return None
        return oldest, {path: registration for path, (registration, _) in zip(paths, known, strict=True)}
