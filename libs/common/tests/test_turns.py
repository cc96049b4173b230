"""Turns of long work: how long others had the loop is told apart from the work."""

from __future__ import annotations

import asyncio
import time

import pytest
from backhaul_common.turns import Turn


@pytest.mark.parametrize("rest", [0.0, 1.0])
async def test_what_others_had_of_the_loop_is_told(rest: float) -> None:
    theirs_s = 0.0

    async def other() -> None:
        nonlocal theirs_s
        while True:
            began = time.perf_counter()
            while time.perf_counter() - began < 0.01:
                pass
            theirs_s += time.perf_counter() - began
            await asyncio.sleep(0)

    turn, task = Turn(0.005, rest), asyncio.create_task(other())
    began, worked_s = time.perf_counter(), 0.0
    for _ in range(20):
        at = time.perf_counter()
        while time.perf_counter() - at < 0.006:
            pass
        worked_s += time.perf_counter() - at
        await turn.over()
    took_s = time.perf_counter() - began
    task.cancel()
    assert turn.away_s >= max(theirs_s, worked_s * rest)
    # Whatever else the machine does lies in both.
    assert abs(took_s - turn.away_s - worked_s) < 0.01


async def test_work_that_is_shorter_than_a_turn_is_not_interrupted() -> None:
    turn = Turn(60.0, 1.0)
    await turn.over()
    assert turn.away_s == 0
