"""The log of changes as differences."""

from __future__ import annotations

from backhaul_console.pages.changes import bounded, differences


def test_only_what_became_another_is_shown_by_its_path() -> None:
    before = {"mode": "enforce", "limits": {"burst": 1, "rate": 2}, "gone": "x", "keys": [{"id": "a"}], "same": [1]}
    after = {"mode": "observe", "limits": {"burst": 7, "rate": 2}, "keys": [{"id": "b"}], "same": [1], "on": True}
    assert differences(before, after) == [
        ("mode", "enforce", "observe"),
        ("limits.burst", "1", "7"),
        ("keys[0].id", "a", "b"),
        ("on", "", "true"),
        ("gone", "x", ""),
    ]


def test_where_one_side_is_known_it_is_all_of_it_but_for_what_is_empty() -> None:
    assert differences(None, {"a": None, "b": {}, "c": [], "d": ["x", "y"]}) == [
        ("b", "", "{}"),
        ("c", "", "[]"),
        ("d", "", "x, y"),
    ]
    assert differences(None, None) == []


def test_a_long_value_is_cut() -> None:
    ((_path, _before, after),) = differences({}, {"text": "x" * 10_000})
    assert len(after) <= 301


def test_what_has_no_room_beside_others_is_counted() -> None:
    few = [("mode", "enforce", "observe")]
    assert bounded(few) == (few, 0)
    many = [(f"environments.live.{number}", "", "'\"<>") for number in range(500)]
    shown, more = bounded(many)
    assert shown == many[: len(shown)]
    assert len(shown) + more == 500
    assert sum(len(path) + 120 + 4 * 5 for path, _before, _after in shown) < 2_500
    # One that is too long by itself is there all the same: differences has cut it.
    assert bounded([("x", "y" * 5_000, ""), ("z", "", "")]) == ([("x", "y" * 5_000, "")], 1)
    ((path, _before, _after),) = differences({}, {"p" * 9_000: "v"})
    assert len(path) <= 301
