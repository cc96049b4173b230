"""Lists become facts: what importing one twice, in parts or for another tenant does."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lines.formats import FileFormat
from backhaul_common.lines.line import Line
from backhaul_common.lines.turns import MAX_HELD_S
from backhaul_common.tenants import SuppressionSettings
from backhaul_suppression.documents import rows_of as rows_of_fact
from backhaul_suppression.files.importing import CHUNK_LINES, MAX_ERRORS_BYTES, Import, Progress
from backhaul_suppression.files.statements import Defaults, fact_of
from backhaul_suppression.fold import fold
from backhaul_suppression.model import (
    Fact,
    Origin,
    Row,
    RowKey,
    Source,
)
from backhaul_suppression.ports import Recorded
from backhaul_suppression.room import MAX_NARROW
from held_facts import HeldFacts

NOW_US = 1_800_000_000_000_000
ACME = Defaults(tenant_id="acme", registration="acme.1", now_us=NOW_US, author="key:1")
HEAD = b"address,kind,effective_at\n"


def numbers(count: int, begin: int = 0) -> bytes:
    return b"".join(b"+1415555%04d,stop,2026-01-31T12:00:00Z\n" % number for number in range(begin, begin + count))


async def run(
    facts: HeldFacts, pieces: Iterable[bytes], defaults: Defaults = ACME, file_format: FileFormat = FileFormat.CSV
) -> list[Progress]:
    async def sent() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    told = [progress async for progress in Import(facts, facts).run(sent(), file_format, defaults)]
    # The first only says that the first piece is in order, where it did not fill a chunk.
    return told[1:] if told[0] == Progress(0, 0, 0, 0, b"") else told


@pytest.mark.parametrize("content", [b"", b"address\n", b"address\n+14155550000,\n" + b"+14155550001\n" * 3])
async def test_that_the_first_piece_is_in_order_is_told_before_there_is_another(content: bytes) -> None:
    told = asyncio.Event()

    async def sent() -> AsyncIterator[bytes]:
        yield content
        await told.wait()
        yield b"address\n" if not content else b""

    answers = []
    async with asyncio.timeout(60):
        async for progress in Import(HeldFacts(), HeldFacts()).run(sent(), FileFormat.CSV, ACME):
            answers.append(progress)
            told.set()
    assert [(one.lines, one.done) for one in answers] == [(0, False), (max(0, content.count(b"\n") - 1), True)]


def rows_of(facts: HeldFacts) -> dict[str, Row]:
    return dict(facts.rows)


def counts(progress: Progress) -> tuple[int, int, int, int]:
    return progress.lines, progress.changed, progress.unchanged, progress.refused


async def test_the_same_list_twice_changes_nothing() -> None:
    facts = HeldFacts()
    content = HEAD + numbers(3) + b"+14155550000,stop,\n+14155550000,manual,\n"
    (first,) = await run(facts, [content])
    # The fourth says later what the first has said already.
    assert (counts(first), first.done, first.errors) == ((5, 4, 1, 0), True, b"")
    rows, changes = rows_of(facts), len(facts.changes)
    (second,) = await run(facts, [content], Defaults("acme", "acme.1", NOW_US + 1_000_000))
    assert counts(second) == (5, 0, 5, 0)
    assert (rows_of(facts), len(facts.changes)) == (rows, changes)


async def test_a_line_that_is_there_twice_counts_once() -> None:
    (progress,) = await run(HeldFacts(), [HEAD, numbers(1), numbers(1)])
    assert counts(progress) == (2, 1, 1, 0)


async def test_a_line_that_a_later_word_overrules_changes_nothing() -> None:
    facts = HeldFacts()
    (line,) = [fact_of(Line(1, {"address": "+14155550000", "kind": "stop"}, ""), ACME)]
    assert line is not None
    start = Fact(
        id="0" * 32,
        tenant_id="acme",
        address=line.address,
        lifts=True,
        targets=line.targets,
        effective_at_us=NOW_US - 1,
        recorded_at_us=NOW_US - 1,
        origin=Origin.RECIPIENT,
        source=Source.EVENT,
    )
    await facts.commit([start])
    (old,) = await run(facts, [HEAD, numbers(1)])
    assert counts(old) == (1, 0, 1, 0)
    (newer,) = await run(facts, [b"address,kind\n+14155550000,stop\n"])
    assert counts(newer) == (1, 1, 0, 0)


async def test_a_list_without_times_is_of_its_first_import() -> None:
    facts = HeldFacts()
    content = b"address,kind\n+14155550000,stop\n"
    await run(facts, [content])
    (fact,) = facts.facts.values()
    await facts.commit(
        [
            Fact(
                "0" * 32,
                "acme",
                fact.address,
                True,
                fact.targets,
                NOW_US + 5,
                NOW_US + 5,
                Origin.RECIPIENT,
                Source.EVENT,
            )
        ]
    )
    (again,) = await run(facts, [content], Defaults("acme", "acme.1", NOW_US + 10))
    assert counts(again) == (1, 0, 1, 0)
    assert [row.active for row in facts.rows.values()] == [False]


async def test_rows_that_were_lifted_stay_as_they_are() -> None:
    facts = HeldFacts()
    content = b"address,standing\n+14155550000,lifted\n+14155550001,active\n+14155550002,\n"
    (progress,) = await run(facts, [content])
    assert counts(progress) == (3, 2, 1, 0)
    assert all(row.active for row in facts.rows.values())


async def test_two_tenants_lists_are_their_own() -> None:
    facts = HeldFacts()
    await run(facts, [HEAD, numbers(2)])
    (other,) = await run(facts, [HEAD, numbers(2)], Defaults("other", "other.1", NOW_US))
    assert counts(other) == (2, 2, 0, 0)
    assert {row.key.address.registration for row in facts.rows.values()} == {"acme.1", "other.1"}
    assert len(facts.rows) == 4


@pytest.mark.slow
async def test_an_interrupted_import_sent_again_goes_on_from_there() -> None:
    whole, facts = HeldFacts(), HeldFacts()
    content = [HEAD, numbers(3 * CHUNK_LINES)]
    told = await run(whole, content)
    assert [progress.lines for progress in told] == [2_000, 4_000, 6_000, 6_000]
    facts.dies_after = 2
    with pytest.raises(ConnectionResetError):
        await run(facts, content)
    facts.dies_after = None
    last = (await run(facts, content, Defaults("acme", "acme.1", NOW_US + 60_000_000, author="key:1")))[-1]
    assert counts(last) == (6_000, 2_000, 4_000, 0)
    assert facts.rows.keys() == whole.rows.keys()
    assert {row.since_us for row in facts.rows.values()} == {row.since_us for row in whole.rows.values()}
    assert len(facts.changes) == len(whole.changes)


async def test_what_was_refused_comes_back_to_be_mended() -> None:
    facts = HeldFacts()
    content = HEAD + numbers(1) + b'"",stop,\n+14155550009,stop,"x\n' + numbers(1, 1)
    (progress,) = await run(facts, [content])
    assert counts(progress) == (4, 2, 0, 2)
    lines = progress.errors.decode().splitlines()
    assert lines[0] == "error_line,error_field,error_message,error_fix,error_text,address,kind,effective_at"
    assert [line.split(",")[0] for line in lines[1:]] == ["3", "4"]
    (unmended,) = await run(facts, [progress.errors])
    assert counts(unmended) == (2, 0, 0, 2)
    mended = progress.errors.replace(b",,stop,\r\n", b",+14155550008,stop,\r\n")
    (again,) = await run(facts, [mended])
    assert counts(again) == (2, 1, 0, 1)


async def test_a_list_of_nothing_but_errors_is_answered_piece_by_piece() -> None:
    told = await run(HeldFacts(), [b"address,note\n", (b"x" * 1_000 + b"\n") * 5_000])
    assert counts(told[-1]) == (5_000, 0, 0, 5_000)
    assert len(told) > 5
    assert max(len(progress.errors) for progress in told) < MAX_ERRORS_BYTES + 4_096
    assert b"".join(progress.errors for progress in told).count(b"error_line") == 1


async def test_a_list_for_a_tenant_that_is_deleted_meanwhile_is_not_told_to_be_taken() -> None:
    facts = HeldFacts()
    facts.gone.add("acme.1")
    with pytest.raises(BackhaulError) as raised:
        await run(facts, [HEAD, numbers(1)])
    assert raised.value.code is Code.NOT_FOUND


async def test_others_have_a_turn_while_a_long_list_is_read() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    await run(HeldFacts(), [b"address\n", b"x\n" * 20_000])
    task.cancel()
    # A line takes 5 µs at the very least.
    assert turns > 20_000 * 5e-6 / MAX_HELD_S / 2


def scoped(first: int, count: int, number: str = "+14155550000") -> bytes:
    return b"".join(b"%s,stop,sender,+1650555%04d\n" % (number.encode(), one) for one in range(first, first + count))


SCOPED = b"address,kind,scope_kind,scope\n"


async def test_one_address_has_so_many_scopes_and_always_room_for_everything() -> None:
    facts = HeldFacts()
    everything = b"+14155550000,stop,all,\n"
    (told,) = await run(
        facts, [SCOPED, scoped(0, MAX_NARROW + 5), scoped(0, 1), everything, scoped(7, 1, "+14155550001")]
    )
    assert counts(told) == (MAX_NARROW + 8, MAX_NARROW + 2, 1, 5)
    assert told.errors.count(b",scope,") == 5
    assert b"Suppress it for everything" in told.errors
    # Another list finds what the first has left.
    (told,) = await run(facts, [SCOPED, scoped(MAX_NARROW - 1, 2), everything])
    assert counts(told) == (3, 0, 2, 1)


async def test_a_list_says_of_whatsapp_what_it_says_of_the_number_where_both_are_one() -> None:
    facts = HeldFacts()
    defaults = replace(ACME, settings=SuppressionSettings(whatsapp="phone"))
    (told,) = await run(facts, [HEAD, numbers(2), b"whatsapp:+14155550001,stop,2026-01-31T12:00:00Z\n"], defaults)
    # The last line says what the second has said already.
    assert (told.lines, told.refused, len(facts.facts), len(facts.changes)) == (3, 0, 4, 4)
    changes = list(facts.changes)
    (told,) = await run(facts, [HEAD, numbers(2), b"whatsapp:+14155550000,stop,2026-01-31T12:00:00Z\n"], defaults)
    assert counts(told) == (3, 0, 3, 0)
    assert facts.changes == changes
    assert {row.key.address.text for row in facts.rows.values()} == {
        "+14155550000",
        "+14155550001",
        "whatsapp:+14155550000",
        "whatsapp:+14155550001",
    }


@pytest.mark.parametrize("depth", [10, 700, 20_000])
async def test_a_line_of_json_that_is_nested_is_refused_however_deep_and_others_are_taken(depth: int) -> None:
    facts = HeldFacts()
    nested = b'{"address":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}\n"
    lines = nested + b'{"address":"+14155550123"}\n'
    told = await run(facts, [lines], file_format=FileFormat.JSON_LINES)
    assert counts(told[-1]) == (2, 1, 0, 1)
    assert b"error_line" in told[-1].errors


@pytest.mark.slow
async def test_a_list_is_not_kept_while_it_is_read() -> None:
    row = _row()

    class Forgetful(HeldFacts):
        async def record(self, facts: Sequence[Fact]) -> Recorded:
            return Recorded([], {row_id: row for fact in facts for row_id in rows_of_fact(fact)}, {}, 0)

    async def sent() -> AsyncIterator[bytes]:
        yield HEAD
        for begin in range(0, 20_000, 5_000):
            yield numbers(5_000, begin)

    await run(Forgetful(), [HEAD, numbers(1)])  # What is read once, as tables of countries are.
    tracemalloc.start()
    try:
        last = None
        async for progress in Import(Forgetful(), HeldFacts()).run(sent(), FileFormat.CSV, ACME):
            last = progress
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert last is not None
    assert counts(last) == (20_000, 0, 20_000, 0)
    # The list has 2 MiB, its facts 50. Those of a chunk are here, and a piece.
    assert peak < 5 << 20


def _row() -> Row:
    fact = fact_of(Line(1, {"address": "+14155550000"}, ""), ACME)
    assert fact is not None
    target = fact.targets[0]
    row = fold(RowKey(fact.address, target.kind, target.scope), [fact])
    assert row is not None
    return row
