"""The table of states is total, moves only forward, and does not depend on order."""

from __future__ import annotations

import itertools

import pytest
from backhaul_channels import EventKind
from backhaul_normalizer.states import FULFILMENT, FULFILMENT_STATES, RANK, fulfilment_of, next_state

STATES = sorted(RANK, key=RANK.__getitem__)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", list(EventKind))
def test_every_pair_has_a_next_state_that_is_no_step_back(state: EventKind, kind: EventKind) -> None:
    after = next_state(state, kind)
    assert RANK[after] >= RANK[state]
    assert next_state(after, kind) is after  # A duplicate changes nothing.


def test_any_two_events_commute() -> None:
    for state, one, other in itertools.product(STATES, EventKind, EventKind):
        assert next_state(next_state(state, one), other) is next_state(next_state(state, other), one)


def test_ranks_name_their_kind() -> None:
    assert len(set(RANK.values())) == len(RANK)


def test_every_state_has_a_fulfilment_state() -> None:
    assert set(FULFILMENT) == set(RANK)
    for state in STATES:
        for invalid in (False, True):
            assert fulfilment_of(state, invalid_recipient=invalid) in {"", *FULFILMENT_STATES}


@pytest.mark.parametrize(
    ("kinds", "state", "fulfilment"),
    [
        (["delivered", "sent", "queued"], "delivered", "Delivered"),
        (["undelivered", "delivered"], "delivered", "Delivered"),
        (["delivered", "bounced"], "bounced", "Undelivered"),
        (["bounced", "opened"], "opened", "Delivered"),
        (["sent", "inbound"], "sent", "Sent"),
        (["queued", "unsubscribed", "subscribed"], "queued", "Queued"),
        (["deferred", "queued"], "deferred", "Sent"),
        (["unsubscribed"], "unknown", ""),
        # Calls: in whatever order a way's steps are told, it ends where the call did.
        (["completed", "answered", "ringing", "initiated", "queued"], "completed", "Delivered"),
        (["answered", "initiated", "ringing"], "answered", "Delivered"),
        (["busy", "ringing", "initiated"], "busy", "Undelivered"),
        (["ringing", "no_answer", "initiated"], "no_answer", "Undelivered"),
        (["failed", "initiated", "queued"], "failed", "Failed"),
        (["initiated", "canceled", "ringing"], "canceled", "Failed"),
        (["ringing", "initiated"], "ringing", "Sent"),
        # A recording and a machine's detection move nothing.
        (["unknown", "completed", "unknown"], "completed", "Delivered"),
    ],
)
def test_what_people_expect(kinds: list[str], state: str, fulfilment: str) -> None:
    reached = EventKind.UNKNOWN
    for kind in kinds:
        reached = next_state(reached, EventKind(kind))
    assert (reached.value, fulfilment_of(reached, invalid_recipient=False)) == (state, fulfilment)


def test_a_number_that_can_never_receive_counts_apart_only_where_it_failed() -> None:
    assert fulfilment_of(EventKind.FAILED, invalid_recipient=True) == "InvalidNumber"
    assert fulfilment_of(EventKind.UNDELIVERED, invalid_recipient=True) == "InvalidNumber"
    assert fulfilment_of(EventKind.DELIVERED, invalid_recipient=True) == "Delivered"
