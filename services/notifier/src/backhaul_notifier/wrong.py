"""All that is wrong with what somebody says, told at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backhaul_common.errors import BackhaulError, Code, Violation


class Wrong:
    """What was found so far of the fields within ``within``; ``message`` says it of the whole."""

    def __init__(self, within: str, message: str) -> None:
        self._within = within
        self._message = message
        self._found: list[Violation] = []

    def add(self, field: str, message: str, fix: str) -> None:
        """``field`` is within ``within``; empty, it is that itself."""
        self._found.append(Violation(f"{self._within}.{field}" if field else self._within, message, fix))

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Go on after what the block refuses, which names its fields as a whole."""
        try:
            yield
        except BackhaulError as exc:
            if exc.code is not Code.INVALID_ARGUMENT:
                raise
            self._found += exc.violations

    def raise_any(self) -> None:
        """INVALID_ARGUMENT, where anything was found."""
        if self._found:
            raise BackhaulError(Code.INVALID_ARGUMENT, self._message, violations=self._found)
