"""How much calls and lists may say about one address. What events say is never refused: see ``index.MAX_COUNTED``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from backhaul_common.errors import Violation

from backhaul_suppression.model import EVERYTHING, Target

MAX_NARROW: Final = 200
"""Active rows of one address that cover single senders, services and groups. What covers everything there is always
room for: it is at most one row of each kind, and nobody may be kept from suppressing."""


def no_room(active: Collection[Target], target: Target) -> Violation | None:
    """Why an address cannot be suppressed for ``target`` as well; None where it can. ``active`` is what its active rows
    are about that cover less than everything."""
    if target.scope == EVERYTHING or len(active) < MAX_NARROW or target in active:
        return None
    return Violation(
        "scope",
        f"The address is suppressed for {MAX_NARROW} single senders, services and groups, as many as it may be.",
        "Suppress it for everything, or lift some of them first.",
    )
