"""What suppression needs from outside, and what its parts need of each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from backhaul_common import batches
from backhaul_common.tenants import Tenant
from backhaul_proto.event.v1.event_pb2 import Event

from backhaul_suppression.model import (
    Address,
    Blocked,
    Change,
    Fact,
    Family,
    Kind,
    Origin,
    Row,
    RowKey,
    Scope,
    Sending,
    Target,
)


class Tenants(Protocol):
    """Who is served."""

    def get(self, tenant_id: str) -> Tenant | None:
        """The tenant as it was last heard of, or None."""
        ...

    async def require(self, tenant_id: str) -> Tenant:
        """The tenant, read now if it was not heard of. NOT_FOUND; UNAVAILABLE."""
        ...

    async def reload(self, tenant_id: str) -> Tenant | None:
        """Read the tenant now. UNAVAILABLE while the tenants are away."""
        ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of facts that were to be recorded.

    ``changes`` are those that these facts brought about. ``rows`` are the rows of every target of theirs, as they are
    after the commit, by ``RowKey.id``; a target that no row follows from is not among them. ``existing`` are the stored
    facts of ids that were there already, in the same or a higher revision: they stay as they are, and whoever derived
    the id from a caller's key compares. ``seq`` is the last change that the commit, or anything before it, made.
    """

    changes: Sequence[Change]
    rows: Mapping[str, Row]
    existing: Mapping[str, Fact]
    seq: int


class Facts(Protocol):
    """Where facts are kept."""

    async def commit(self, facts: Sequence[Fact]) -> Recorded:
        """Commit ``facts``, of whatever tenants, together with those that others commit meanwhile.

        Facts of registrations that are gone are left out. The same facts again change nothing. UNAVAILABLE, and then
        it is not known whether they were committed. Nobody may be told that it is done before ``Barrier.passed``.
        """
        ...

    async def record(self, facts: Sequence[Fact]) -> Recorded:
        """``commit``, and return when every copy that may answer has applied what follows."""
        ...


class Store(Protocol):
    """Where everything is kept."""

    async def ping(self) -> None:
        """Returns when it answers; UNAVAILABLE otherwise."""
        ...


class Lookup(Protocol):
    """The active rows, in memory."""

    def fresh(self) -> None:
        """Returns while this copy may answer; UNAVAILABLE past its lease.

        What was read from here *before* it returned is right as of when it was called: read first, then ask.
        """
        ...

    def held(self, registration: str, family: Family) -> Container[str]:
        """The canonical addresses that have any active row. The same object may change while it is kept. A question
        about many looks here first; it is for whoever asks to call ``fresh`` afterwards."""
        ...

    def blocking(self, address: Address, sending: Sending) -> Sequence[Blocked]:
        """Active rows that say no to ``sending``, in the order of their ids; empty only where none does. Of many the
        broadest are told. An address with very many is suppressed for everything. Calls ``fresh``: UNAVAILABLE."""
        ...

    def has(self, address: Address, kinds: Collection[Kind]) -> bool:
        """Whether the address has an active row of one of ``kinds``, or very many rows, as far as this copy knows:
        lease or not."""
        ...


class Narrow(Protocol):
    """The active rows, in memory, as far as they cover single senders, services and groups."""

    def narrow(self, address: Address) -> Collection[Target]:
        """What these rows of the address are about, as far as this copy knows; of very many only some."""
        ...


class Barrier(Protocol):
    """Where those who changed rows wait."""

    async def passed(self, seq: int) -> None:
        """Returns when every copy that may answer has applied the changes up to ``seq``. UNAVAILABLE."""
        ...


class Copies(Protocol):
    """The copies that may answer from memory, as they are stored: docs/decisions/0023.

    Each method is one step, which is done at one moment between its call and its return, by what the majority of the
    database's nodes has then. UNAVAILABLE: it may have been done, or be done later.
    """

    async def register(self, copy: str, applied: int) -> None:
        """``copy`` is there, and has applied the changes up to ``applied``."""
        ...

    async def last(self) -> int:
        """The number of the last change that is committed; 0 before the first."""
        ...

    async def renew(self, copy: str, applied: int) -> int | None:
        """Say that ``copy`` has applied so much. How much it must have applied to answer; None where it is not there,
        and nothing was said."""
        ...

    async def bar(self, seq: int) -> None:
        """Every copy that is there, and was not said to have applied ``seq``, must have."""
        ...

    async def behind(self, seq: int) -> Collection[str]:
        """The copies that must have applied ``seq``, and have not said so."""
        ...

    async def forget(self, copies: Collection[str], seq: int) -> None:
        """Those of ``copies`` that still have not said that they applied ``seq`` are there no more."""
        ...

    async def leave(self, copy: str) -> None:
        """``copy`` is there no more."""
        ...


ChangesListener = Callable[[str], None]
"""Called with a registration of which changes are applied here, or active rows were loaded. Neither blocks nor
raises."""


class Changes(Protocol):
    """Tells who follows a registration that it has changed."""

    def listen(self, listener: ChangesListener) -> Callable[[], None]:
        """Call ``listener`` from now on, always before anything is answered with what it is told of. What is returned
        ends it."""
        ...


@dataclass(frozen=True, slots=True)
class RowsQuery:
    """A question for a page of rows. What is None or empty does not filter; ``active`` None means any.

    ``span`` bounds ``recorded_at_us``, from inclusive to exclusive; 0 leaves an end open. ``size`` is 1 to 500, 0 is
    50. ``token`` is that of the page before, or empty.
    """

    family: Family | None = None
    kind: Kind | None = None
    origin: Origin | None = None
    scope: Scope | None = None
    active: bool | None = True
    span: tuple[int, int] = field(default=(0, 0))
    size: int = 0
    token: str = ""


class Reads(Protocol):
    """Reads what is stored. The registration comes first, by itself or in the address. All raise UNAVAILABLE."""

    async def fact(self, registration: str, fact_id: str) -> Fact | None:
        """The fact in its highest revision, or None."""
        ...

    async def facts(self, registration: str, fact_ids: Collection[str]) -> Mapping[str, Fact]:
        """Those of the facts that there are, by id, in their highest revisions. To be asked for a page of them."""
        ...

    async def row(self, key: RowKey) -> Row | None:
        """The row, lifted ones too, or None."""
        ...

    async def rows_of(self, address: Address) -> Sequence[Row]:
        """All rows of an address, lifted ones too, by kind and scope."""
        ...

    async def history_of(self, address: Address, size: int, token: str) -> tuple[Sequence[Change], str]:
        """The changes of its rows, the latest first, and the token of the next page, empty on the last.
        INVALID_ARGUMENT names ``page_size`` and ``page_token``."""
        ...

    async def rows(self, registration: str, query: RowsQuery) -> tuple[Sequence[Row], str]:
        """Rows, the latest change first, and the token of the next page, empty on the last. INVALID_ARGUMENT names
        ``page_size`` and ``page_token``."""
        ...

    async def changes_after(self, registration: str, position: int, limit: int) -> Sequence[Change]:
        """At most ``limit`` changes behind ``position``, in their order; fewer where they would be too large for one
        answer."""
        ...

    async def last_position(self, registration: str) -> int:
        """The position of the last change that is stored; 0 before the first."""
        ...

    def exported(self, registration: str, query: RowsQuery) -> AsyncIterator[Sequence[Row]]:
        """All rows that fit, by family and address, some at a time; of ``query`` the filters count alone. Each row is
        there once, as it is when it is read: of what changes meanwhile it holds the one or the other."""
        ...


class UnsettledRow(NamedTuple):
    """A row that became active by its change ``seq``, and may have to be lifted by what was heard of before."""

    id: str
    tenant_id: str
    row: Row
    seq: int


class Unsettled(Protocol):
    """Rows that are still to be settled. All raise UNAVAILABLE."""

    async def oldest(self, limit: int) -> Sequence[UnsettledRow]:
        """At most ``limit`` of them, by their changes."""
        ...

    async def settled(self, rows: Sequence[UnsettledRow]) -> None:
        """They are settled, unless they have changed since."""
        ...


class Arrivals(Protocol):
    """What the normalizer has heard."""

    async def of(
        self, tenant_id: str, recipient: str, since_us: int, size: int, token: str
    ) -> tuple[Sequence[Event], str]:
        """A page of a person's events that arrived at ``since_us`` or later, the latest first, and the token of the
        next page, empty on the last. UNAVAILABLE; DEADLINE_EXCEEDED."""
        ...


class Feed(batches.Feed, Protocol):
    """Events of all tenants, fairly."""
