"""What a caller that is bound to purposes sees: what blocks messages of these, and nothing else."""

from __future__ import annotations

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.rpc import caller

from backhaul_suppression.model import Kind
from backhaul_suppression.rules import BLOCKS


def kinds_seen() -> frozenset[Kind]:
    """The kinds that whoever makes the present call may see."""
    purposes = caller().purposes
    return frozenset(kind for kind, blocked in BLOCKS.items() if not purposes or blocked.intersection(purposes))


def require_seen(kind: Kind | None, field: str = "kind") -> None:
    """FORBIDDEN where the caller may not see ``kind``; None is all kinds."""
    seen = kinds_seen()
    if len(seen) == len(Kind) or kind in seen:
        return
    known = ", ".join(sorted(seen))
    raise BackhaulError(
        Code.FORBIDDEN,
        f"{caller()} is bound to {' and '.join(caller().purposes)} messages, and sees only what blocks these.",
        field=field,
        fix=f"Name one of: {known}.",
    )
