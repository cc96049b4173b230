"""Members, events, duplicates, closings and deadlines, in whatever order and by two copies: what a batch counts is what
a recount finds, and it completes once."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from backhaul_channels import EventKind
from backhaul_common.names import BATCHES_COLLECTION, MEMBERS_COLLECTION
from backhaul_normalizer.communications import consequences, linking
from backhaul_normalizer.communications.relinking import GIVEN_UP_US
from backhaul_normalizer.model import Fact
from backhaul_normalizer.store import INDEXES
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from normalizer_rig import Rig
from rosters import DEADLINE_S, Copy, Rosters
from tellings import ARRIVED_US, batch_of, told

one_of = st.sampled_from
PEOPLE = {"k1": "a@example.com", "k2": "b@example.com", "k3": "", "k4": "a@example.com"}
S = 1_000_000
DAY_S = 24 * 3600
BATCHES = {
    "b0": ("spring", ARRIVED_US - 100 * DAY_S * S),
    "b1": ("spring", ARRIVED_US - 40 * S),
    "b2": ("spring", ARRIVED_US - 20 * S),
    "b3": ("autumn", ARRIVED_US - 30 * S),
}
"""By id: the communication, and when it was registered."""

DUE_US = ARRIVED_US + DEADLINE_S * 1_000_000
Step = tuple[str, Any]


def mails() -> st.SearchStrategy[Fact]:
    """What is told of a few mails that several batches may be about."""

    def build(kind: EventKind, name: str, communication: str, batch: str, member: str, **more: Any) -> Fact:
        query = f"communicationId={communication}&batchId={batch}&memberKey={member}"
        return told(key=kind.value, kind=kind, name=name, query=query, arrived=ARRIVED_US, **more)

    return st.builds(
        build,
        kind=one_of([EventKind.QUEUED, EventKind.SENT, EventKind.DELIVERED, EventKind.FAILED, EventKind.OPENED]),
        name=one_of(["M1", "M2", "M3", "M4", "A1", "A1"]),
        aliases=one_of([[], [], ["A1"]]),
        communication=one_of(["", "spring", "spring", "autumn"]),
        batch=one_of(["", "", "b0", "b1", "b2", "nowhere"]),
        member=one_of(["", "", "k1", "k2", "k3", "nobody"]),
        at=one_of([ARRIVED_US - at * S for at in (50, 41, 40, 25, 24, 21, 20, 0)]),
        seq=st.integers(1, 3),
        channel=one_of(["sendgrid", "sendgrid", "twilio"]),
        recipient=one_of(["", "a@example.com", "A@Example.com", "b@example.com"]),
    )


def members() -> st.SearchStrategy[Step]:
    def build(batch: str, key: str, on: list[str], *, addressed: bool, dies: bool) -> Step:
        return "member", (batch, key, [(channel, PEOPLE[key] if addressed else "") for channel in on], dies)

    return st.builds(
        build,
        one_of(list(BATCHES)),
        one_of(list(PEOPLE)),
        one_of([["sendgrid"], ["sendgrid", "twilio"], ["twilio"]]),
        addressed=one_of([True, True, False]),
        dies=one_of([False, False, True]),
    )


def steps() -> st.SearchStrategy[list[Step]]:
    folds = st.lists(mails(), min_size=1, max_size=4).map(lambda some: ("fold", some))
    closes = one_of(list(BATCHES)).map(lambda batch: ("close", batch))
    return st.lists(st.one_of(folds, folds, members(), members(), closes), max_size=10)


async def prepared(rig: Rig) -> Rosters:
    for name in INDEXES:
        await rig.database[name].delete_many({})
    rosters = Rosters(rig)
    for communication, completes_on in (("spring", "processed"), ("autumn", "final")):
        await rosters.communication(communication, completes_on)
    for batch, (communication, at_us) in BATCHES.items():
        await rosters.batch(communication, batch, at_us=at_us)
    return rosters


async def take(copy: Copy, rosters: Rosters, step: Step) -> None:
    what, of = step
    if what == "fold":
        await copy.store.commit(batch_of(of), [])
    elif what == "close":
        await rosters.close(copy, of)
    else:
        batch, key, destinations, dies = of
        await rosters.member(copy, batch, key, destinations, dies=dies)


@pytest.mark.timeout(400)
@settings(
    max_examples=settings.default.max_examples // 2 if settings.default else 50,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(steps(), st.booleans())
async def test_counts_are_a_recount_whatever_comes_first(town: Rig, steps: list[Step], redelivered: bool) -> None:
    rosters = await prepared(town)
    now = {"us": ARRIVED_US}
    copies = itertools.cycle([Copy(town, lambda: now["us"]) for _ in range(2)])
    for step in steps:
        await take(next(copies), rosters, step)
        if redelivered and step[0] == "fold":
            await take(next(copies), rosters, step)
        if step[0] == "member":
            # Whoever died is given up.
            now["us"] += GIVEN_UP_US + 1
            await next(copies).relinking.look()
        await rosters.checked()
        await ended(rosters)
    now["us"] = DUE_US
    assert not [row async for row in town.database[BATCHES_COLLECTION].find({"to_link": {"$exists": True}})]
    assert await next(copies).completing.pass_deadlines() is None
    await rosters.checked()
    assert len(await rosters.notices()) == len(BATCHES)


async def ended(rosters: Rosters) -> None:
    """Before their deadlines those are complete, and were said to be, that were closed and as far as they shall be."""
    notices = await rosters.notices()
    complete = 0
    counted = await rosters.counted()
    for batch_id in BATCHES:
        batch = await rosters.stored(batch_id)
        states = counted[batch_id]
        done = {"Sent", "Delivered", "Failed", "Undelivered"} - (
            {"Sent"} if batch["completes_on"] == "final" else set()
        )
        if batch["status"] == "complete":
            complete += 1
            assert batch["completed_by"] == "condition"
        elif batch["status"] == "closed":
            assert sum(states.get(state, 0) for state in done) < batch["destinations"]
    assert len(notices) == len(set(notices)) == complete


@pytest.mark.parametrize("seed", range(6))
async def test_two_copies_at_once_miss_nothing(town: Rig, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # an order that can be repeated, no secret
    rosters = await prepared(town)
    copies = [Copy(town), Copy(town)]
    work: list[Callable[[Copy], Awaitable[None]]] = []
    for number in range(12):
        person = f"{number}@example.com"
        named = "communicationId=spring" + (f"&memberKey=p{number}" if number % 3 else "")
        for kind, at in ((EventKind.QUEUED, 1), (EventKind.SENT, 2), (EventKind.DELIVERED, 3)):
            fact = told(
                key=kind.value,
                kind=kind,
                name=f"M{number}",
                at=ARRIVED_US + at,
                arrived=ARRIVED_US,
                recipient=person,
                query=named,
            )
            work += 2 * [lambda copy, fact=fact: copy.store.commit([fact], [])]
        member = "b2", f"p{number}", [("sendgrid", person)]
        work += 2 * [lambda copy, member=member: rosters.member(copy, *member)]
    chance.shuffle(work)

    async def run(copy: Copy, share: list[Callable[[Copy], Awaitable[None]]]) -> None:
        for one in share:
            await one(copy)

    await asyncio.gather(*(run(copies[at % 2], work[at::4]) for at in range(4)))
    assert await rosters.checked() == {"b0": {}, "b1": {}, "b2": {"Delivered": 12}, "b3": {}}
    await asyncio.gather(*(rosters.close(copy, "b2") for copy in copies))
    batch = await rosters.stored("b2")
    assert (batch["status"], batch["completed_by"], batch["members"]) == ("complete", "condition", 12)
    assert len(await rosters.notices()) == 1


async def test_of_very_many_messages_for_one_person_the_last_counts(town: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking, "MAX_RIVALS", 3)
    monkeypatch.setattr(linking, "MAX_AT_ONCE", 4)
    rosters, copy = await prepared(town), Copy(town)
    await rosters.member(copy, "b1", "k1", [("sendgrid", "a@example.com")])
    await rosters.member(copy, "b1", "k2", [("sendgrid", "b@example.com")])
    for number in random.Random(1).sample(range(30), 30):  # noqa: S311  # an order that can be repeated, no secret
        fact = told(
            key=f"{number}",
            kind=EventKind.SENT if number < 29 else EventKind.DELIVERED,
            name=f"M{number}",
            at=ARRIVED_US + number,
            arrived=ARRIVED_US,
            recipient="a@example.com" if number % 5 else "b@example.com",
            query="communicationId=spring&batchId=b1",
        )
        await copy.store.commit([fact], [])
    assert (await rosters.checked())["b1"] == {"Sent": 1, "Delivered": 1}


async def test_a_message_that_was_another_ones_name_holds_nothing(town: Rig) -> None:
    """Its events are the other one's now, which is to somebody else."""
    rosters, copy = await prepared(town), Copy(town)
    await rosters.member(copy, "b2", "k1", [("sendgrid", "a@example.com")])
    await rosters.member(copy, "b2", "k2", [("sendgrid", "b@example.com")])
    named: dict[str, Any] = {"query": "communicationId=spring", "arrived": ARRIVED_US}
    await copy.store.commit([told(key="s", kind=EventKind.SENT, name="A1", recipient="b@example.com", **named)], [])
    assert (await rosters.checked())["b2"] == {"Sent": 1}
    fact = told(kind=EventKind.DELIVERED, name="M1", aliases=["A1"], recipient="a@example.com", **named)
    await copy.store.commit([fact], [])
    assert (await rosters.checked())["b2"] == {"Delivered": 1}
    held = [one["destinations"][0].get("holder") async for one in town.database[MEMBERS_COLLECTION].find().sort("key")]
    assert [bool(one) for one in held] == [True, False]


async def test_what_was_sent_first_gives_way_however_late_that_is_told(town: Rig) -> None:
    rosters, copy = await prepared(town), Copy(town)
    await rosters.member(copy, "b2", "k1", [("sendgrid", "a@example.com")])
    named: dict[str, Any] = {
        "query": "communicationId=spring",
        "arrived": ARRIVED_US,
        "recipient": "a@example.com",
    }
    for name, kind, at in (("M1", EventKind.SENT, 8), ("M2", EventKind.DELIVERED, 9), ("M2", EventKind.QUEUED, 7)):
        fact = told(key=kind.value, kind=kind, name=name, at=ARRIVED_US + at * S, **named)
        await copy.store.commit([fact], [])
        assert (await rosters.checked())["b2"] == {"Delivered" if at == 9 else "Sent": 1}


async def test_the_batch_of_another_communication_is_none_whoever_is_linked_at_once(town: Rig) -> None:
    rosters, copy = await prepared(town), Copy(town)
    await rosters.member(copy, "b1", "k1", [("sendgrid", "a@example.com")])
    strange, own = (
        told(
            key=name,
            kind=EventKind.SENT,
            name=name,
            recipient="a@example.com" if name == "M1" else "",
            query=f"communicationId={communication}&batchId=b1&memberKey=k1",
            arrived=ARRIVED_US,
        )
        for name, communication in (("M2", "autumn"), ("M1", "spring"))
    )
    await copy.store.commit(batch_of([strange, own]), [])
    assert (await rosters.checked())["b1"] == {"Sent": 1}


async def test_a_member_who_comes_while_a_message_is_stored_gets_it(town: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither sees the other: the message is not committed yet, and was linked to what was there."""
    rosters, copy, other = await prepared(town), Copy(town), Copy(town)
    named: dict[str, Any] = {"arrived": ARRIVED_US, "recipient": "a@example.com", "query": "communicationId=spring"}
    # By the first one the copy learns that the tenant registers.
    await copy.store.commit([told(name="M0", at=ARRIVED_US, **{**named, "recipient": "z@example.com"})], [])
    await rosters.member(copy, "b1", "k1", [("sendgrid", "a@example.com")])
    loop, link_new = asyncio.get_running_loop(), linking.link_new

    def meanwhile(*args: Any) -> linking.Made:
        made = link_new(*args)
        assert made
        adding = rosters.member(other, "b2", "k1", [("sendgrid", "a@example.com")])
        asyncio.run_coroutine_threadsafe(adding, loop).result(20)
        return made

    monkeypatch.setattr(consequences, "link_new", meanwhile)
    await copy.store.commit([told(name="M1", at=ARRIVED_US, **named)], [])
    assert (await rosters.checked())["b2"] == {"Delivered": 1}
