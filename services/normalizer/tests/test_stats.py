"""Statistics are what the events say, however they are asked for, whoever counted them, and in whatever order."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from itertools import chain, combinations

import pytest
from backhaul_channels import EventKind
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import COUNTS_COLLECTION
from backhaul_common.vocabulary import Words, pascal
from backhaul_normalizer import stats, writing
from backhaul_normalizer.counts import MAX_SHARDS, Day
from backhaul_normalizer.hours import DAY_HOURS, HOUR_US
from backhaul_normalizer.model import DAY_US, Fact
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.event.v1.event_pb2 import EventKind as EventKindNumber
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from books import Books, Totals
from normalizer_rig import Rig, RigFactory
from storedbooks import stored_books
from tellings import batch_of, told

NOW_US = 20_000 * DAY_US + 13 * HOUR_US
GROUPS = {
    pb.STATS_GROUP_CHANNEL: "channel",
    pb.STATS_GROUP_COMMUNICATION: "communication_id",
    pb.STATS_GROUP_KIND: "kind",
    pb.STATS_GROUP_FULFILMENT_STATE: "fulfilment",
}
KINDS = Words(EventKindNumber.DESCRIPTOR)
STATES = Words(pb.FulfilmentState.DESCRIPTOR, pascal)

Key = tuple[int, str, str, str, str]
"""An hour, a channel, a communication, a kind, a fulfilment state."""


def some_days(chance: random.Random) -> list[Fact]:
    """What happened to messages of two channels over some days; their communications are told late, or change."""

    def one(number: int) -> Fact:
        kind = chance.choice(
            [
                EventKind.QUEUED,
                EventKind.SENT,
                EventKind.DELIVERED,
                EventKind.BOUNCED,
                EventKind.OPENED,
                EventKind.CLICKED,
                EventKind.INBOUND,
            ]
        )
        name = chance.choice(["", *(f"M{n}" for n in range(12)), "A1", "A2"])
        return told(
            key=str(chance.randint(0, 40)),
            kind=kind,
            name=name,
            aliases=chance.choice([[], [], ["A1"], ["A2"]]),
            at=chance.choice([None, 1, NOW_US - chance.randint(0, 80) * HOUR_US]),
            arrived=NOW_US,
            query=chance.choice(["", "communicationId=spring", "communicationId=autumn"]),
            by_machine=chance.random() < 0.3,
            channel=chance.choice(["sendgrid", "other"]),
            seq=number + 1,
        )

    return [one(number) for number in range(150)]


def expected(totals: Totals, asked: pb.GetStatsRequest) -> dict[Key, Counter[str]]:
    """The answer, worked out from all counts."""
    groups = {GROUPS[one] for one in asked.group_by}
    found: dict[Key, Counter[str]] = {}
    for day, hour, field, number in _each(totals):
        if not asked.from_us // HOUR_US <= hour < asked.to_us // HOUR_US:
            continue
        if asked.channel not in ("", day.channel) or asked.communication_id not in ("", day.communication_id):
            continue
        group, _, within = field.partition(".")
        kind = within if group in ("events", "by_machine", "unique") else ""
        state = within if group == "fulfilment" else ""
        if groups & {"kind", "fulfilment"}:
            if (kind and "kind" not in groups) or (state and "fulfilment" not in groups) or group == "messages":
                continue
        elif state:
            continue
        else:
            kind = ""
        name = {"fulfilment": "messages", "unique": f"unique_{within}"}.get(group, group)
        key = (
            day.day * DAY_HOURS if asked.per == pb.STATS_PER_DAY else hour,
            day.channel if "channel" in groups else "",
            day.communication_id if "communication_id" in groups else "",
            kind,
            state,
        )
        found.setdefault(key, Counter())[name] += number
    return found


def _each(totals: Totals) -> Iterator[tuple[Day, int, str, int]]:
    for day, counts in totals.items():
        for dotted, number in counts.items():
            _, hour, field = dotted.split(".", 2)
            yield day, day.day * DAY_HOURS + int(hour), field, number


def answered(answer: pb.GetStatsResponse) -> dict[Key, Counter[str]]:
    """The answer in the same form."""
    found: dict[Key, Counter[str]] = {}
    for row in answer.rows:
        kind = KINDS.by_number.get(row.kind, "") if row.kind else ""
        state = STATES.by_number.get(row.fulfilment_state, "") if row.fulfilment_state else ""
        key = row.start_us // HOUR_US, row.channel, row.communication_id, kind, state
        assert key not in found
        found[key] = Counter(
            events=row.events,
            by_machine=row.events_by_machine,
            messages=row.messages,
            unique_opened=row.unique_opened,
            unique_clicked=row.unique_clicked,
        )
    return found


async def ask(rig: Rig, **asked: object) -> pb.GetStatsResponse:
    defaults = {"tenant_id": "acme", "from_us": NOW_US - 90 * HOUR_US, "to_us": NOW_US + HOUR_US}
    return await rig.stub.GetStats(pb.GetStatsRequest(**{**defaults, **asked}))  # type: ignore[arg-type]  # as the caller says


@pytest.mark.parametrize("seed", range(3))
async def test_every_question_is_answered_as_a_recount_would(rig_factory: RigFactory, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # an order that can be repeated, no secret
    facts = some_days(chance)
    plain = Books()
    plain.commit(facts)
    async with rig_factory() as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        stores = [MongoEventStore(rig.client, rig.database) for _ in range(2)]

        async def commit(store: MongoEventStore, share: list[Fact]) -> None:
            while share:
                size = chance.randint(1, 9)
                await store.commit(batch_of(share[:size]), [])
                share = share[size:]

        shuffled = chance.sample(facts, len(facts)) + chance.sample(facts, len(facts) // 3)
        await asyncio.gather(commit(stores[0], shuffled[::2]), commit(stores[1], shuffled[1::2]))
        found = await stored_books(rig)
        assert found.totals() == found.recount() == plain.totals()
        found.check_hours()
        nothing = Counter[str]()
        for per, groups in (
            (per, groups)
            for per in (pb.STATS_PER_HOUR, pb.STATS_PER_DAY)
            for groups in chain.from_iterable(combinations(GROUPS, size) for size in range(len(GROUPS) + 1))
        ):
            asked = pb.GetStatsRequest(
                tenant_id="acme",
                # Neither end is that of a day.
                from_us=NOW_US - chance.randint(30, 90) * HOUR_US,
                to_us=NOW_US + HOUR_US,
                per=per,
                group_by=groups,
                channel=chance.choice(["", "", "Sendgrid", "other"]).lower(),
                communication_id=chance.choice(["", "", "spring"]),
            )
            answer = await rig.stub.GetStats(asked)
            rows = answered(answer)
            assert rows == expected(found.totals(), asked)
            assert nothing not in rows.values()
            assert not answer.truncated
            starts = [row.start_us for row in answer.rows]
            assert starts == sorted(starts)
        for communication_id in ("spring", "autumn"):
            request = pb.GetCommunicationRequest(tenant_id="acme", communication_id=communication_id)
            whole = (await rig.stub.GetCommunication(request)).communication
            sums = found.of_communication(communication_id)
            assert whole.messages == sums["messages"]
            assert {KINDS.by_number[one.kind]: one.count for one in whole.events} == {
                field.removeprefix("events."): number
                for field, number in sums.items()
                if field.startswith("events.") and number
            }


async def test_what_a_hostile_sender_says_of_times_makes_no_more_days(rig_factory: RigFactory) -> None:
    times = [n * 1000 * DAY_US for n in range(1, 50)] + [NOW_US + n * DAY_US for n in range(2, 400)]
    facts = [told(key=str(n), name=f"M{n}", kind=EventKind.OPENED, at=at, arrived=NOW_US) for n, at in enumerate(times)]
    async with rig_factory() as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        store = MongoEventStore(rig.client, rig.database)
        await store.commit(facts, [])
        near = {at // DAY_US for at in times if NOW_US - 400 * DAY_US <= at <= NOW_US + DAY_US}
        assert len(await rig.database["counts"].distinct("day")) <= len(near | {NOW_US // DAY_US})
        row = (await ask(rig)).rows[-1]
        assert (row.start_us, row.events, row.messages) == (NOW_US, len(times) - len(near), len(times) - len(near))


async def test_no_tenant_sees_what_another_counts(rig_factory: RigFactory) -> None:
    async with rig_factory() as rig:
        for name in ("acme", "globex"):
            await rig.register(make.tenant(name).model_copy(update={"queue_path": name}))
        store = MongoEventStore(rig.client, rig.database)
        await store.commit([told(arrived=NOW_US, query="communicationId=spring")], [])
        assert (await ask(rig)).rows
        for asked in ({}, {"communication_id": "spring"}, {"channel": "sendgrid"}):
            assert not (await ask(rig, tenant_id="globex", **asked)).rows


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"from_us": 0}, "from"),
        ({"from_us": NOW_US + 1}, "from"),
        ({"to_us": NOW_US + HOUR_US // 2}, "to"),
        ({"to_us": -HOUR_US}, "to"),
        ({"from_us": NOW_US + HOUR_US}, "to"),
        ({"from_us": NOW_US - 31 * DAY_US}, "from"),
        ({"from_us": NOW_US - 800 * DAY_US, "per": pb.STATS_PER_DAY}, "from"),
    ],
)
async def test_a_span_that_cannot_be_answered_is_refused(
    rig_factory: RigFactory, asked: dict[str, int], field: str
) -> None:
    async with rig_factory() as rig:
        await rig.register(make.tenant("acme"))
        with pytest.raises(BackhaulError) as refused:
            await ask(rig, **asked)
    assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, field)


async def test_an_answer_is_cut_and_says_so(rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "MAX_ROWS", 5)
    facts = [told(key=str(n), name=f"M{n}", arrived=NOW_US, query=f"communicationId=c{n}") for n in range(6)]
    async with rig_factory() as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        await MongoEventStore(rig.client, rig.database).commit(facts, [])
        answer = await ask(rig, group_by=[pb.STATS_GROUP_COMMUNICATION])
        assert [row.communication_id for row in answer.rows] == [f"c{n}" for n in range(5)]
        assert answer.truncated
        assert not (await ask(rig)).truncated


async def test_what_is_not_told_apart_by_communication_takes_no_longer_for_many(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = [told(key=str(n), name=f"M{n}", arrived=NOW_US, query=f"communicationId=c{n}") for n in range(200)]
    async with rig_factory() as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        await MongoEventStore(rig.client, rig.database).commit(facts, [])
        for groups in ([], [pb.STATS_GROUP_CHANNEL, pb.STATS_GROUP_KIND], [pb.STATS_GROUP_FULFILMENT_STATE]):
            question = stats.Question(
                "acme.1",
                (NOW_US // HOUR_US - 24, NOW_US // HOUR_US + 1),
                False,
                frozenset(GROUPS[one] for one in groups),
                "",
                "",
            )
            command = {"aggregate": COUNTS_COLLECTION, "pipeline": stats.pipeline(question), "cursor": {}}
            plan = await rig.database.command({"explain": command, "verbosity": "executionStats"})
            assert most_examined(plan) == 1
            assert sum(row.events or row.messages for row in (await ask(rig, group_by=groups)).rows) == 200


def most_examined(plan: object) -> int:
    """The most documents that any stage of a plan looked at."""
    if isinstance(plan, list):
        return max(map(most_examined, plan), default=0)
    if isinstance(plan, dict):
        return max(int(plan.get("totalDocsExamined", 0)), max(map(most_examined, plan.values()), default=0))
    return 0


async def test_a_communication_has_no_more_documents_than_shards(rig_factory: RigFactory) -> None:
    """Of copies that are busy with it at the same time, each has one in the end."""
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        stores = [MongoEventStore(rig.client, rig.database) for _ in range(4)]
        await stores[0].prepare()

        async def commit(store: MongoEventStore, which: int) -> None:
            for n in range(15):
                fact = told(key=f"{which}-{n}", name=f"M{which}-{n}", arrived=NOW_US, query="communicationId=spring")
                await store.commit([fact], [])

        await asyncio.gather(*(commit(store, which) for which, store in enumerate(stores)))
        (spring,) = await rig.communications()
        assert (spring["messages"], spring["events"]) == (60, {"delivered": 60})
        assert await rig.database["counts"].count_documents({"total": {"$exists": False}}) <= MAX_SHARDS


async def test_a_message_takes_all_its_events_to_another_communication(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those as well that it has no reference of; and each in its own hour."""
    monkeypatch.setattr(writing, "MAX_REFS", 3)
    facts = [
        told(
            key=str(n), kind=EventKind.OPENED, at=NOW_US - n * HOUR_US, arrived=NOW_US, by_machine=n % 2 == 0, seq=n + 1
        )
        for n in range(8)
    ]
    # Happened first, so it says where the message belongs.
    naming = told(
        key="q", kind=EventKind.QUEUED, at=NOW_US - 30 * HOUR_US, arrived=NOW_US, query="communicationId=spring", seq=9
    )
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        await store.commit(facts, [])
        assert {day.communication_id for day in (await stored_books(rig)).totals()} == {""}
        await store.commit([naming], [])
        found = await stored_books(rig)
    assert {day.communication_id for day in found.totals()} == {"spring"}
    assert found.totals() == found.recount()
    found.check_hours()
