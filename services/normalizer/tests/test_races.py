"""Two copies of the service that commit halves of the same messages at the same time, on a real MongoDB."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import combinations
from typing import Any

import pytest
from backhaul_normalizer import settling
from backhaul_normalizer.model import Fact
from backhaul_normalizer.store import MongoEventStore
from backhaul_normalizer.stored import Stored
from backhaul_testing import make
from books import Books
from normalizer_rig import RigFactory
from storedbooks import stored_books
from tellings import batch_of, correspondence, story


@pytest.mark.parametrize("seed", range(12))
async def test_two_copies_that_race_for_halves_of_messages_miss_nothing(rig_factory: RigFactory, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # an order that can be repeated, no secret
    facts = [fact for number in range(6) for fact in (*story(number), *correspondence(number))]
    plain = Books()
    plain.commit(facts)
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        stores = [MongoEventStore(rig.client, rig.database) for _ in range(2)]
        await stores[0].prepare()
        shuffled = chance.sample(facts, len(facts)) + chance.sample(facts, len(facts) // 2)

        async def commit(store: MongoEventStore, share: list[Fact]) -> None:
            while share:
                size = chance.randint(1, 5)
                batch, share = share[:size], share[size:]
                await store.commit(batch_of(batch), [])

        await asyncio.gather(commit(stores[0], shuffled[::2]), commit(stores[1], shuffled[1::2]))
        found = await stored_books(rig)
    assert found.state() == plain.state()
    assert found.totals() == found.recount()
    assert found.reply_totals() == found.recount_replies()


_pause: ContextVar[Pause | None] = ContextVar("pause", default=None)


class Pause:
    """Holds up a transaction after its read number ``at``, counted from 0."""

    def __init__(self, at: int) -> None:
        self.reached = threading.Event()
        self.over = threading.Event()
        self._left = at

    def after_read(self) -> None:
        self._left -= 1
        if self._left == -1:
            self.reached.set()
            self.over.wait(10)


@pytest.fixture
def pausing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions stop where their task's ``Pause`` wants it."""
    for reader, name in ((Stored, "_find"), (settling.ReplyTransaction, "latest")):
        read = getattr(reader, name)

        def paused(transaction: Any, *args: Any, read: Any = read) -> Any:
            rows = read(transaction, *args)
            found = rows if isinstance(rows, dict) else list(rows)
            if pause := _pause.get():
                pause.after_read()
            return found

        monkeypatch.setattr(reader, name, paused)


def pairs(size: int) -> Iterator[tuple[int, int]]:
    """Any two, one way round: which of them is first changes from pair to pair."""
    for first, second in combinations(range(size), 2):
        yield (first, second) if (first + second) % 2 else (second, first)


async def meanwhile(store: MongoEventStore, at: int, held: Fact, other: Fact) -> bool:
    """Commit ``held``, held up after its read number ``at``, and ``other`` meanwhile; whether there was such a read."""
    pause = Pause(at)

    async def held_up() -> None:
        _pause.set(pause)
        await store.commit([held], [])

    holding = asyncio.create_task(held_up())
    while not (reached := pause.reached.is_set()) and not holding.done():
        await asyncio.sleep(0.001)
    await store.commit([other], [])
    pause.over.set()
    await holding
    return reached


async def test_what_is_told_of_a_message_alone_while_a_reply_is_given_to_it(
    rig_factory: RigFactory, pausing: None
) -> None:
    """Nobody can find the reply by the message yet, and the pair is the same."""
    plain = Books()
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        number, reached = 0, True
        while reached:
            sent, clicked, wrote = (correspondence(number)[n] for n in (0, 4, 6))
            plain.commit([sent, clicked, wrote])
            await store.commit([sent], [])
            reached = await meanwhile(store, number, wrote, clicked)
            number += 1
        found = await stored_books(rig)
    assert number > 6
    assert found.state() == plain.state()
    assert {row["communication_id"] for row in found.event_rows.values() if row["kind"] == "inbound"} == {"autumn"}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tale", [story, correspondence])
async def test_whatever_a_copy_has_read_when_another_commits(
    rig_factory: RigFactory, pausing: None, seed: int, tale: Callable[[int], list[Fact]]
) -> None:
    """Of each story one copy commits a fact, and is held up after each of its reads while another commits another."""
    chance = random.Random(seed)  # noqa: S311  # an order that can be repeated, no secret
    plain = Books()
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()

        number = 0
        every = list(pairs(len(tale(0))))
        # Each pair is of one seed. Of a correspondence a commit is two transactions, so there is more to be held up.
        for first, second in every[seed::4] if tale is story else every[seed::8]:
            reached = True
            at = 0
            while reached:
                facts = tale(number)
                plain.commit(facts)
                others = [fact for n, fact in enumerate(facts) if n not in (first, second)]
                before = chance.sample(others, chance.randint(0, len(others)))
                if before:
                    await store.commit(batch_of(before), [])
                reached = await meanwhile(store, at, facts[first], facts[second])
                if after := [fact for fact in others if fact not in before]:
                    await store.commit(batch_of(after), [])
                at += 1
                number += 1
        found = await stored_books(rig)
    assert found.state() == plain.state()
    assert found.totals() == found.recount()
    assert found.reply_totals() == found.recount_replies()
