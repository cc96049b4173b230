"""Pauses between tries."""

from __future__ import annotations

from itertools import islice

import pytest
from backhaul_common.pauses import pauses


@pytest.mark.parametrize("spread", [0.0, 0.2, 0.5])
def test_each_is_twice_the_one_before_up_to_the_longest_and_spread(spread: float) -> None:
    for _ in range(50):
        found = list(islice(pauses(0.1, 1.0, spread=spread), 6))
        for pause_s, middle_s in zip(found, (0.1, 0.2, 0.4, 0.8, 1.0, 1.0), strict=True):
            assert middle_s * (1 - spread) <= pause_s <= middle_s * (1 + spread)
    assert len(set(islice(pauses(1.0, 1.0), 20))) > 10


def test_none_is_longer_than_the_longest_nor_is_the_first() -> None:
    assert max(islice(pauses(0.1, 0.01), 5)) <= 0.012
