"""How many long calls of a kind there may be at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from backhaul_common.errors import BackhaulError, Code

RETRY_AFTER_S = 10.0


class Places:
    """Places for calls that last, on this copy: ``of_tenant`` for each registration, ``of_all`` together.

    ``what`` names them in the error: "imports".
    """

    def __init__(self, what: str, *, of_tenant: int, of_all: int) -> None:
        self._what = what
        self._of_tenant = of_tenant
        self._of_all = of_all
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, registration: str) -> Iterator[None]:
        """Take a place until the block ends. RATE_LIMITED where none is left."""
        if self._taken[registration] >= self._of_tenant:
            raise self._full(f"The tenant has {self._of_tenant} {self._what} already, and may have no more at once.")
        if self._taken.total() >= self._of_all:
            raise self._full(f"There are {self._of_all} {self._what} already, and may be no more at once.")
        self._taken[registration] += 1
        try:
            yield
        finally:
            self._taken[registration] -= 1
            if not self._taken[registration]:
                del self._taken[registration]

    def _full(self, message: str) -> BackhaulError:
        return BackhaulError(
            Code.RATE_LIMITED, message, fix="Wait until one of them has ended.", retry_after_s=RETRY_AFTER_S
        )
