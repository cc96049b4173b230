"""The rows in memory: what they say, and when they say nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Tenant
from backhaul_suppression.entries import Entry, packed, packed_words, unpacked, without
from backhaul_suppression.index import MAX_COUNTED, MAX_TOLD, Index, Now
from backhaul_suppression.lease import LEASE_S, Lease
from backhaul_suppression.model import (
    EVERYTHING,
    Address,
    Blocked,
    Family,
    Kind,
    Purpose,
    RowKey,
    Scope,
    ScopeKind,
    Sending,
    Target,
)
from backhaul_suppression.table import MAX_WHOLE, PARTS, Table
from hypothesis import given
from hypothesis import strategies as st

ANN = Address("acme.1", Family.PHONE, "+14155550100")
EVENT = "0123456789abcdef" * 2
SHOP = Scope(ScopeKind.SENDER, "+14155550199")


class Hand:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def index(hand: Hand) -> Index:
    lease = Lease(hand)
    lease.extend(hand.now)
    return Index(lease)


def now(kind: Kind, scope: Scope = EVERYTHING, *, active: bool = True, address: Address = ANN) -> Now:
    return Now(address, kind, scope, Entry(kind, scope, 5, EVENT) if active else None)


def tenant(registration: str) -> Tenant:
    then = datetime(2026, 11, 26, tzinfo=UTC)
    return Tenant(
        id="acme", queue_path="acme", name="Acme", registration=registration, created_at=then, updated_at=then
    )


texts = st.text(st.characters(codec=None, categories=None), max_size=40)
scopes = st.one_of(
    st.just(EVERYTHING), st.builds(Scope, st.sampled_from([kind for kind in ScopeKind if kind != "all"]), texts)
)
events = st.one_of(st.just(""), st.just(EVENT), st.just(EVENT.upper()), texts)
entries = st.builds(Entry, st.sampled_from(Kind), scopes, st.integers(-(2**63), 2**63 - 1), events)


@given(st.lists(entries, unique_by=lambda entry: (entry.kind, entry.scope)))
def test_what_is_packed_comes_back_as_it_was(rows: list[Entry]) -> None:
    value = b"".join(map(packed, rows))
    assert list(unpacked(value)) == rows
    for row in rows:
        left = [other for other in rows if other is not row]
        assert list(unpacked(without(value, row.kind, row.scope))) == left


@given(st.lists(entries, max_size=4), st.lists(entries, max_size=4))
def test_what_is_loaded_is_what_is_put(first: list[Entry], second: list[Entry]) -> None:
    lease = Lease(Hand())
    lease.extend(Hand.now)
    loaded, put = Index(lease), Index(lease)
    for rows in (first, second):
        words = [packed_words(kind, scope.kind, scope.id, since_us, event) for kind, scope, since_us, event in rows]
        loaded.load((*ANN, word) for word in words)
        put.put(Now(ANN, row.kind, row.scope, row) for row in rows)
    assert loaded.blocking(ANN, Sending()) == put.blocking(ANN, Sending())
    assert loaded.addresses == put.addresses


def test_the_usual_row_takes_25_bytes() -> None:
    assert len(packed(Entry(Kind.STOP, EVERYTHING, 1764000000000000, EVENT))) == 25


def test_every_row_that_blocks_is_told_in_the_order_of_ids(index: Index) -> None:
    index.put([now(Kind.STOP), now(Kind.COMPLAINT), now(Kind.STOP, SHOP)])
    found = index.blocking(ANN, Sending())
    rows = [(Kind.STOP, EVERYTHING), (Kind.COMPLAINT, EVERYTHING), (Kind.STOP, SHOP)]
    assert found == sorted(Blocked(RowKey(ANN, *row).id, *row, 5, EVENT) for row in rows)
    assert [row.kind for row in index.blocking(ANN, Sending(Purpose.TRANSACTIONAL, sender="+1"))] == [Kind.STOP]


def shop(number: int) -> Scope:
    return Scope(ScopeKind.SENDER, f"+1650555{number:04}")


def test_of_many_rows_the_broadest_are_told(index: Index) -> None:
    index.put(now(Kind.STOP, shop(number)) for number in range(MAX_TOLD + 5))
    index.put([now(Kind.MANUAL), now(Kind.UNSUBSCRIBE)])
    found = index.blocking(ANN, Sending())
    assert len(found) == MAX_TOLD
    assert {one.kind for one in found if one.scope == EVERYTHING} == {Kind.MANUAL, Kind.UNSUBSCRIBE}
    assert list(found) == sorted(found)
    (only,) = index.blocking(ANN, Sending(Purpose.TRANSACTIONAL, sender=""))
    assert only.kind is Kind.MANUAL


@pytest.mark.parametrize("reverse", [False, True])
def test_who_is_suppressed_for_very_many_scopes_is_suppressed_for_everything(reverse: bool, index: Index) -> None:
    rows = [now(Kind.UNSUBSCRIBE, shop(number)) for number in range(MAX_COUNTED)]
    asked = Sending(Purpose.TRANSACTIONAL, sender="+14155550100")
    index.put(rows)
    assert not index.blocking(ANN, asked)
    assert not index.has(ANN, {Kind.STOP})
    # One more, in whatever order they are heard of.
    index.put([now(row.kind, row.scope, active=False) for row in rows])
    rows.append(now(Kind.UNSUBSCRIBE, SHOP))
    index.put(reversed(rows) if reverse else rows)
    assert len(index.blocking(ANN, asked)) == MAX_TOLD
    assert len(index.blocking(ANN, Sending(Purpose.MARKETING, sender="+14155550100"))) == MAX_TOLD
    assert index.has(ANN, {Kind.STOP})
    assert not index.blocking(ANN._replace(text="+14155550101"), asked)
    # Until some are lifted.
    index.put([now(Kind.UNSUBSCRIBE, shop(3), active=False)])
    assert not index.blocking(ANN, asked)


def test_what_is_narrow_is_told_without_what_covers_everything(index: Index) -> None:
    index.put([now(Kind.STOP, SHOP), now(Kind.STOP), now(Kind.MANUAL, SHOP)])
    assert set(index.narrow(ANN)) == {Target(Kind.STOP, SHOP), Target(Kind.MANUAL, SHOP)}
    assert not index.narrow(ANN._replace(text="+14155550101"))
    assert not index.narrow(ANN._replace(registration="other.1"))


def test_a_row_is_replaced_and_lifted_by_itself(index: Index) -> None:
    index.put([now(Kind.STOP), now(Kind.STOP, SHOP)])
    index.put([Now(ANN, Kind.STOP, EVERYTHING, Entry(Kind.STOP, EVERYTHING, 7))])
    assert {(row.scope, row.since_us, row.event_id) for row in index.blocking(ANN, Sending())} == {
        (EVERYTHING, 7, ""),
        (SHOP, 5, EVENT),
    }
    index.put([now(Kind.STOP, active=False)])
    assert [row.scope for row in index.blocking(ANN, Sending())] == [SHOP]
    assert ANN.text in index.held(ANN.registration, ANN.family)
    index.put([now(Kind.STOP, SHOP, active=False), now(Kind.MANUAL, active=False)])
    assert index.blocking(ANN, Sending()) == ()
    assert ANN.text not in index.held(ANN.registration, ANN.family)
    assert index.addresses == 0


def test_families_and_registrations_do_not_meet(index: Index) -> None:
    index.put([now(Kind.STOP)])
    for other in (ANN._replace(family=Family.VOICE), ANN._replace(registration="acme.2")):
        assert index.blocking(other, Sending()) == ()
        assert not index.has(other, set(Kind))
    assert index.has(ANN, {Kind.STOP})
    assert not index.has(ANN, {Kind.MANUAL})


def test_nothing_is_answered_past_the_lease(index: Index, hand: Hand) -> None:
    index.put([now(Kind.STOP)])
    hand.now += LEASE_S - 0.001
    assert index.blocking(ANN, Sending())
    hand.now += 0.001
    for question in (
        lambda: index.blocking(ANN, Sending()),
        index.fresh,
        lambda: index.held(ANN.registration, ANN.family),
    ):
        with pytest.raises(BackhaulError) as refused:
            question()
        assert refused.value.code is Code.UNAVAILABLE
    assert index.has(ANN, {Kind.STOP})


def test_who_loads_says_so_and_not_that_it_has_lost_touch(hand: Hand) -> None:
    lease = Lease(hand)

    def said() -> str:
        with pytest.raises(BackhaulError) as caught:
            Index(lease).fresh()
        assert (caught.value.code, caught.value.fix[:12]) == (Code.UNAVAILABLE, "Do not send.")
        return caught.value.message

    assert "loading" in said()
    lease.extend(hand.now)
    hand.now += LEASE_S
    assert "lost touch" in said()
    lease.end()
    assert "lost touch" in said()
    # What was applied is not so any more: all rows are loaded anew.
    lease.restart()
    assert "loading" in said()
    lease.extend(hand.now)
    lease.end()
    assert "lost touch" in said()


def test_a_lease_that_runs_out_is_told_once(hand: Hand) -> None:
    told: list[float] = []
    lease = Lease(hand, lambda: told.append(hand.now))
    lease.look()
    lease.extend(hand.now)
    hand.now += LEASE_S - 0.001
    lease.extend(hand.now)
    hand.now += LEASE_S - 0.001
    lease.look()
    lease.end()
    lease.look()
    # None of it has run out: it was renewed in time, and given up.
    assert not told
    lease.extend(hand.now)
    hand.now += LEASE_S
    lease.look()
    lease.look()
    assert len(told) == 1
    lease.extend(hand.now)
    assert lease.held
    hand.now += 2 * LEASE_S
    lease.extend(hand.now)
    assert lease.held
    assert len(told) == 2
    hand.now += LEASE_S
    lease.end()
    assert len(told) == 3


def test_of_a_registration_that_is_gone_nothing_is_said_any_more(index: Index) -> None:
    index.tenant_changed("acme", tenant("acme.1"))
    index.put([now(Kind.STOP)])
    index.tenant_changed("acme", tenant("acme.1"))
    assert index.blocking(ANN, Sending())
    index.tenant_changed("acme", tenant("acme.2"))
    index.put([now(Kind.STOP)])
    assert index.addresses == 0
    with pytest.raises(BackhaulError, match="The tenant"):
        index.blocking(ANN, Sending())
    with pytest.raises(BackhaulError, match="The tenant"):
        index.held(ANN.registration, ANN.family)
    assert index.blocking(ANN._replace(registration="acme.2"), Sending()) == ()
    index.tenant_changed("acme", None)
    with pytest.raises(BackhaulError):
        index.blocking(ANN._replace(registration="acme.2"), Sending())


def test_what_was_given_to_look_into_shows_what_is_put_later(index: Index) -> None:
    held = index.held(ANN.registration, ANN.family)
    index.put([now(Kind.STOP)])
    assert ANN.text in held
    index.clear()
    assert ANN.text in held
    assert ANN.text not in index.held(ANN.registration, ANN.family)


def test_a_large_table_is_in_parts_and_says_the_same() -> None:
    table = Table()
    for number in range(MAX_WHOLE):
        table.put(str(number), b"1")
    assert len(table.parts()) == 1
    for number in range(MAX_WHOLE, 2 * MAX_WHOLE):
        table.put(str(number), b"2")
    assert len(table.parts()) == PARTS
    assert max(map(len, table.parts())) < 4 * MAX_WHOLE / PARTS
    assert len(table) == 2 * MAX_WHOLE
    assert (table.get("0"), table.get(str(MAX_WHOLE)), table.get("x")) == (b"1", b"2", None)
    table.put("0", b"")
    assert "0" not in table
    assert "1" in table
    assert len(table) == 2 * MAX_WHOLE - 1
