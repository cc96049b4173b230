"""Shares of the callback log: the arithmetic."""

from __future__ import annotations

import pytest
from backhaul_gateway.admission.room import CallbackRoom, LogState


def looked(room: CallbackRoom, limit: int, total: int, **messages: int) -> None:
    room.begin_look()
    subjects = {f"callbacks.{path}.twilio": count for path, count in messages.items()}
    room.looked(LogState(limit, total, sum(messages.values()), 1, subjects))


def test_one_may_hold_half_and_two_a_third_each() -> None:
    room = CallbackRoom()
    looked(room, 900, 440, greedy=440)
    assert room.admits("greedy", 10)
    assert not room.admits("greedy", 11)
    assert room.admits("second", 220)
    assert not room.admits("second", 231)
    looked(room, 900, 600, greedy=300, second=300)
    assert not room.admits("greedy", 1)
    assert not room.admits("second", 1)
    assert room.admits("third", 150)
    assert room.fill == pytest.approx(2 / 3)


def test_a_full_log_is_nobodys_share() -> None:
    room = CallbackRoom()
    looked(room, 900, 850, greedy=700, second=150)
    # What does not fit at all is for the log to refuse, of whoever holds little.
    assert room.admits("other", 60)
    assert not room.admits("greedy", 60)
    assert not room.admits("second", 1)


def test_without_a_limit_there_are_no_shares() -> None:
    room = CallbackRoom()
    looked(room, 0, 10**12, greedy=10**9)
    assert room.admits("greedy", 10**9)
    assert room.fill == 0


def test_what_is_stored_since_the_last_look_counts_at_once() -> None:
    room = CallbackRoom()
    looked(room, 10_000, 0)
    while room.admits("greedy", 0):
        room.stored("callbacks.greedy.twilio", 500)
    assert 4_900 <= room.held("greedy") <= 5_600
    assert room.admits("other", 2_000)
    # What comes in while the broker answers may be in the answer or not; it is not forgotten.
    room.begin_look()
    room.stored("callbacks.greedy.twilio", 500)
    room.looked(LogState(10_000, 5_000, 9, 1, {"callbacks.greedy.twilio": 9}))
    assert 5_500 <= room.held("greedy") <= 5_700


def test_sizes_are_learned_and_add_up_to_what_there_is() -> None:
    room = CallbackRoom()
    for _ in range(10):
        room.stored("callbacks.large.twilio", 9_000)
    room.learn("callbacks.small.twilio", 100)
    looked(room, 10**7, 10**6, large=100, small=1_000)
    assert room.held("large") / room.held("small") == pytest.approx(9, rel=0.1)
    assert room.held("large") + room.held("small") == pytest.approx(10**6)
    # Of what is not known, the average is as good as anything.
    fresh = CallbackRoom()
    state = LogState(10**7, 10**6, 1_100, 1, {"callbacks.large.twilio": 100, "callbacks.small.twilio": 1_000})
    assert fresh.unknown(state, 1) == ["callbacks.small.twilio"]
    fresh.begin_look()
    fresh.looked(state)
    assert fresh.held("small") == pytest.approx(10**6 * 10 / 11)


def test_what_is_gone_says_nothing_of_what_is_left() -> None:
    """Small messages that were processed and deleted, before and between large ones, make no large one small."""
    room = CallbackRoom()
    small, large = 300, 700_000
    for _ in range(100_000):
        room.stored("callbacks.greedy.twilio", small)
    looked(room, 10**8, 100_000 * small, greedy=100_000)
    held = 0
    while room.admits("greedy", large) and held < 1000:
        held += 1
        room.stored("callbacks.greedy.twilio", large)
        # All but one of the small ones have been deleted meanwhile.
        looked(room, 10**8, small + held * large, greedy=1 + held)
    assert held == 10**8 // 2 // large
    # Both kinds by turns, so that there is no end of changes; the older half is deleted.
    for _ in range(5_000):
        room.stored("callbacks.mixed.twilio", 100)
        room.stored("callbacks.mixed.twilio", 1_000)
    looked(room, 10**8, 10**8, mixed=5_000)
    assert room.held("mixed") == pytest.approx(5_000 * (550 + 22 + 40), rel=0.1)
    for _ in range(5_000):
        room.stored("callbacks.mixed.twilio", 100_000)
    looked(room, 10**10, 5_000 * 100_000, mixed=5_000)
    assert room.held("mixed") == pytest.approx(5_000 * 100_000, rel=0.01)


def test_nobody_is_refused_for_what_another_has_stored_by_way_of_another_gateway() -> None:
    """Each gateway knows the sizes of what passed through it, and one sees nothing but the greedy one's smallest."""
    here, there = CallbackRoom(), CallbackRoom()
    size = {"honest": 1_000, "large": 1_000_000}
    for room in (here, there):
        room.learn("callbacks.honest.twilio", size["honest"])
    for _ in range(100):
        here.stored("callbacks.greedy.twilio", 300)
        there.stored("callbacks.greedy.twilio", size["large"])
    total = 40_000 * size["honest"] + 100 * 300 + 490 * size["large"]
    for room in (here, there):
        looked(room, 10**9, total, honest=40_000, greedy=590)
        assert room.held("honest") == pytest.approx(40_000 * size["honest"], rel=0.2)
        assert room.admits("honest", size["honest"])
    assert not there.admits("greedy", size["large"])
    # As soon as it sends the same here, it is seen here too.
    for _ in range(100):
        here.stored("callbacks.greedy.twilio", size["large"])
    looked(here, 10**9, total + 100 * size["large"], honest=40_000, greedy=690)
    assert here.held("honest") == pytest.approx(40_000 * size["honest"], rel=0.3)
    # Of whom nothing was seen may be what is not explained.
    looked(here, 10**9, total + 200 * size["large"], honest=40_000, greedy=690, unseen=100)
    assert here.held("unseen") > 50 * size["large"]
