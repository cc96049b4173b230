"""How long buckets wait that fall behind again and again."""

from __future__ import annotations

from backhaul_audit.returns import FORGOTTEN_S, LONGEST_PAUSE_S, Returns


def test_each_time_waits_longer_than_the_one_before_and_nobody_for_another() -> None:
    now = 0.0
    returns = Returns(lambda: now)
    waits = [returns.pause_s("acme.1") for _ in range(2000)]
    assert waits[:4] == [0.0, 30.0, 60.0, 120.0]
    assert set(waits[6:]) == {LONGEST_PAUSE_S}
    assert returns.pause_s("globex.1") == 0.0
    now += FORGOTTEN_S + 1
    assert returns.pause_s("acme.1") == 0.0
