"""How often the page of a sample that was sent asks for its event."""

from __future__ import annotations

import pytest
from backhaul_console.pages.sampling import asks_every

SENT = 1_800_000_000


@pytest.mark.parametrize(
    ("ago_s", "every_s", "held_s"),
    [(0, 1, 5), (59, 1, 5), (60, 5, 5), (599, 5, 5), (600, 0, 0), (10**9, 0, 0), (-5, 1, 5), (-600, 0, 0)],
)
def test_it_asks_less_often_and_in_the_end_not_at_all(ago_s: int, every_s: int, held_s: int) -> None:
    now = float(SENT + ago_s)
    assert asks_every(str(SENT), now, held=False) == every_s
    assert asks_every(str(SENT), now, held=True) == held_s


@pytest.mark.parametrize("sent", ["", "soon", "-1", "1e9", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 400])
def test_what_is_no_time_is_not_asked_for(sent: str) -> None:
    assert asks_every(sent, float(SENT), held=False) == 0
