"""A figure of the demo, beside what it must be."""

from __future__ import annotations

from dataclasses import dataclass

NOTHING = "–"  # noqa: RUF001  # a dash for people, not a minus sign.


@dataclass(frozen=True)
class Check:
    """One figure: its name, what it must be and what it is, as people read them."""

    name: str
    expected: str
    got: str

    @property
    def holds(self) -> bool:
        return self.expected == self.got
