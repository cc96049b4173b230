"""A message of more events than its document refers to, and events without a message."""

from __future__ import annotations

from typing import Any

from backhaul_channels import EventKind
from backhaul_common.names import EVENTS_COLLECTION, MESSAGES_COLLECTION
from backhaul_normalizer.facts import message_key
from backhaul_normalizer.model import Fact
from backhaul_normalizer.refs import MAX_REFS
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_OBSERVED_INVALID
from books import Books
from layoutreads import agree, all_of, alone, commit, newest, timeline
from normalizer_rig import Rig
from tellings import told

MANY = 300
KEY = message_key("acme.1", "sendgrid", "M1")


def opened(number: int, name: str = "M1", **more: Any) -> Fact:
    values = {"kind": EventKind.OPENED, "at": 1000 + number, "arrived": 5000 + number, **more}
    return told(key=f"o{number}", name=name, **values)


async def test_a_message_of_three_hundred_events_has_all_of_them_in_every_list(town: Rig) -> None:
    # Every third of them names its recipient.
    facts = [opened(number, recipient="" if number % 3 else "a@example.com") for number in range(MANY)]
    books = Books()
    for start in range(0, MANY, 50):
        books.commit(facts[start : start + 50])
        assert len((await commit(town, *facts[start : start + 50])).new) == 50
    assert len(await alone(town)) == MANY - MAX_REFS
    await agree(town, books)
    assert await all_of(town, message=KEY) == newest(facts)
    assert await all_of(town, address="a@example.com") == newest(facts)
    assert await all_of(town, address="a@example.com", message=KEY) == newest(facts)
    assert await all_of(town, address="b@example.com", message=KEY) == []
    assert await all_of(town) == newest(facts)
    assert await timeline(town) == ([one.id for one in facts], False)

    # Each of them is known again, wherever it is.
    for start in range(0, MANY, 100):
        again = [opened(number, recipient="" if number % 3 else "a@example.com", seq=9) for number in range(MANY)]
        committed = await commit(town, *again[start : start + 100])
        assert (len(committed.new), len(committed.known), committed.outgoing) == (0, 100, [])
    await agree(town, books)


async def test_what_completes_an_event_of_a_long_message_stays_where_it_is(town: Rig) -> None:
    facts, books = [opened(number) for number in range(MANY)], Books()
    books.commit(facts)
    await commit(town, *facts)
    for number in (0, MAX_REFS - 1, MAX_REFS, MANY - 1):
        completing = opened(number, by_machine=True, error_code="421", seq=number + 2)
        books.commit([completing])
        assert (await commit(town, completing)).revisions == 1
        await agree(town, books)
    assert await all_of(town, error_code="421") == newest([facts[n] for n in (0, MAX_REFS - 1, MAX_REFS, MANY - 1)])
    assert await timeline(town) == ([one.id for one in facts], False)


async def test_what_happens_to_a_long_message_once_counts_once(town: Rig) -> None:
    facts, books = [opened(number) for number in range(MANY)], Books()
    forged = told(key="d", name="A1", at=9999, seq=2, verification=VERIFICATION_OBSERVED_INVALID)
    for batch in (
        [*facts, told(key="d", at=9999)],
        [opened(0, aliases=["A1"], seq=3)],
        [forged],
        [told(key="e", at=1)],
    ):
        books.commit(batch)
        await commit(town, *batch)
    await agree(town, books)
    (message,) = await town.rows(MESSAGES_COLLECTION)
    assert (message["kinds"], message["duplicates"]) == ({"opened": MANY, "delivered": 1}, {"delivered": 1})
    assert len(await all_of(town, kind="delivered")) == 1
    assert len((await timeline(town))[0]) == MANY + 1


async def test_events_that_move_to_a_long_message_and_away_are_in_one_place_each(town: Rig) -> None:
    unverified: dict[str, Any] = {"verification": VERIFICATION_OBSERVED_INVALID}
    facts, books = [opened(number) for number in range(MANY)], Books()
    moving = [opened(number, "A1", **unverified) for number in range(MANY, MANY + 20)]
    tells = [opened(0, aliases=["A1"], seq=7, **unverified), opened(1, "M2", aliases=["A1"], seq=8)]
    for batch in (moving, facts, tells[:1]):
        books.commit(batch)
        await commit(town, *batch)
    await agree(town, books)
    assert await all_of(town, message=KEY) == newest([*facts, *moving])
    assert len(await alone(town)) == MANY + 20 - MAX_REFS
    # Somebody who can be trusted says whose name it is.
    books.commit(tells[1:])
    await commit(town, *tells[1:])
    await agree(town, books)
    assert await all_of(town, message=KEY) == newest(facts)
    second = message_key("acme.1", "sendgrid", "M2")
    assert await all_of(town, message=second) == newest([*moving, tells[1]])
    # All are known, where they are now.
    assert len((await commit(town, *facts, *moving)).known) == MANY + 20
    await agree(town, books)


async def test_events_without_a_message_are_found_and_known(town: Rig) -> None:
    facts = [
        told(
            key=str(number),
            name="",
            kind=EventKind.UNSUBSCRIBED if number % 2 else EventKind.INBOUND,
            arrived=100 + number // 4,
            recipient=f"{'ab'[number % 2]}@example.com",
            query=f"communicationId=c{number % 3}",
        )
        for number in range(60)
    ]
    books = Books()
    for batch in (facts[:40], facts[20:]):
        books.commit(batch)
        await commit(town, *batch)
    await agree(town, books)
    assert await town.rows(MESSAGES_COLLECTION) == []
    assert await all_of(town) == newest(facts)
    assert await all_of(town, address="a@example.com") == newest(facts[::2])
    assert await all_of(town, kind="unsubscribed", communication_id="c1") == newest(facts[1::6])
    completing = told(
        key="7", name="", kind=EventKind.UNSUBSCRIBED, arrived=101, recipient="b@example.com", error_code="7", seq=2
    )
    books.commit([completing])
    assert (await commit(town, completing)).revisions == 1
    await agree(town, books)
    assert await all_of(town, error_code="7") == [facts[7].id]
    assert len(await town.rows(EVENTS_COLLECTION)) == 60
