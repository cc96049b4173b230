"""What the log of changes says of one change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from backhaul_common.documents import Document

from backhaul_gateway.admission.logged import Stored


@dataclass(slots=True)
class Part:
    """One of many things that a request changes. ``target`` says which one, and may be completed once it is made;
    ``given`` is what the log shows as a request's body. Of what the gateway does not store itself whoever changes it
    says what was ``before``, and ``given`` is what is after."""

    target: dict[str, str]
    given: Document = field(default_factory=dict)
    before: Document | None = None


class Parts(Protocol):
    """Makes an entry of each of many things that a request changes, all of which name the request's own."""

    def changing(self, kind: str, tenant_id: str, part: Part) -> AbstractAsyncContextManager[Part]:
        """Around the change of one: its entry is begun before, and completed after it. UNAVAILABLE, and nothing is
        done."""
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
