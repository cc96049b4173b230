"""What the log of changes says of one change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from backhaul_common.documents import Document

from backhaul_gateway.admission.logged import Stored


@dataclass(frozen=True, slots=True)
class Begun:
    """What is known of a change before it. ``registration`` is that of the tenant that it is about, both empty where it
    is about none; ``own`` says that it is the tenant itself who changes."""

    id: str
    at: datetime
    author: str
    client: str
    tenant_id: str
    registration: str
    own: bool
    action: str
    kind: str
    target: Mapping[str, str]
    trace_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change: the answer's status, and texts of JSON, empty for what was or is not. Where ``tenant``
    is given, it is the id and registration of the tenant, known only now."""

    status: int
    target: Mapping[str, str]
    before: str
    after: str
    cut: bool
    tenant: tuple[str, str] | None = None


class ChangeStore(Protocol):
    """Where entries are kept. UNAVAILABLE from every method while it is away."""

    async def begin(self, begun: Begun, outcome: Outcome | None = None) -> None:
        """Return when the entry is durable. What a tenant changes of itself is refused once it is being deleted."""
        ...

    async def complete(self, id_: str, outcome: Outcome) -> None:
        """Add what became of it. One that is gone with its tenant stays gone."""
        ...


Sides = Callable[[Any, Any, Mapping[str, Any]], Sequence[Document | None]]
"""The two that an entry shows, of a stored value before and after, and of the parts of the path."""


@dataclass(slots=True)
class Noted:
    """What the request at hand has read and written of what the gateway stores, and the log shows of it.

    A store names the revision that it replaces: what was read at that revision is exactly what was before, however many
    change the same at once.
    """

    stored: Stored
    seen: Any = None
    before: Any = None
    after: Any = None
    wrote: bool = False

    def replaced(self, before: Any, after: Any) -> None:
        """One change: the first one's ``before`` and the last one's ``after`` count."""
        if not self.wrote:
            self.before, self.wrote = before, True
        self.after = after


NOTED: ContextVar[Noted | None] = ContextVar("noted", default=None)
"""Of the request at hand, where it is one that is logged."""


def noted_of(stored: Stored) -> Noted | None:
    """Where what is ``stored`` so is noted now; None where it is not what the request at hand is about."""
    noted = NOTED.get()
    return noted if noted is not None and noted.stored == stored else None
