"""What can be wrong, and how much of it was found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from backhaul_digests.model import Finding, Subject


class Problem(StrEnum):
    """What is wrong, in one word."""

    NOT_FOUND = "not_found"
    INVALID_FORMAT = "invalid_format"
    MOVED = "moved"
    KEY_NOT_FOUND = "key_not_found"
    SIGNATURE = "signature"
    PREVIOUS = "previous"
    GAP = "gap"
    HASH = "hash"
    INFLATED_HASH = "inflated_hash"
    TRAILING_DATA = "trailing_data"
    COUNT = "count"
    UNKNOWN_HEAD = "unknown_head"


@dataclass(slots=True)
class Tally:
    """How many of each were checked, and which span the digests cover that were found (0 where there is none)."""

    digests: int = 0
    valid_digests: int = 0
    files: int = 0
    valid_files: int = 0
    found_from_us: int = 0
    found_to_us: int = 0
    invalid: bool = False

    def add(self, finding: Finding) -> None:
        """Count ``finding``."""
        self.invalid |= not finding.valid
        if finding.subject is Subject.DIGEST:
            self.digests += 1
            self.valid_digests += finding.valid
        elif finding.subject is Subject.FILE:
            self.files += 1
            self.valid_files += finding.valid

    def cover(self, from_us: int, to_us: int) -> None:
        """A digest of this span was found."""
        self.found_from_us = min(self.found_from_us or from_us, from_us)
        self.found_to_us = max(self.found_to_us, to_us)
