"""The active rows of everybody, in memory.

One table for each registration and family leads from a canonical address to its rows as bytes (``entries``). So a
question about an address that has none, which most are, is one look into a dictionary of texts; a row takes some 170
bytes of memory (docs/decisions/0023 compares layouts); and all of a tenant is dropped at once.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Sequence
from heapq import nsmallest
from itertools import islice
from typing import Final, NamedTuple

from backhaul_common.errors import unavailable
from backhaul_common.tenants import Tenant

from backhaul_suppression.entries import Entry, merged, packed, unpacked, without
from backhaul_suppression.lease import Lease
from backhaul_suppression.model import EVERYTHING, Address, Blocked, Family, Kind, RowKey, Scope, Sending, Target
from backhaul_suppression.rules import blocks
from backhaul_suppression.table import Table

MAX_COUNTED: Final = 500
"""Active rows of one address that are looked at. An address that has more is suppressed for everything: a question
about it must not cost more and more, and whoever is so much suppressed is not to be contacted by oversight. That
follows from the rows alone, so it is the same on every copy, and over when enough of them are lifted."""

MAX_TOLD: Final = 20
"""Rows that an answer names: what covers everything before all else."""


class Now(NamedTuple):
    """What a row is now: ``entry`` None where it was lifted."""

    address: Address
    kind: Kind
    scope: Scope
    entry: Entry | None


class Index:
    """A ``Lookup``, and a ``Narrow``. It is as new as what was put into it; the lease says whether that will do."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._tables: dict[tuple[str, str], Table] = {}
        self._registrations: dict[str, str] = {}
        self._gone: set[str] = set()
        self._dropped: list[dict[str, bytes]] = []

    @property
    def addresses(self) -> int:
        """How many addresses have an active row."""
        return sum(map(len, tuple(self._tables.values())))

    @property
    def registrations(self) -> Collection[str]:
        """Those that may have an active row."""
        return {registration for registration, _ in tuple(self._tables)}

    def fresh(self) -> None:
        """See ``Lookup``."""
        self._lease.check()

    def held(self, registration: str, family: Family) -> Container[str]:
        """See ``Lookup``. UNAVAILABLE past the lease, and for a registration that was dropped."""
        self._lease.check()
        table = self._tables.get((registration, family))
        return self._table(registration, family) if table is None else table

    def blocking(self, address: Address, sending: Sending) -> Sequence[Blocked]:
        """See ``Lookup``."""
        # Before it is read: a lease that is got in between, were this in a thread of its own, would make what is old
        # look new. And afterwards: this process may have been stopped in between.
        self._lease.check()
        registration, family, text = address
        table = self._tables.get((registration, family))
        if table is None:
            table = self._table(registration, family)
        value = table.get(text)
        found = () if value is None else _blocking(address, value, sending)
        self._lease.check()
        return found

    def has(self, address: Address, kinds: Collection[Kind]) -> bool:
        """See ``Lookup``."""
        registration, family, text = address
        table = self._tables.get((registration, family))
        value = table.get(text) if table is not None else None
        if value is None:
            return False
        entries = unpacked(value)
        # Whoever hears of one too many looks once in vain.
        return any(entry.kind in kinds for entry in islice(entries, MAX_COUNTED)) or next(entries, None) is not None

    def narrow(self, address: Address) -> Collection[Target]:
        """See ``Narrow``."""
        registration, family, text = address
        table = self._tables.get((registration, family))
        value = table.get(text) if table is not None else None
        entries = islice(unpacked(value), MAX_COUNTED) if value is not None else ()
        return {Target(kind, scope) for kind, scope, _, _ in entries if scope != EVERYTHING}

    def load(self, rows: Iterable[tuple[str, str, str, bytes]]) -> None:
        """``put`` for millions of active rows: registration, family, address, and the row as ``packed``."""
        for registration, family, text, row in rows:
            table = self._tables.get((registration, family))
            if table is None:
                if registration in self._gone:
                    continue
                table = self._table(registration, Family(family))
            value = table.get(text)
            table.put(text, row if value is None else merged(value, row))

    def put(self, rows: Iterable[Now]) -> None:
        """Take over what rows are now. Those of registrations that were dropped are left out."""
        for address, kind, scope, entry in rows:
            registration, family, text = address
            if registration in self._gone:
                continue
            table = self._tables.get((registration, family))
            if table is None:
                table = self._table(registration, family)
            value = table.get(text)
            left = b"" if value is None else without(value, kind, scope)
            table.put(text, left if entry is None else left + packed(entry))

    def clear(self) -> None:
        """Forget all rows, before they are loaded anew."""
        # Whoever was given one of the old tables sees what was so when it was asked for, and not nothing.
        for table in self._tables.values():
            self._dropped += table.parts()
        self._tables = {}

    def tidy(self) -> None:
        """Let go of some of what was dropped. To be called now and then."""
        if self._dropped:
            self._dropped.pop()

    def tenant_changed(self, tenant_id: str, tenant: Tenant | None) -> None:
        """A listener of the tenants: what a registration had is dropped when it is known to be gone, for good."""
        before = self._registrations.get(tenant_id)
        if tenant is not None:
            self._registrations[tenant_id] = tenant.registration
        else:
            self._registrations.pop(tenant_id, None)
        if before is not None and (tenant is None or tenant.registration != before):
            # Whoever still asks about it must not be told that nobody is suppressed.
            self._gone.add(before)
            for family in Family:
                if (table := self._tables.pop((before, family), None)) is not None:
                    self._dropped += table.parts()

    def _table(self, registration: str, family: Family) -> Table:
        if registration in self._gone:
            raise unavailable("The tenant")
        return self._tables.setdefault((registration, family), Table())


def _blocking(address: Address, value: bytes, sending: Sending) -> Sequence[Blocked]:
    entries = unpacked(value)
    looked_at = list(islice(entries, MAX_COUNTED))
    if next(entries, None) is None:
        found = [entry for entry in looked_at if blocks(entry.kind, entry.scope, sending)]
    else:
        # Those that may be asked for, if any, and in no case nothing.
        found = [entry for entry in looked_at if blocks(entry.kind, EVERYTHING, sending)] or looked_at
    if len(found) > MAX_TOLD:
        found = nsmallest(MAX_TOLD, found, key=_broadest)
    told = [
        Blocked(RowKey(address, kind, scope).id, kind, scope, since_us, event_id)
        for kind, scope, since_us, event_id in found
    ]
    told.sort()
    return told


def _broadest(entry: Entry) -> tuple[bool, Scope, Kind]:
    return entry.scope != EVERYTHING, entry.scope, entry.kind
