"""What becomes of what fails: nothing but an outage is waited for without end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nats.errors
import pytest
from backhaul_common.disposition import MAX_PAUSE_S, MAX_TRIES, Disposition, Tries, disposition, pause_s
from backhaul_common.errors import unavailable
from pymongo.errors import AutoReconnect, DocumentTooLarge

OUTAGES = [unavailable("JetStream"), AutoReconnect("gone"), nats.errors.NoServersError(), TimeoutError()]
FAULTS = [nats.errors.MaxPayloadError(), DocumentTooLarge("x"), AttributeError("a bug"), ValueError()]


def test_what_succeeded_is_done() -> None:
    assert disposition(None) is Disposition.DONE


@pytest.mark.parametrize("error", OUTAGES)
def test_an_outage_is_waited_for_however_often(error: Exception) -> None:
    assert {disposition(error, tries) for tries in (1, MAX_TRIES, 1000)} == {Disposition.AWAY}


@pytest.mark.parametrize("error", FAULTS)
def test_what_waiting_does_not_mend_is_tried_a_bounded_number_of_times(error: Exception) -> None:
    decided = [disposition(error, tries) for tries in range(1, MAX_TRIES + 2)]
    assert decided == [Disposition.LATER] * (MAX_TRIES - 1) + [Disposition.DEAD_LETTER] * 2


def test_pauses_grow_and_end_somewhere() -> None:
    pauses = [pause_s(times) for times in range(1, 2000)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_S


def test_what_failed_twice_is_tried_by_itself() -> None:
    @dataclass
    class One:
        stream_seq: int

    tries = Tries()
    ones: Any = [One(n) for n in range(4)]
    tries.failed(1)
    assert tries.apart(ones) == [ones]
    assert tries.failed(1) == 2
    assert tries.apart(ones) == [[ones[0], ones[2], ones[3]], [ones[1]]]
    assert tries.apart(ones[1:2]) == [[ones[1]]]
    tries.done(ones[1:2])
    assert tries.apart(ones) == [ones]
    for n in range(20_000):
        tries.failed(n)
    assert len(tries) <= 10_000
