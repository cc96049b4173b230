"""The names that a list may use."""

from __future__ import annotations

from typing import Final

from backhaul_common.lines.columns import Columns

COLUMNS: Final = (
    "address", "family", "kind", "scope_kind", "scope", "effective_at", "source", "reference", "note",
)  # fmt: skip
"""What a line can say, in the order in which an export says it."""

STANDING: Final = "standing"
"""``active`` or ``lifted``. An export that holds lifted rows says it; an import leaves those lines as they are."""

ALLOWED: Final = Columns(COLUMNS, silent=(STANDING,))
