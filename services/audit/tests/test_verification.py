"""What is valid is found to be, in any span of time; and of what is not, nothing is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from backhaul_audit import verify as command
from backhaul_audit.digests.composing import file_entry
from backhaul_digests.chain import Span
from backhaul_digests.files import check_file
from backhaul_digests.line import iso
from backhaul_digests.model import Chain, ChainKey
from hypothesis import given, settings
from hypothesis import strategies as st
from signed_world import ACME, HOUR_US, START_US, World, day

EVENTS = ChainKey(ACME, Chain.EVENTS)


def test_a_day_is_valid(tmp_path: Path) -> None:
    world = day()
    summary = "7/7 digests valid, 5/5 files valid"
    heads = [made[-1].hash for made in world.digests_made.values()] + [world.digests_made[EVENTS][2].hash]
    assert world.by_service(heads) == (set(), summary)
    assert world.by_command(tmp_path / "a", heads) == (set(), summary, 0)
    assert world.by_script(tmp_path / "b", heads) == (set(), summary, 0)


@pytest.mark.parametrize("at_us", [-(1 << 63), -1, (1 << 63) - 1])
def test_no_time_of_arrival_keeps_a_digest_from_being_signed(at_us: int, tmp_path: Path) -> None:
    """An event says when it arrived, and whoever can publish can say anything."""
    world = World()
    file = world.file()
    content = replace(file.content, first_at_us=at_us, last_at_us=at_us)
    world.digest(files=[replace(file, content=content)])
    assert world.by_service() == (set(), "1/1 digests valid, 1/1 files valid")
    assert world.by_script(tmp_path)[2] == command.VALID


def test_a_file_that_may_be_gone_and_is_not_is_checked_all_the_same() -> None:
    world = World()
    file = world.file()
    world.digest()
    world.digest(file)
    assert world.by_service() == (set(), "2/2 digests valid, 1/1 files valid")
    world.objects[file.plan.key] += b"."
    assert world.by_service()[0] == {("file", file.plan.key, "trailing_data")}


def test_a_file_is_deleted_only_by_what_is_signed() -> None:
    world = World()
    file = world.file()
    world.digest()
    digest = world.digest(file)
    del world.objects[file.plan.key]
    world.objects[digest.key] = world.objects[digest.key].replace(b'"retention"', b'"revenge"')
    assert world.by_service()[0] == {("digest", digest.key, "signature"), ("file", file.plan.key, "not_found")}


async def test_a_file_that_inflates_to_much_keeps_nobody_waiting() -> None:
    """A megabyte as it is stored can be many more inflated: what else the process does goes on meanwhile."""
    world = World()
    file = world.file(b"0" * (16 << 20))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    waiting = asyncio.create_task(others())
    finding = await check_file(world, Chain.EVENTS, file_entry(file), deleted=False)
    waiting.cancel()
    assert finding.valid
    # Pieces of the stored file are fewer: each of a megabyte, inflated, lets the others have their turn.
    assert turns > 16


def test_what_is_deleted_while_it_is_verified_is_no_loss() -> None:
    """The digest that says so was signed, and the file deleted, when the digests had been listed."""
    world = World()
    file, other = world.file(), world.file()
    world.digest()
    listed = world.digests
    calls = []

    async def digests(prefix: str) -> AsyncIterator[str]:
        calls.append(prefix)
        async for key in listed(prefix):
            yield key
        if len(calls) == 1:
            world.digest(file)
            del world.objects[file.plan.key], world.objects[other.plan.key]

    with patch.object(world, "digests", digests):
        findings, tally = world.found()
    assert [(one.name, one.problem) for one in findings if not one.valid] == [
        (f"backhaul/{other.plan.key}", "not_found")
    ]
    assert (tally.files, tally.valid_files) == (2, 1)
    assert len(calls) == 2


def test_many_that_are_missing_are_told_of_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backhaul_digests.chain.MAX_MISSING", 2)
    world = World()
    files = [world.file() for _ in range(5)]
    world.digest()
    for file in files:
        del world.objects[file.plan.key]
    assert world.by_service()[0] == {("file", file.plan.key, "not_found") for file in files}


def test_a_span_is_checked_alone() -> None:
    world = day()
    at = [START_US + hour * HOUR_US for hour in range(8)]
    file = world.files[EVENTS][1]
    world.objects[file.plan.key] = b""  # In the first hour.
    _, tally = world.found(Span(at[1], at[3]))
    assert (tally.digests, tally.valid_digests, tally.files, tally.valid_files) == (3, 3, 2, 2)
    assert (tally.found_from_us, tally.found_to_us) == (at[0], at[3])  # The backfill's covers two hours.
    findings, tally = world.found(Span(0, at[1]))
    assert [one.problem for one in findings if not one.valid] == ["hash"]
    assert (tally.digests, tally.files) == (2, 3)  # The file that was deleted later is known to be.
    _, tally = world.found(Span(at[3] + 1, at[3] + 2))
    assert (tally.digests, tally.found_from_us, tally.found_to_us) == (1, at[3], at[5])


@pytest.mark.parametrize("number", [2, 3, 4])
def test_what_is_missing_in_a_span_is_found_whatever_lies_behind_it(number: int) -> None:
    world = day()
    digests = world.digests_made[EVENTS]
    del world.objects[digests[number - 1].key]
    begin, end = digests[1].from_us, digests[3].to_us
    findings, _ = world.found(Span(begin, end))
    assert [(one.name, one.problem) for one in findings if not one.valid] == [
        (f"backhaul/{digests[number - 1].key}", "not_found")
    ]
    findings, _ = world.found(Span(digests[5].from_us, 0))
    assert [one for one in findings if not one.valid] == []


def test_no_name_ends_the_search_before_the_span_is_over() -> None:
    """An object that calls itself older than the span, among those of it."""
    world = World()
    digests = [world.digest(hours=24) for _ in range(4)]
    early = digests[2].key.replace("DIGEST_2026", "DIGEST_2020")
    world.objects[early] = b""
    findings, tally = world.found(Span(digests[1].from_us, 0))
    assert [(one.name, one.problem) for one in findings if not one.valid] == [(f"backhaul/{early}", "invalid_format")]
    assert tally.valid_digests == 3


def test_a_head_is_found_before_the_span_too() -> None:
    world = day()
    first = world.digests_made[EVENTS][0]
    late = Span(first.to_us + 4 * HOUR_US, 0)
    findings, _ = world.found(late, [first.hash.upper(), "0" * 64])
    assert [(one.chain, one.name, one.problem) for one in findings if not one.valid] == [
        (None, "0" * 64, "unknown_head")
    ]


def test_the_last_digest_that_was_recorded_must_be_there() -> None:
    world = day()
    last = world.digests_made[EVENTS][-1]
    findings, _ = world.found(last={EVENTS: last})
    assert [one for one in findings if not one.valid] == []
    again = day()
    other = again.digests_made[EVENTS][-1]
    findings, _ = again.found(last={EVENTS: last})
    assert [(one.name, one.problem) for one in findings if not one.valid] == [
        (f"backhaul/{other.key}", "unknown_head"),
    ]
    del world.objects[last.key]
    findings, _ = world.found(last={EVENTS: last})
    assert [(one.name, one.problem) for one in findings if not one.valid] == [(f"backhaul/{last.key}", "not_found")]
    findings, _ = world.found(Span(0, last.from_us), last={EVENTS: last})
    assert [one for one in findings if not one.valid] == []


def test_an_end_that_was_taken_away_is_missed_in_a_span_that_is_over() -> None:
    """The last digest lies behind the span, and is gone with those of the span itself."""
    world = day()
    digests = world.digests_made[EVENTS]
    last = digests[-1]
    span = Span(digests[1].from_us, last.from_us)
    for digest in digests[3:]:
        del world.objects[digest.key]
    findings, _ = world.found(span, last={EVENTS: last})
    assert [(one.subject, one.name, one.problem) for one in findings if not one.valid] == [
        ("digest", f"backhaul/{digests[-2].key}", "not_found"),
        ("span", f"{iso(digests[2].to_us)} to {iso(last.from_us)}", "gap"),
    ]
    for digest in digests[:3]:
        del world.objects[digest.key]
    findings, _ = world.found(span, last={EVENTS: last})
    assert [one.problem for one in findings if one.chain is Chain.EVENTS] == ["not_found", "gap"]
    # Of a span that ended before nothing is missing.
    again = day()
    del again.objects[last.key]
    findings, _ = again.found(Span(0, digests[2].to_us), last={EVENTS: again.digests_made[EVENTS][-1]})
    assert [one for one in findings if not one.valid] == []


def test_files_that_no_digest_lists_are_missed(tmp_path: Path) -> None:
    world = World()
    world.file()
    world.digest()
    world.file()
    world.waiting.clear()
    world.file()
    world.digest()
    assert world.by_service()[0] == {("span", "", "gap")}
    world = World()
    world.file()
    world.waiting.clear()
    world.file()
    world.digest()
    assert world.by_service()[0] == {("span", "", "gap")}
    assert world.by_script(tmp_path)[0] == {("span", "", "gap")}


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("file"), st.booleans(), st.booleans(), st.integers(1, 5), st.sampled_from(Chain)),
            st.tuples(st.just("digest"), st.integers(1, 30), st.sampled_from(Chain)),
            st.tuples(st.just("rotate")),
            st.tuples(st.just("delete")),
        ),
        max_size=25,
    ),
    st.data(),
)
def test_any_chain_is_valid_and_any_change_of_a_byte_is_found(steps: list[tuple], data: st.DataObject) -> None:  # type: ignore[type-arg]  # steps of several shapes
    world = World()
    for what, *how in steps:
        if what == "file":
            zipped, array, lines, chain = how
            world.file(*(b'{"n":%d}' % number for number in range(lines)), zipped=zipped, array=array, chain=chain)
        elif what == "digest":
            world.digest(hours=how[0], chain=how[1])
        elif what == "rotate":
            world.rotate()
        elif file := next((one for one in world.files.get(EVENTS, []) if one.plan.key in world.objects), None):
            world.digest()  # It must be in one before it may go.
            world.digest(file)
            del world.objects[file.plan.key]
    world.digest()
    world.digest(chain=Chain.BACKFILL)
    assert world.by_service() == (set(), world.by_service()[1])
    head = world.digests_made[EVENTS][-1].hash

    key = data.draw(st.sampled_from(sorted(world.objects)))
    whole = world.objects[key]
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    world.objects[key] = whole[:at] + bytes([changed]) + whole[at + 1 :]
    assert {name for _, name, _ in world.by_service([head])[0]} >= {key}
    # What a digest calls itself is no longer to be trusted, so the three may name it by another problem.
    with TemporaryDirectory() as root:
        for found, _, code in (world.by_command(Path(root), [head]), world.by_script(Path(root), [head])):
            assert {name for _, name, _ in found} >= {key}
            assert code == 1
    del world.objects[key]
    world.objects[key + "."] = whole
    assert world.by_service([made[-1].hash for made in world.digests_made.values()])[0]
