"""Imports as they are served, apart from what becomes of the facts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import chain, repeat
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lines.pace import MAX_SILENCE_S, SLOWEST_BYTES_PER_S
from backhaul_common.metering import Metrics
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_suppression.commands import By
from backhaul_suppression.files.calls import ImportCalls
from backhaul_suppression.files.importing import CHUNK_LINES, Import
from backhaul_testing import make
from held_facts import HeldFacts

ACME, BY = make.tenant("acme"), By("key:1")
AT_US = 1_800_000_000_000_000


async def test_lines_are_counted_by_what_became_of_them() -> None:
    metrics, facts = Metrics("suppression"), HeldFacts()
    serving = ImportCalls(Import(facts, facts), lambda: AT_US, metrics)
    numbers = b"".join(b"+1415555%04d\n" % number for number in range(CHUNK_LINES + 10))

    async def requests() -> AsyncIterator[pb.ImportRequest]:
        yield pb.ImportRequest(data=b"address\n" + numbers + b"0151\n" * 3 + b"+14155550001\n")

    first = pb.ImportRequest(tenant_id="acme", format=pb.FILE_FORMAT_CSV)
    told = [one async for one in serving.run(ACME, BY, first, requests())]
    assert [one.lines for one in told] == [0, CHUNK_LINES, CHUNK_LINES + 14]
    lines = metrics.render().decode().splitlines()
    for outcome, count in (("changed", CHUNK_LINES + 10), ("unchanged", 1), ("refused", 3)):
        (line,) = (line for line in lines if "import_lines_total{" in line and f'outcome="{outcome}"' in line)
        assert 'tenant="acme"' in line
        assert float(line.rpartition(" ")[2]) == count
    metrics.close()


class Hand:
    """A clock that callers move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def calls(hand: Hand, **options: Any) -> ImportCalls:
    facts = HeldFacts()
    return ImportCalls(Import(facts, facts), lambda: AT_US, Metrics("suppression"), clock=hand, **options)


FIRST = pb.ImportRequest(tenant_id="acme", format=pb.FILE_FORMAT_CSV, data=b"address,note\n")
LINE, SHORT = b"+14155550001," + b"n" * 500 + b"\n", b"+14155550001,\n"


async def sent(hand: Hand, pieces: Iterable[bytes], every_s: float) -> AsyncIterator[pb.ImportRequest]:
    for piece in pieces:
        hand.now += every_s
        yield pb.ImportRequest(data=piece)
    yield pb.ImportRequest(last=True)


async def test_who_sends_slowly_but_steadily_is_heard_to_the_end() -> None:
    hand = Hand()
    # Ten kilobytes a second, for minutes: in small pieces, or in such as our own client sends.
    for pieces, every_s in (([LINE * 2] * 1000, 0.1), ([LINE * 500] * 4, 26.0)):
        told = [one async for one in calls(hand).run(ACME, BY, FIRST, sent(hand, pieces, every_s))]
        assert told[-1].done
        assert told[-1].lines == sum(piece.count(b"\n") for piece in pieces)


async def test_who_trickles_keeps_no_place_from_others() -> None:
    hand = Hand()
    serving = calls(hand)
    # A large piece now is no leave to send next to nothing for the rest of the day.
    pieces = chain([LINE * 500], repeat(SHORT))
    with pytest.raises(BackhaulError) as caught:
        async for _ in serving.run(ACME, BY, FIRST, sent(hand, pieces, 10.0)):
            pass
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert str(SLOWEST_BYTES_PER_S) in caught.value.message
    assert "changes nothing a second time" in caught.value.fix
    assert MAX_SILENCE_S <= hand.now <= 2 * MAX_SILENCE_S
    # Both of the tenant's places are free.
    endings = [[one async for one in serving.run(ACME, BY, FIRST, sent(hand, [SHORT], 1.0))][-1] for _ in range(2)]
    assert [one.done for one in endings] == [True, True]


async def test_who_hardly_takes_the_answers_is_slow_too() -> None:
    hand = Hand()

    async def taken() -> None:
        async for _ in calls(hand).run(ACME, BY, FIRST, sent(hand, repeat(SHORT * CHUNK_LINES), 0.0)):
            hand.now += 29.0

    with pytest.raises(BackhaulError) as caught:
        await taken()
    assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_an_import_of_which_nothing_comes_ends() -> None:
    async def silent() -> AsyncIterator[pb.ImportRequest]:
        await asyncio.Event().wait()
        yield FIRST

    with pytest.raises(BackhaulError) as caught:
        async for _ in calls(Hand(), max_silence_s=0.05).run(ACME, BY, FIRST, silent()):
            pass
    assert caught.value.code is Code.DEADLINE_EXCEEDED
