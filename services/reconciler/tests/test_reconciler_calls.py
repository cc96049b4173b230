"""What the calls ask for, and what they answer: over a real connection, on a real MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import (
    RECONCILED_DAYS_COLLECTION,
    RECONCILED_DIFFERENCES_COLLECTION,
    RECONCILED_RUNS_COLLECTION,
)
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_DELIVERED, EVENT_KIND_FAILED, EVENT_KIND_UNSPECIFIED
from backhaul_proto.reconciler.v1 import reconciler_pb2 as pb
from backhaul_reconciler.access import SERVICE, VERBS
from backhaul_reconciler.model import DAY_US, Counts, Day, DayState, Difference, DifferenceKind, RunState
from backhaul_reconciler.servicer import MAX_FOLLOWED_OF_TENANT
from books_rig import ACME, MINUTE_US, NOW_US, SENDGRID, THEIRS, TWILIO, Rig, World, refused, serving

RUN = pb.RunRequest(tenant_id="acme", channel="Twilio")


@pytest.fixture
def world(books: Rig) -> World:
    return World(books)


@pytest.fixture
async def stub(world: World) -> AsyncIterator[Any]:
    async with serving(world) as found:
        yield found


async def test_every_method_has_a_verb() -> None:
    methods = {f"{SERVICE}.{method.name}" for method in pb.DESCRIPTOR.services_by_name["ReconcilerService"].methods}
    assert methods == set(VERBS)
    assert {method.rpartition(".")[2] for method, verb in VERBS.items() if verb == "reconcile"} == {"Run"}


async def test_a_run_is_followed_until_it_has_ended(world: World, stub: Any) -> None:
    request = pb.RunRequest(tenant_id="acme", channel="Twilio", from_us=NOW_US - MINUTE_US, to_us=NOW_US, dry_run=True)
    async with aclosing(stub.Run(request)) as answers:
        first = (await anext(answers)).report
        assert world.calls.asked == [("acme", "twilio", (NOW_US - MINUTE_US, NOW_US), True)]
        run = world.calls.report_id
        assert first == pb.Report(
            id=run,
            channel="twilio",
            cause=pb.CAUSE_CALL,
            state=pb.RUN_STATE_RUNNING,
            from_us=NOW_US - MINUTE_US,
            to_us=NOW_US,
            counts=pb.Counts(),
            began_at_us=NOW_US,
            dry_run=True,
        )
        counts = Counts(seen=9, known=1, missing=2, better=3, unreadable=1, differing=1, open=4, unknown_to_provider=5)
        await world.rig.store(world.rig.reports.update(run, counts))
        told = (await anext(answers)).report
        assert told.counts == pb.Counts(**counts.told())
        await world.rig.store(world.rig.reports.update(run, Counts(requests=7)))
        await world.rig.store(world.rig.reports.end(run, RunState.STOPPED, "Refused.", NOW_US + 5))
        rest = [answer.report async for answer in answers]
    assert (rest[-1].state, rest[-1].text, rest[-1].ended_at_us) == (pb.RUN_STATE_STOPPED, "Refused.", NOW_US + 5)
    assert rest[-1].counts.requests == 7
    assert (await stub.GetReport(pb.GetReportRequest(tenant_id="acme", id=run))).report == rest[-1]


async def test_who_waits_is_told_again_while_nothing_changes(world: World) -> None:
    world.silence_s = 0.05
    async with serving(world) as stub, asyncio.timeout(60), aclosing(stub.Run(RUN)) as answers:
        first = await anext(answers)
        assert [await anext(answers) for _ in range(3)] == [first] * 3


async def test_a_run_goes_on_when_nobody_listens_and_ends_for_whoever_does(world: World, stub: Any) -> None:
    async with aclosing(stub.Run(RUN)) as answers:
        await anext(answers)
    run = world.calls.report_id
    assert (await stub.GetReport(pb.GetReportRequest(tenant_id="acme", id=run))).report.state == pb.RUN_STATE_RUNNING
    # Its tenant's end takes the report of a run that is followed.
    async with asyncio.timeout(60), aclosing(stub.Run(RUN)) as answers:
        await anext(answers)
        await world.rig.database[RECONCILED_RUNS_COLLECTION].delete_many({})
        assert (await refused(answers)).code is Code.NOT_FOUND


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ((0, 0), (NOW_US - DAY_US, NOW_US)),
        ((5, 0), (5, NOW_US)),
        ((5, NOW_US + DAY_US), (5, NOW_US)),
    ],
)
async def test_the_span_of_a_run(world: World, stub: Any, given: tuple[int, int], asked: tuple[int, int]) -> None:
    request = pb.RunRequest(tenant_id="acme", channel="twilio", from_us=given[0], to_us=given[1])
    async with aclosing(stub.Run(request)) as answers:
        await anext(answers)
    assert world.calls.asked == [("acme", "twilio", asked, False)]


async def test_what_no_run_can_be_asked_for(world: World, stub: Any) -> None:
    def run(**fields: Any) -> Any:
        return stub.Run(pb.RunRequest(**{"tenant_id": "acme", "channel": "twilio", **fields}))

    for fields, field in (
        ({"from_us": -1}, "from_us"),
        ({"to_us": 1 << 62}, "to_us"),
        ({"to_us": 5}, "from_us"),
        ({"from_us": 5, "to_us": 5}, "from_us"),
        ({"from_us": NOW_US + 1}, "from_us"),
        ({"channel": ""}, "channel"),
    ):
        error = await refused(run(**fields))
        assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field), fields
    error = await refused(run(channel="Nothing"))
    assert (error.code, error.field) == (Code.NOT_FOUND, "channel")
    assert error.violations[0].fix == "Its channels are: mpulse, sendgrid, twilio."
    assert (await refused(run(tenant_id="nobody"))).code is Code.NOT_FOUND
    assert world.calls.asked == []
    world.calls.refusal = BackhaulError(Code.FAILED_PRECONDITION, "A run is under way.", field="channel", fix="Wait.")
    assert (await refused(run())).message == "A run is under way."


async def test_so_many_runs_of_a_tenant_are_followed_at_once(stub: Any) -> None:
    async with AsyncExitStack() as stack:
        followed = [await stack.enter_async_context(aclosing(stub.Run(RUN))) for _ in range(MAX_FOLLOWED_OF_TENANT)]
        for answers in followed:
            await anext(answers)
        assert (await refused(stub.Run(RUN))).code is Code.RATE_LIMITED


async def test_reports(world: World, stub: Any) -> None:
    ours = [await world.rig.begin(began_at_us=NOW_US + number) for number in range(3)]
    await world.rig.begin(THEIRS)
    other = await world.rig.begin(SENDGRID, NOW_US + 9)
    request = pb.ListReportsRequest(tenant_id="acme", channel="Twilio", from_us=NOW_US + 1, page_size=1)
    first = await stub.ListReports(request)
    request.page_token = first.next_page_token
    second = await stub.ListReports(request)
    assert [one.id for one in (*first.reports, *second.reports)] == [ours[2], ours[1]]
    assert second.next_page_token == ""
    assert first.reports[0].cause == pb.CAUSE_SCHEDULE
    assert (await stub.ListReports(pb.ListReportsRequest(tenant_id="acme"))).reports[0].id == other
    for wrong, field in (
        ({"from_us": -1}, "from_us"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "x"}, "page_token"),
    ):
        error = await refused(stub.ListReports(pb.ListReportsRequest(tenant_id="acme", **wrong)))
        assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)
    error = await refused(stub.GetReport(pb.GetReportRequest(tenant_id="globex", id=other)))
    assert (error.code, error.field) == (Code.NOT_FOUND, "id")


async def test_differences(world: World, stub: Any) -> None:
    one = Difference("SM1", DifferenceKind.STATE, "delivered", "", "failed", "30006")
    newer = Difference("SM2", DifferenceKind.UNKNOWN_TO_PROVIDER, "a-state-of-tomorrow")
    run = "1" * 32
    await world.rig.store(
        world.rig.differences.seen(TWILIO, run, NOW_US, [one]),
        world.rig.differences.seen(SENDGRID, run, NOW_US + 1, [newer]),
        world.rig.differences.seen(THEIRS, run, NOW_US, [one]),
    )
    answer = await stub.ListDifferences(pb.ListDifferencesRequest(tenant_id="acme"))
    assert [(row.channel, row.message_id, row.our_state) for row in answer.differences] == [
        ("sendgrid", "SM2", EVENT_KIND_UNSPECIFIED),
        ("twilio", "SM1", EVENT_KIND_DELIVERED),
    ]
    assert answer.differences[1] == pb.Difference(
        channel="twilio",
        message_id="SM1",
        kind=pb.DIFFERENCE_KIND_STATE,
        our_state=EVENT_KIND_DELIVERED,
        provider_state=EVENT_KIND_FAILED,
        provider_error_code="30006",
        first_seen_at_us=NOW_US,
        last_seen_at_us=NOW_US,
        report_id=run,
    )
    assert list(answer.full_channels) == []
    kind = pb.DIFFERENCE_KIND_UNKNOWN_TO_PROVIDER
    found = await stub.ListDifferences(pb.ListDifferencesRequest(tenant_id="acme", kind=kind))
    assert [row.message_id for row in found.differences] == ["SM2"]
    error = await refused(stub.ListDifferences(pb.ListDifferencesRequest(tenant_id="acme", kind=9)))  # type: ignore[arg-type]  # newer than this copy
    assert error.field == "kind"


async def test_a_channel_that_is_full_of_differences_is_named(world: World) -> None:
    world.rig.differences = type(world.rig.differences)(world.rig.database, most=2)
    some = [Difference(f"SM{number}", DifferenceKind.UNKNOWN_TO_PROVIDER, "sent") for number in range(3)]
    await world.rig.store(world.rig.differences.seen(TWILIO, "1" * 32, NOW_US, some))
    async with serving(world) as stub:
        request = pb.ListDifferencesRequest(tenant_id="acme", page_size=1)
        first = await stub.ListDifferences(request)
        assert list(first.full_channels) == ["twilio"]
        request.page_token = first.next_page_token
        assert list((await stub.ListDifferences(request)).full_channels) == []
        other = pb.ListDifferencesRequest(tenant_id="acme", channel="sendgrid")
        assert list((await stub.ListDifferences(other)).full_channels) == []


async def test_a_day(world: World, stub: Any) -> None:
    day = Day("2026-11-25", DayState.CANNOT_BE_CLOSED, "The API reaches back 30 days.", 9, 5, 4, 3, 2, 1, NOW_US)
    await world.rig.store(world.rig.days.compared(TWILIO, day, None))
    asked = pb.GetDayRequest(tenant_id="acme", channel="Twilio", day="2026-11-25")
    assert (await stub.GetDay(asked)).day == pb.Day(
        channel="twilio",
        day="2026-11-25",
        state=pb.DAY_STATE_CANNOT_BE_CLOSED,
        text="The API reaches back 30 days.",
        provider_messages=9,
        equal=5,
        backfilled=4,
        differing=3,
        open=2,
        unknown_to_provider=1,
        compared_at_us=NOW_US,
    )
    for fields, code, field in (
        ({"tenant_id": "globex"}, Code.NOT_FOUND, "day"),
        ({"day": "2026-11-24"}, Code.NOT_FOUND, "day"),
        ({"channel": "nothing"}, Code.NOT_FOUND, "channel"),
        ({"day": "2026-02-30"}, Code.INVALID_ARGUMENT, "day"),
        ({"day": "20261125"}, Code.INVALID_ARGUMENT, "day"),
        ({"day": ""}, Code.INVALID_ARGUMENT, "day"),
    ):
        wrong = pb.GetDayRequest()
        wrong.CopyFrom(asked)
        wrong.MergeFrom(pb.GetDayRequest(**{name: value for name, value in fields.items() if value}))
        if "" in fields.values():
            wrong.ClearField("day")
        error = await refused(stub.GetDay(wrong))
        assert (error.code, error.field) == (code, field), fields
    assert ACME.registration != THEIRS.registration


async def test_words_that_only_a_newer_copy_knows_are_not_said(world: World, stub: Any) -> None:
    rig = world.rig
    run = await rig.begin(TWILIO)
    await rig.store(
        rig.days.compared(TWILIO, Day("2026-11-25", DayState.OPEN), None),
        rig.differences.seen(TWILIO, run, NOW_US, [Difference("SM1", DifferenceKind.STATE, "delivered")]),
    )
    newer = {"$set": {"cause": "tomorrows", "state": "tomorrows", "kind": "tomorrows"}}
    for name in (RECONCILED_RUNS_COLLECTION, RECONCILED_DAYS_COLLECTION, RECONCILED_DIFFERENCES_COLLECTION):
        await rig.database[name].update_many({}, newer)
    report = (await stub.GetReport(pb.GetReportRequest(tenant_id="acme", id=run))).report
    assert (report.id, report.cause, report.state) == (run, pb.CAUSE_UNSPECIFIED, pb.RUN_STATE_UNSPECIFIED)
    day = (await stub.GetDay(pb.GetDayRequest(tenant_id="acme", channel="twilio", day="2026-11-25"))).day
    assert (day.day, day.state) == ("2026-11-25", pb.DAY_STATE_UNSPECIFIED)
    (found,) = (await stub.ListDifferences(pb.ListDifferencesRequest(tenant_id="acme"))).differences
    assert (found.message_id, found.kind) == ("SM1", pb.DIFFERENCE_KIND_UNSPECIFIED)
    error = await refused(stub.ListDifferences(pb.ListDifferencesRequest(tenant_id="acme", kind=99)))  # type: ignore[arg-type]  # of a newer version
    assert "unspecified" not in error.fix
