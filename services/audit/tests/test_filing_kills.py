"""Kill -9 at every step of a file's life, and whenever else: each event lies in exactly one file, and none is half."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from typing import Any

import pytest
from backhaul_audit.files import MongoFiles
from backhaul_audit.ports import Held, Holding
from backhaul_common.names import AUDIT_FILES_COLLECTION, AUDIT_POSITION_COLLECTION
from backhaul_proto.event.v1.event_pb2 import Event
from filing_program import AWAKE
from filing_rig import Rig, asking, event

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "step",
    ["before_record", "after_record", "before_upload", "after_upload", "before_seal", "after_seal"],
)
async def test_killed_at_a_step(filing: Rig, step: str) -> None:
    """What the dead copy did is found by the next one, which goes on from there."""
    acme = asking("acme", gzip=True)
    await filing.register(acme)
    events: list[Event] = []
    for number in range(6):
        some = [event(acme, f"{number}-{one}", channel=("twilio", "sendgrid")[number % 2]) for one in range(20)]
        events += some
        await filing.publish(acme, *some)
    dead = filing.start_until(step)
    await filing.died(dead)
    # More came before the next copy began, and lies behind what was planned.
    more = [event(acme, f"more-{one}") for one in range(20)]
    await filing.publish(acme, *more)
    filing.start()
    await filing.sealed(len(events) + len(more))
    await filing.check([*events, *more])


@pytest.mark.timeout(300)
async def test_killed_at_random_under_load_two_copies_at_once(filing: Rig) -> None:
    """Two copies, of which one or the other dies again and again while events come, in files of all sizes."""
    tenants = [asking("acme", gzip=True), asking("globex", format="array", with_event=True)]
    await filing.register(*tenants)
    chance = random.Random(7)  # noqa: S311  # a test's order, no secret
    settings = {"audit_max_file_age_s": 0.4, "audit_max_file_events": 70}
    copies = [filing.start(**settings), filing.start(**settings)]
    events: list[Event] = []
    stop = asyncio.Event()

    async def load() -> None:
        number = 0
        while not stop.is_set():
            of = tenants[number % 2]
            some = [event(of, f"{number}-{one}") for one in range(chance.randrange(1, 30))]
            await filing.publish(of, *some)
            events.extend(some)
            number += 1
            await asyncio.sleep(0.01)

    loading = asyncio.create_task(load())
    try:
        await filing.sealed(100)
        for _ in range(3):
            await asyncio.sleep(chance.uniform(0.2, 1.5))
            copy = chance.choice(copies)
            filing.kill(copy)
            copies[copies.index(copy)] = filing.start(**settings)
            # The next one takes over when ten seconds are over, or is the other one already.
            before = sum(one.content.events for one in await filing.files())
            await filing.sealed(before + 50)
    finally:
        stop.set()
        await loading
    await filing.sealed(len(events), within_s=90)
    await filing.check(events)


@pytest.mark.timeout(300)
async def test_an_owner_that_sleeps_over_its_lease_changes_nothing_when_it_goes_on(filing: Rig) -> None:
    """It sleeps between its record and its upload, and uploads when another copy has long sealed that very file."""
    acme = asking("acme")
    await filing.register(acme)
    events = [event(acme, f"first-{one}") for one in range(50)]
    await filing.publish(acme, *events)
    sleeper = filing.start_until("asleep_at_upload")
    await filing.stopped(sleeper)
    assert await filing.database[AUDIT_FILES_COLLECTION].find_one({"state": "recorded"}) is not None
    filing.start()
    try:
        await filing.sealed(len(events))
    finally:
        sleeper.send_signal(signal.SIGCONT)
    (file,) = await filing.check(events)
    await filing.said(AWAKE)
    # While this is filed by the other copy, it learns that it owns nothing any more.
    later = [event(acme, f"later-{one}") for one in range(50)]
    await filing.publish(acme, *later)
    await filing.sealed(100)
    files = await filing.check([*events, *later])
    assert files[0] == file
    row = await filing.database[AUDIT_POSITION_COLLECTION].find_one({"_id": "EVENTS"})
    assert row is not None
    assert sleeper.poll() is None


@pytest.mark.parametrize("shape", [{"with_event": True, "format": "array"}, {"encrypt_people": True, "gzip": True}, {}])
async def test_what_events_no_longer_has_is_found_by_its_ids_where_the_file_names_them(
    filing: Rig, shape: dict[str, Any]
) -> None:
    acme = asking("acme", **shape)
    await filing.register(acme)
    names = [f"old-{one}" for one in range(30)]
    events = [event(acme, name, revision=index % 3) for index, name in enumerate(names)]
    await filing.publish(acme, *events)
    await filing.died(filing.start_until("after_upload"))
    await filing.nats.jetstream().purge_stream("EVENTS")
    filing.start()
    (file,) = await filing.sealed(30)
    files = MongoFiles(filing.database)
    for place, one in enumerate(events, 1):
        holding = await files.holding(acme.registration, one.id)
        if shape:
            assert holding == Holding([Held(file, one.revision, place)], 0)
        else:
            assert holding == Holding([], 1)
    # Published again under the mark, they are known to lie there.
    await filing.publish(acme, *events, again=True)
    await filing.publish(acme, event(acme, "new"))
    if shape:
        assert sum(one.content.events for one in await filing.sealed(31)) == 31


@pytest.mark.parametrize("step", ["after_upload", "before_upload"])
async def test_what_events_no_longer_has_is_sealed_as_it_lies_there_or_said_to_be_lost(filing: Rig, step: str) -> None:
    """And what comes later is filed all the same."""
    acme = asking("acme", gzip=True)
    await filing.register(acme)
    events = [event(acme, f"old-{one}") for one in range(30)]
    await filing.publish(acme, *events)
    await filing.died(filing.start_until(step))
    await filing.nats.jetstream().purge_stream("EVENTS")
    later = [event(acme, f"later-{one}") for one in range(10)]
    await filing.publish(acme, *later)
    filing.start()
    if step == "after_upload":
        first, second = await filing.sealed(40)
        assert (first.content.events, first.number, second.number) == (30, 1, 2)
        assert len(filing.lines_of(first)) == 30
    else:
        await filing.sealed(10)
        await filing.check(later)
        lost = await filing.database[AUDIT_FILES_COLLECTION].find_one({"state": "lost"})
        assert lost is not None
        assert lost["reason"] == "EVENTS no longer has its events"


async def test_of_many_lost_files_each_is_said_to_be(filing: Rig) -> None:
    """Whoever looks after an installation learns of them by the log alone."""
    acme = asking("acme")
    await filing.register(acme)
    for number in range(20):
        await filing.publish(acme, event(acme, f"old-{number}"))
    await filing.died(filing.start_until("before_upload", audit_max_file_events=1))
    await filing.nats.jetstream().purge_stream("EVENTS")
    later = [event(acme, "later")]
    await filing.publish(acme, *later)
    filing.start()
    await filing.sealed(1)
    await filing.check(later)
    lost = await filing.database[AUDIT_FILES_COLLECTION].find({"state": "lost"}).to_list(None)
    said = [line for line in map(json.loads, filing.log(1).splitlines()) if line["event"] == "file_lost"]
    assert len(lost) > 1
    assert sorted(one["key"] for one in said) == sorted(one["key"] for one in lost)
