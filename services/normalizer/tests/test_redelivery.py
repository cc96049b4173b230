"""Consumers of EVENTS that keep the highest revision of each event end with what is stored, whenever a copy dies."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from backhaul_channels import EventKind
from backhaul_normalizer.model import Fact
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_testing import make
from books import Books
from hypothesis import given, settings
from hypothesis import strategies as st
from normalizer_rig import RigFactory
from storedbooks import stored_books
from tellings import batch_of, facts, letters, story, told


@pytest.mark.timeout(400)
@settings.get_profile("thorough")
@given(st.lists(facts(), max_size=10), st.data())
def test_what_dies_between_commit_and_publish_is_published_in_the_end(events: list[Fact], data: st.DataObject) -> None:
    """Each message of CALLBACKS is delivered until a batch with it has been published, in any company and any order,
    and to another copy after that."""
    messages: dict[int, list[Fact]] = {}
    for fact in events:
        messages.setdefault(fact.origin.stream_seq, []).append(fact)
    books = Books()
    waiting = set(messages)
    while waiting:
        taken = data.draw(st.lists(st.sampled_from(sorted(messages)), min_size=1, unique=True))
        dies = data.draw(st.booleans()) if data.draw(st.integers(0, 9)) else False
        if not dies:
            taken = [*taken, min(waiting)]
        books.commit([fact for seq in taken for fact in messages[seq]], published=not dies)
        if not dies:
            waiting -= set(taken)
    books.check_published()


@pytest.mark.timeout(400)
@settings.get_profile("thorough")
@given(st.lists(letters(), min_size=3, max_size=9), st.data())
def test_replies_are_settled_and_published_in_the_end_wherever_a_copy_dies(
    events: list[Fact], data: st.DataObject
) -> None:
    """Each message of CALLBACKS may be delivered to a copy that dies, and comes again, at once or after all others."""
    messages: dict[int, list[Fact]] = {}
    for fact in events:
        messages.setdefault(fact.origin.stream_seq, []).append(fact)
    books = Books()
    late = []
    for seq in data.draw(st.permutations(sorted(messages))):
        dies, waits = data.draw(st.sampled_from([(False, False), (True, False), (True, True)]))
        if dies:
            # Before, while or after it settles.
            books.commit(messages[seq], published=False, steps=data.draw(st.sampled_from([0, 3, None])))
        if waits:
            late.append(seq)
        else:
            books.commit(messages[seq])
    for seq in data.draw(st.permutations(late)):
        books.commit(messages[seq])
    books.check_published()
    books.check_settled()


def test_what_is_published_for_the_first_time_does_not_pass_for_a_repetition() -> None:
    books = Books()
    plain, completing = told(seq=2), told(seq=3, recipient="a@example.com")
    assert [event.again for event in books.commit([plain]).outgoing] == [False]
    assert [event.again for event in books.commit([completing]).outgoing] == [False]
    # Either comes again, and it is not known whether it was published.
    assert [event.again for event in books.commit([plain, completing]).outgoing] == [True]


def test_a_revision_that_several_messages_made_is_published_when_any_of_them_comes_again() -> None:
    books = Books()
    plain, completing = told(seq=2), told(seq=3, recipient="a@example.com")
    books.commit([plain])
    # To a copy that still held the first, which is acknowledged, and died.
    books.commit([plain, completing], published=False)
    books.commit([completing])
    books.check_published()


def test_a_move_is_published_when_its_cause_comes_again_though_another_told_of_the_same_event() -> None:
    books = Books()
    bounce = told(key="b", kind=EventKind.BOUNCED, name="A1", seq=1)
    # What names both is a duplicate beside one that names only the first: either may come again alone.
    plain, naming = told(key="d", name="M1", seq=2), told(key="d", name="M1", aliases=["A1"], seq=3)
    books.commit([bounce])
    books.commit([plain, naming], published=False)
    books.commit([plain])
    books.commit([naming])
    revision, _ = books.published[bounce.id]
    assert revision == 1
    books.check_published()


_BETWEEN: dict[str, Any] = {"recipient": "p@example.com", "sender": "shop@example.com"}
_OTHERS: dict[str, Any] = {"recipient": "a@example.com", "sender": "shop@example.com"}


def _wrote(at: int) -> Fact:
    return told(key="r", kind=EventKind.INBOUND, name="R", at=at, seq=9, provisional=False, **_BETWEEN)


def test_what_a_revision_changed_of_a_reply_is_published_though_another_revision_came_after_it() -> None:
    books = Books()
    first, earlier, more = (
        told(key="o", kind=EventKind.OPENED, seq=seq, **tells)
        for seq, tells in ((1, {"at": 9, **_BETWEEN}), (2, {"at": 3}), (3, {"text": "more"}))
    )
    books.commit([first])
    books.commit([_wrote(5)])
    # The reply answers the message now, as that was sent before it.
    books.commit([earlier], published=False)
    books.commit([more])
    books.commit([earlier])
    books.check_published()


@pytest.mark.parametrize("then", ["nothing", "a better name", "a duplicate"])
def test_what_an_event_that_left_a_message_changed_of_its_replies_is_published_in_the_end(then: str) -> None:
    books = Books()
    bounce: dict[str, Any] = {"key": "b", "kind": EventKind.BOUNCED, "name": "S1"}
    books.commit([told(key="u", kind=EventKind.UNSUBSCRIBED, name="A1", aliases=["S1"], seq=1)])
    books.commit(
        [told(at=4, seq=1, **bounce, **_BETWEEN), told(key="o", kind=EventKind.OPENED, name="M3", at=2, **_BETWEEN)]
    )
    books.commit([told(key="o", kind=EventKind.OPENED, name=name, at=1, **_OTHERS) for name in ("M0", "M2")])
    books.commit([_wrote(5)])
    # What bounced was A1 until S1 leads to M2, so that the reply answers M3 now, of which nothing is told.
    naming = told(key="n", kind=EventKind.CLICKED, name="M2", at=7, aliases=["S1"], seq=2)
    books.commit([naming], published=False)
    if then == "a better name":
        books.commit([told(key="n", kind=EventKind.CLICKED, name="M0", at=7, aliases=["S1"], seq=3)])
    elif then == "a duplicate":
        books.commit([told(key="b", kind=EventKind.BOUNCED, name="M2", at=8, seq=3)])
    books.commit([naming])
    books.check_published()


def test_what_an_event_left_by_its_own_revision_has_its_replies_published_in_the_end() -> None:
    books = Books()
    opened: dict[str, Any] = {"key": "o", "kind": EventKind.OPENED, "name": "A1"}
    books.commit([told(key="u", kind=EventKind.UNSUBSCRIBED, name="M1", aliases=["A1"])])
    books.commit([told(at=4, **opened, **_BETWEEN), told(key="o", kind=EventKind.OPENED, name="M3", at=2, **_BETWEEN)])
    books.commit([told(key="s", kind=EventKind.OPENED, name="A1", provisional=False, at=1, **_OTHERS)])
    books.commit([_wrote(5)])
    # By settings that knew no better name than A1: it is a message of its own, and none between these two.
    own = told(provisional=False, seq=2, **opened)
    books.commit([own], published=False)
    books.commit([own])
    books.check_published()


@pytest.mark.parametrize("seed", range(6))
async def test_two_copies_that_die_between_commit_and_publish_leave_nothing_unpublished(
    rig_factory: RigFactory, seed: int
) -> None:
    """On real servers. Of several callbacks to a message each moves or revises what others brought."""
    chance = random.Random(seed)  # noqa: S311  # an order that can be repeated, no secret
    told = [fact for number in range(5) for fact in story(number)]
    for fact in told:
        fact.origin.stream_seq = chance.randint(1, 20)
    messages = {seq: [fact for fact in told if fact.origin.stream_seq == seq] for seq in range(1, 21)}
    waiting = set(messages)
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        publisher = await rig.publisher()

        async def copy(store: MongoEventStore) -> None:
            while waiting:
                # The broker may deliver to either copy, or to both, what neither has acknowledged.
                taken = chance.sample(sorted(waiting), min(len(waiting), chance.randint(1, 4)))
                committed = await store.commit(batch_of(fact for seq in taken for fact in messages[seq]), [])
                await asyncio.sleep(chance.random() / 50)
                if chance.random() < 0.5:
                    continue  # Dead, and there again.
                await publisher.publish(committed.outgoing, "")
                waiting.difference_update(taken)

        stores = [MongoEventStore(rig.client, rig.database) for _ in range(2)]
        await stores[0].prepare()
        await asyncio.gather(*(copy(store) for store in stores))
        held: dict[str, Event] = {}
        for event in await rig.published():
            if event.id not in held or event.revision > held[event.id].revision:
                held[event.id] = event
        stored = {key: Event.FromString(row["payload"]) for key, row in (await stored_books(rig)).event_rows.items()}
    for event in (*held.values(), *stored.values()):
        event.communication_id = ""  # It is published as far as it is known.
    assert held == stored
