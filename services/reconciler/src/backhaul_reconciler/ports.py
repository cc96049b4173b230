"""What the parts of the reconciler need of each other, and of what lies outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from backhaul_common.tenants import Tenant

from backhaul_reconciler.model import Begun, ChannelOf, Counts, Day, DayState, Difference, RunState


class Change(Protocol):
    """Something to be stored, for the transaction in which it is stored with all else that a page brought.

    What makes one does no I/O. It is called in a thread, once or more often, with a ``mongo.ThreadDatabase`` and a
    ``mongo.Session``; whether the tenant lives and the account is still held was read in that transaction before.
    """

    def __call__(self, database: Any, session: Any, /) -> None:
        """Write it."""
        ...


class Reports(Protocol):
    """The reports of runs, as the one who runs writes them."""

    def begin(self, of: ChannelOf, begun: Begun) -> Change:
        """A run begins. Where there is one of that id already, it goes on: nothing is changed."""
        ...

    def update(self, run: str, found: Counts) -> Change:
        """``found`` was found beyond what the report has."""
        ...

    def end(self, run: str, state: RunState, text: str, ended_at_us: int) -> Change:
        """A run is over, unless it was before; ``text`` says why it stopped."""
        ...


class Differences(Protocol):
    """Where the provider and Backhaul differ, as the one who runs writes it."""

    def seen(self, of: ChannelOf, run: str, seen_at_us: int, differences: Sequence[Difference]) -> Change:
        """These are. One that stood there already keeps when it was first seen, and takes all else over."""
        ...

    def settled(self, of: ChannelOf, message_ids: Sequence[str]) -> Change:
        """Of these messages both sides say the same now, whatever differed. Mostly nothing did: it is cheap then."""
        ...


class Days(Protocol):
    """The accounts of days, as the one who runs writes and needs them."""

    def compared(self, of: ChannelOf, day: Day, due_at_us: int | None) -> Change:
        """A day was compared. ``due_at_us`` is when it is compared again, None if it is not."""
        ...

    def left(self, of: ChannelOf, day: str, state: DayState, text: str, due_at_us: int | None) -> Change:
        """A day could not be compared, as ``text`` says. What was counted of it before stays, and when that was."""
        ...

    async def latest(self, of: ChannelOf) -> str | None:
        """The latest day that was ever compared or left. UNAVAILABLE."""
        ...

    async def due(self, of: ChannelOf, now_us: int) -> str | None:
        """The earliest open day that is due. UNAVAILABLE."""
        ...


class Calls(Protocol):
    """Runs that somebody asks for. They are done by whichever copy holds the account, before what is scheduled."""

    async def ask(self, tenant: Tenant, channel: str, span: tuple[int, int], *, dry_run: bool) -> str:
        """Have a run begin soon; its report's id. The report is there from now on, as RUNNING; it is read with
        ``Reports``' collection. ``channel`` is one of the tenant's, by its key; ``span`` is from inclusive, to
        exclusive, and lies in the past.

        NOT_FOUND where the channel is gone meanwhile; INVALID_ARGUMENT where the provider does not reach back so far;
        FAILED_PRECONDITION where it has no API, the channel has no pull_credentials, is switched off, or a run that
        somebody asked for is under way. UNAVAILABLE.
        """
        ...
