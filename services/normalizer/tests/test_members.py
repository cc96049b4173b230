"""Members are added to batches, over gRPC."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_normalizer.communications.adding import CHUNK_LINES
from backhaul_normalizer.communications.documents import MAX_DESTINATIONS, MAX_VALUE
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from normalizer_rig import Rig
from register_rig import Register, member, phone, register_of


@pytest.fixture
async def register(rig: Rig) -> AsyncIterator[Register]:
    async with register_of(rig) as made:
        await made.communication()
        yield made


def outcomes(answers: list[pb.AddMembersResponse]) -> tuple[int, int, int, int]:
    """Of the last answer: added, changed, unchanged, refused."""
    last = answers[-1]
    assert last.done
    assert last.lines == last.added + last.changed + last.unchanged + last.refused
    return last.added, last.changed, last.unchanged, last.refused


def refused(answers: list[pb.AddMembersResponse]) -> list[tuple[str, str]]:
    """Line and field of each refused line."""
    lines = b"".join(one.errors for one in answers).splitlines()
    return [(one["error_line"], one["error_field"]) for one in map(json.loads, lines)]


async def test_members_are_added_changed_and_left_alone(register: Register) -> None:
    await register.put_batch()
    told = [member(number, attributes={"name": f"n{number}"}) for number in range(2 * CHUNK_LINES + 500)]
    answers = await register.add(told)
    assert outcomes(answers) == (len(told), 0, 0, 0)
    assert [one.lines for one in answers if one.lines] == [1000, 2000, 2500]
    assert outcomes(await register.add(told)) == (0, 0, len(told), 0)
    batch = await register.batch()
    assert (batch.progress.members, batch.progress.destinations, batch.progress.waiting) == (2500, 2500, 2500)

    mail = {"channel": "SendGrid", "recipient": "Ann@Example.com"}
    more: list[dict[str, Any]] = [
        {"member_key": "m1", "attributes": {"name": "new"}},
        {"member_key": "m2", "destinations": [mail]},
        {"member_key": "m2", "destinations": [{"channel": "sendgrid", "recipient": "ann@example.com"}]},
        {"member_key": "m3"},
        member(9999),
    ]
    assert outcomes(await register.add(more)) == (1, 2, 2, 0)
    members = await register.members()
    assert len(members) == 2501
    assert [(one.name, one.value) for one in members["m1"].attributes] == [("name", "new")]
    assert [(one.channel, one.recipient) for one in members["m2"].destinations] == [
        ("twilio", phone(2)),
        ("sendgrid", "Ann@Example.com"),
    ]
    progress = (await register.batch()).progress
    assert (progress.members, progress.destinations) == (2501, 2502)


async def test_a_line_completes_the_one_before_it_wherever_the_chunks_are_cut(register: Register) -> None:
    await register.put_batch()
    first: list[dict[str, Any]] = [
        {"member_key": "m1"},
        {"member_key": "m1", "destinations": [{"recipient": phone(1)}]},
    ]
    filling = [member(number) for number in range(2, CHUNK_LINES)]
    last: list[dict[str, Any]] = [
        {"member_key": "m1", "destinations": [{"recipient": phone(1)}, {"recipient": phone(2)}]}
    ]
    assert outcomes(await register.add([*first, *filling, *last])) == (CHUNK_LINES - 1, 2, 0, 0)
    assert [one.recipient for one in (await register.members())["m1"].destinations] == [phone(1), phone(2)]


async def test_a_destination_is_on_a_channel_of_the_tenant(register: Register) -> None:
    await register.communication("bare", channel="")
    await register.put_batch("b2", of="bare")
    told: list[dict[str, Any]] = [
        {"member_key": "a"},
        {"member_key": "b", "destinations": [{"recipient": phone(1)}]},
        {"member_key": "c", "destinations": [{"channel": "nowhere", "recipient": phone(1)}]},
        {"member_key": "", "destinations": [{"channel": "twilio"}]},
        {
            "member_key": "d",
            "destinations": [{"channel": "twilio", "recipient": phone(n)} for n in range(MAX_DESTINATIONS + 1)],
        },
        {"member_key": "e", "destinations": [{"channel": "Twilio"}]},
    ]
    answers = await register.add(told, "b2")
    assert outcomes(answers) == (1, 0, 0, 5)
    fields = dict.fromkeys("1235", "destinations") | {"4": "member_key"}
    assert sorted(refused(answers)) == sorted(fields.items())
    assert [(one.channel, one.recipient) for one in (await register.members("b2"))["e"].destinations] == [
        ("twilio", "")
    ]


async def test_a_batch_closes_when_its_members_are_there_and_takes_no_more(register: Register) -> None:
    await register.put_batch(expected_members=3)
    answers = await register.add([member(number) for number in range(5)])
    assert outcomes(answers) == (3, 0, 0, 2)
    assert refused(answers) == [("4", "expected_members"), ("5", "expected_members")]
    batch = await register.batch()
    assert batch.closed_at_us > 0
    assert batch.progress.members == 3

    assert outcomes(await register.add([member(number) for number in range(3)])) == (0, 0, 3, 0)
    for told in ([member(7)], [member(1, attributes={"name": "new"})]):
        with pytest.raises(BackhaulError) as caught:
            await register.add(told)
        assert (caught.value.code, caught.value.field) == (Code.FAILED_PRECONDITION, "batch_id")
    assert len(await register.members()) == 3


async def test_a_file_that_is_cut_off_closes_nothing(register: Register) -> None:
    await register.put_batch(expected_members=2)
    assert outcomes(await register.add([member(1), member(2)], last=False)) == (2, 0, 0, 0)
    assert (await register.batch()).status == pb.BATCH_STATUS_OPEN
    assert outcomes(await register.add([member(1), member(2)])) == (0, 0, 2, 0)
    assert (await register.batch()).closed_at_us > 0


async def test_members_are_added_from_csv(register: Register) -> None:
    await register.put_batch()
    rows = [
        "member_key,channel,recipient,message_id,First name",
        f"a,,{phone(1)},,Ada",
        "a,SendGrid,ada@example.com,,",
        f"b,,{phone(2)},,",
        f"c,Nowhere,{phone(3)},,",
        f"a,,{phone(4)},,",
    ]
    answers = await register.add_file("\r\n".join(rows).encode(), file_format=pb.MEMBER_FORMAT_CSV)
    last = answers[-1]
    # Two lines behind each other are one member.
    assert (last.lines, last.added, last.changed, last.unchanged, last.refused) == (5, 2, 1, 0, 1)
    members = await register.members()
    assert [(one.channel, one.recipient) for one in members["a"].destinations] == [
        ("twilio", phone(1)),
        ("sendgrid", "ada@example.com"),
        ("twilio", phone(4)),
    ]
    assert [(one.name, one.value) for one in members["a"].attributes] == [("First name", "Ada")]
    errors = b"".join(one.errors for one in answers)
    assert errors.startswith(b"error_line,error_field,error_message,error_fix,error_text,member_key,channel,")
    # As the channels are labelled, and not by what the label comes to.
    assert b"Name one of the tenant's: sendgrid, twilio." in errors
    assert b"nowhere" not in errors
    mended = await register.add_file(errors.replace(b"Nowhere", b"Twilio"), file_format=pb.MEMBER_FORMAT_CSV)
    assert (mended[-1].added, mended[-1].refused) == (1, 0)


async def test_members_of_no_batch_are_refused(register: Register) -> None:
    with pytest.raises(BackhaulError) as caught:
        await register.add([member(1)], "none")
    assert (caught.value.code, caught.value.field) == (Code.NOT_FOUND, "batch_id")
    await register.put_batch()
    with pytest.raises(BackhaulError) as caught:
        await register.add_file(b"", file_format=0)
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "format")


async def test_members_are_listed_by_pages_and_whole(register: Register) -> None:
    await register.put_batch()
    await register.put_batch("b2")
    await register.add([member(number) for number in range(25)])
    await register.add([member(number) for number in range(100, 110)], "b2")
    whole = [one.key for answer in await register.answers() for one in answer.members]
    assert sorted(whole) == sorted(f"m{number}" for number in range(25))
    paged, token = [], ""
    while True:
        (page,) = await register.answers(page_size=10, page_token=token)
        assert len(page.members) <= 10
        paged += [one.key for one in page.members]
        if not (token := page.next_page_token):
            break
    assert paged == whole
    for wrong in ({"page_size": 1001}, {"page_size": -1}, {"page_token": "ab"}, {"page_token": "?"}):
        with pytest.raises(BackhaulError) as caught:
            await register.answers(**wrong)
        assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, next(iter(wrong)))


@pytest.mark.slow
async def test_of_long_members_that_are_there_few_are_held_at_once(register: Register) -> None:
    await register.put_batch()
    attributes = {f"a{number}": "x" * MAX_VALUE for number in range(28)}
    count = 600
    await register.add([member(number, attributes=attributes) for number in range(count)])
    again: list[dict[str, Any]] = [{"member_key": f"m{number}"} for number in range(count)]
    more = {"channel": "twilio", "recipient": phone(9999)}
    tracemalloc.start()
    try:
        assert outcomes(await register.add(again)) == (0, 0, count, 0)
        told = [{**one, "destinations": [more]} for one in again]
        assert outcomes(await register.add(told)) == (0, count, 0, 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < count * 28 * MAX_VALUE
