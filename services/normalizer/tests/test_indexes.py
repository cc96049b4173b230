"""Whatever is looked up has an index that answers it: MongoDB itself says how much it looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from backhaul_channels import EventKind, Review
from backhaul_common import pages
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import (
    DEAD_LETTERS_COLLECTION,
    ENTRIES_COLLECTION,
    EVENTS_COLLECTION,
    JOINS_COLLECTION,
    MESSAGES_COLLECTION,
)
from backhaul_normalizer import reads as reading
from backhaul_normalizer.facts import message_key
from backhaul_normalizer.model import Fact
from backhaul_normalizer.reads import MongoReads
from backhaul_normalizer.refs import MAX_REFS
from backhaul_normalizer.replays.letters import sent_through
from backhaul_normalizer.scans import Scans
from backhaul_normalizer.store import MongoEventStore
from backhaul_testing import make
from normalizer_rig import Rig, RigFactory
from tellings import batch_of, told

KEPT = {EVENTS_COLLECTION, ENTRIES_COLLECTION, MESSAGES_COLLECTION, JOINS_COLLECTION, DEAD_LETTERS_COLLECTION}
BETWEEN: dict[str, Any] = {"sender": "shop@example.com"}


def opened(number: int, name: str, **more: Any) -> Fact:
    return told(
        key=str(number),
        kind=EventKind.OPENED,
        name=name,
        recipient=f"a{number % 100}@example.com",
        references=[f"r{number % 100}"],
        query=f"communicationId=c{number % 50}",
        arrived=1000 * number + 1000,
        **{"error_code": str(number % 40), **BETWEEN, **more},
    )


def wrote(number: int, **more: Any) -> Fact:
    return told(
        key=f"r{number}",
        kind=EventKind.INBOUND,
        name=f"R{number % 200}",
        provisional=False,
        recipient=f"a{number % 100}@example.com",
        review=Review.NONE if number % 50 else Review.FLAGGED,
        query=f"communicationId=c{number % 50}",
        arrived=1000 * number + 1000,
        **BETWEEN,
        **more,
    )


STORED = [
    *(opened(number, f"M{number % 200}", aliases=[f"A{number % 200}"]) for number in range(2000)),
    *(wrote(number) for number in range(500)),
    # Of a message that has more than it refers to.
    *(opened(number, "M777", error_code="") for number in range(2000, 2000 + MAX_REFS + 80)),
    *(told(key=f"n{number}", kind=EventKind.OPENED, name="", arrived=1000 * number) for number in range(1, 300)),
    # What uses a further name moves to its message.
    *(
        told(key=f"u{number}", kind=EventKind.OPENED, name=f"A{number}", arrived=1000 * number + 1000)
        for number in range(200)
    ),
]

LETTERS: list[Document] = [
    {
        "_id": f"{number:032}",
        "registration": "acme.1",
        "channel": "sendgrid",
        # Few are discarded, and many of the others lie before them and behind them.
        "state": "discarded" if 300 <= number < 360 else "open" if number % 2 else "replayed",
        "first_seen_at_us": 1000 * number,
    }
    for number in range(1500)
]

TOKEN = pages.token_of(900_000, "8" * 32)
Read = Callable[[MongoReads], Awaitable[Any]]


def listed(method: str, most: int = 50, **filters: Any) -> tuple[Read, int]:
    """A second page, and how many documents may be looked at for it."""
    return lambda reads: getattr(reads, method)("acme.1", filters, (0, 0), 50, TOKEN), most + 10


def letters(**filters: Any) -> tuple[Read, int]:
    return lambda reads: reads.dead_letters("acme.1", filters, 50, TOKEN), 60


KEY = message_key("acme.1", "sendgrid", "M5")
READS = [
    # And of each that a person wrote its entry, which says for which communication.
    listed("messages", 100),
    listed("messages", address="a5@example.com"),
    listed("messages", communication_id="c5"),
    listed("messages", error_code="5"),
    listed("messages", references="r5"),
    listed("messages", _id={"$in": [bytes.fromhex(KEY)]}),
    # Two or three buckets hold a page.
    listed("events", 6),
    listed("events", 6, kind="opened"),
    listed("events", 6, channel="sendgrid"),
    # All in a bucket that has one are looked at, and each is in a bucket of its own here.
    listed("events", 60, communication_id="c5"),
    listed("events", 150, error_code="5"),
    # Their messages, what these refer to, and what is alone.
    listed("events", 60, address="a5@example.com"),
    listed("events", 20, message=KEY),
    listed("events", 20, message=KEY, kind="opened", channel="sendgrid"),
    listed("replies", 100),
    listed("replies", 20, communication_id="c5"),
    listed("replies", 20, review="flagged"),
    letters(),
    letters(state="open"),
    letters(state="discarded"),
    (lambda reads: reads.message("acme.1", "sendgrid", "M5"), 20),
    (lambda reads: reads.message("acme.1", "sendgrid", "A5"), 20),
    (lambda reads: reads.message("acme.1", "sendgrid", "M777"), 80 + 20),
]


@asynccontextmanager
async def looked_at(rig: Rig) -> AsyncIterator[list[Document]]:
    """All that MongoDB does in the block, as its profiler tells it."""
    done: list[Document] = []
    await rig.database.command({"profile": 2})
    try:
        yield done
    finally:
        await rig.database.command({"profile": 0})
    kept = {"$in": [f"{rig.database.name}.{name}" for name in KEPT]}
    done += await rig.database["system.profile"].find({"ns": kept}).to_list(None)
    await rig.database["system.profile"].drop()


async def stored(rig: Rig) -> MongoEventStore:
    await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
    store = MongoEventStore(rig.client, rig.database)
    await store.prepare()
    for start in range(0, len(STORED), 500):
        await store.commit(batch_of(STORED[start : start + 500]), [])
    await rig.database[DEAD_LETTERS_COLLECTION].insert_many(LETTERS)
    return store


async def test_every_read_looks_at_about_as_much_as_it_finds(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        await stored(rig)
        reads = MongoReads(rig.database)
        for number, (read, most) in enumerate(READS):
            async with looked_at(rig) as done:
                await read(reads)
            assert done, number
            examined = sum(one.get("docsExamined", 0) for one in done)
            assert examined <= most, (number, [_short(one) for one in done])


async def test_what_a_replay_sent_is_found_without_the_other_letters(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        await MongoEventStore(rig.client, rig.database).prepare()
        letters = rig.database[DEAD_LETTERS_COLLECTION]
        closed: Document = {"registration": "acme.1", "state": "replayed", "channel": "twilio", "callback": b"bytes"}
        await letters.insert_many([{"_id": f"x{number}", **closed} for number in range(500)])
        await letters.insert_many(
            [{"_id": f"y{number}", **closed, "replays": [f"r{number % 50}", "z"]} for number in range(500)]
        )
        async with looked_at(rig) as done:
            assert len(await sent_through(letters, "r7")) == 10
        [read] = done
        # The callbacks that they hold are not read.
        assert read.get("docsExamined", 0) == 0, _short(read)
        assert 10 <= read["keysExamined"] <= 11, _short(read)


async def test_dead_letters_of_a_state_wait_for_no_turn(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = Scans(1)
    monkeypatch.setattr(reading, "Scans", lambda: scans)
    async with rig_factory(copies=0) as rig:
        await stored(rig)
        reads = MongoReads(rig.database)
        async with scans.turn("acme.1", 60):
            # Whoever waits here for a turn has none within the time that a read may take.
            rows, _ = await reads.dead_letters("acme.1", {"channel": "", "state": "discarded"}, 50, "")
            assert [row["_id"] for row in rows[:2]] == [f"{359:032}", f"{358:032}"]
            with pytest.raises(BackhaulError) as refused:
                await reads.messages("acme.1", {"state": "opened"}, (0, 0), 50, "")
            assert refused.value.code is Code.DEADLINE_EXCEEDED


WRITES: list[list[Fact]] = [
    [opened(2001, "M500")],
    # What is known, of messages of a few events and of very many.
    [opened(5, "M5", aliases=["A5"]), opened(2005, "M777", error_code=""), opened(2190, "M777", error_code="")],
    # What completes a known one.
    [opened(5, "M5", aliases=["A5"], by_machine=True)],
    [told(key="n7", kind=EventKind.OPENED, name="", arrived=7000, by_machine=True)],
    # Was told before its message's first name; and the same again, for whoever died before it could publish.
    [told(key="x", kind=EventKind.OPENED, name="A900", seq=7)],
    [opened(0, "M900", aliases=["A900"], seq=8)],
    [opened(0, "M900", aliases=["A900"], seq=8)],
    # What replies answer.
    [told(key="s", kind=EventKind.SENT, name="M901", at=3, recipient="a5@example.com", **BETWEEN)],
    [wrote(7, text="and more")],
]


async def test_every_commit_looks_at_about_as_much_as_it_needs(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        store = await stored(rig)
        for facts in WRITES:
            async with looked_at(rig) as done:
                await store.commit(batch_of(facts), [])
            assert done
            for one in done:
                found = max(one.get("nreturned", 0), one.get("nMatched", 0), one.get("ninserted", 0))
                assert one.get("docsExamined", 0) <= found + 10, _short(one)


def _short(one: Document) -> Document:
    return {name: one.get(name) for name in ("ns", "command", "planSummary", "docsExamined", "nreturned", "nMatched")}
