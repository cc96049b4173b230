"""Ids of rows."""

from __future__ import annotations

from itertools import combinations

from backhaul_suppression.model import EVERYTHING, Address, Family, Kind, RowKey, Scope, ScopeKind


def test_rows_that_differ_in_anything_have_different_ids() -> None:
    keys = [
        RowKey(Address("acme.1", Family.PHONE, "+15550001"), Kind.STOP, EVERYTHING),
        RowKey(Address("acme.2", Family.PHONE, "+15550001"), Kind.STOP, EVERYTHING),
        RowKey(Address("acme.1", Family.VOICE, "+15550001"), Kind.STOP, EVERYTHING),
        RowKey(Address("acme.1", Family.PHONE, "+15550001"), Kind.MANUAL, EVERYTHING),
        RowKey(Address("acme.1", Family.PHONE, "+15550001"), Kind.STOP, Scope(ScopeKind.SENDER, "+1")),
        RowKey(Address("acme.1", Family.PHONE, "+15550001"), Kind.STOP, Scope(ScopeKind.GROUP, "+1")),
        RowKey(Address("acme.1", Family.PHONE, "+15550001+"), Kind.STOP, Scope(ScopeKind.GROUP, "1")),
    ]
    assert all(one.id != other.id for one, other in combinations(keys, 2))
