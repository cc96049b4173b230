"""Lists of events over buckets of several copies: their order, their pages, and their ends."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from backhaul_channels import EventKind
from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import EVENTS_COLLECTION
from backhaul_normalizer import eventlists, reads
from backhaul_normalizer.buckets import MAX_GROWN_BYTES, MAX_SPAN_US
from backhaul_normalizer.facts import message_key
from backhaul_normalizer.model import Fact
from backhaul_normalizer.reads import MongoReads
from backhaul_normalizer.store import MongoEventStore
from layoutreads import all_of, commit, newest
from normalizer_rig import Rig
from tellings import told

NOTHING: dict[str, Any] = {}


def opened(number: int, name: str = "M1", **more: Any) -> Fact:
    return told(key=f"o{number}", **{"kind": EventKind.OPENED, "name": name, "arrived": 100 + number, **more})


async def test_what_copies_commit_in_turn_is_listed_by_its_arrival(town: Rig) -> None:
    """Buckets of two copies overlap, and a copy that was away brings what arrived long before."""
    second = 1_000_000
    arrivals = [100 * second + number * second // 2 for number in range(120)]
    facts = [opened(number, f"M{number}", arrived=at_us) for number, at_us in enumerate(arrivals)]
    late = [opened(number, f"M{number}", arrived=at_us - 50 * second) for number, at_us in enumerate(arrivals, 500)]
    for start in range(0, 120, 20):
        # Each has every other one, and the second one comes with its own later.
        await commit(town, *facts[start : start + 20 : 2])
        await commit(town, *facts[start + 1 : start + 20 : 2], *late[start : start + 5])
    await commit(town, *late)
    buckets = await town.database[EVENTS_COLLECTION].find().to_list(None)
    assert all(bucket["at_us"] - bucket["first_us"] <= MAX_SPAN_US for bucket in buckets)
    for size in (1, 7, 500):
        assert await all_of(town, size=size) == newest([*facts, *late])
    # From some time on, and up to one.
    for span in ((arrivals[10], 0), (0, arrivals[90]), (arrivals[10], arrivals[11]), (arrivals[30], arrivals[60])):
        rows, _ = await MongoReads(town.database).events("acme.1", {}, span, 500, "")
        within = [
            one
            for one in (*facts, *late)
            if span[0] <= one.origin.received_at_us and (not span[1] or one.origin.received_at_us < span[1])
        ]
        assert [row["_id"] for row in rows] == newest(within)


async def test_what_arrived_at_one_time_is_paged_one_by_one(town: Rig) -> None:
    facts = [opened(number, f"M{number % 3}", arrived=100, error_code="1") for number in range(40)]
    facts += [told(key=str(number), name="", kind=EventKind.OPENED, arrived=100, error_code="1") for number in range(5)]
    await commit(town, *facts[::2])
    await commit(town, *facts[1::2])
    for filters in (NOTHING, {"kind": "opened"}, {"error_code": "1"}):
        assert await all_of(town, size=1, **filters) == newest(facts), filters
    own = message_key("acme.1", "sendgrid", "M1")
    assert await all_of(town, size=1, message=own) == newest([one for one in facts if one.message == own])


async def test_an_event_that_changes_its_place_while_a_list_is_read_is_listed_once(
    town: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where it was it lay with a later one, so its new place is behind its old one in the list.
    facts = [opened(number, f"M{number}") for number in range(8)]
    for start in range(0, 8, 2):
        await commit(town, *facts[start : start + 2])
    grown = opened(6, "M6", text="x" * (MAX_GROWN_BYTES + 1), seq=2)
    rows = eventlists._row

    def row(one: Any, received_at_us: int) -> Any:
        monkeypatch.setattr(eventlists, "_row", rows)
        # In another thread, since the list that is being read has this one.
        other = threading.Thread(target=lambda: asyncio.run(_commit(town, grown)))
        other.start()
        other.join()
        return rows(one, received_at_us)

    monkeypatch.setattr(eventlists, "_FIRST_BUCKETS", 1)
    monkeypatch.setattr(eventlists, "_BUCKETS", 1)
    monkeypatch.setattr(eventlists, "_row", row)
    assert await all_of(town) == newest(facts)
    assert len(await town.database[EVENTS_COLLECTION].find().to_list(None)) == 5
    assert await all_of(town) == newest(facts)


async def _commit(town: Rig, *facts: Fact) -> None:
    """With a client of its own, for another loop."""
    client = mongo.connect(town.settings.mongo_uri.get_secret_value())
    await MongoEventStore(client, mongo.database(client, town.settings.mongo_database)).commit(facts, [])
    client.close()


async def test_events_are_found_by_the_recipient_of_their_message(town: Rig) -> None:
    """The message has the least of those that are named."""
    named = [opened(1, recipient="b@example.com"), opened(2, recipient="a@example.com"), opened(3)]
    others = [opened(4, "M2", recipient="b@example.com"), opened(5, "", recipient="A@example.com")]
    for fact in (*named, *others):
        await commit(town, fact)
    assert await all_of(town, address="a@example.com") == newest([*named, others[1]])
    assert await all_of(town, address="b@example.com") == newest(others[:1])
    assert await all_of(town, address="c@example.com") == []


async def test_two_channels_share_buckets_and_not_lists(town: Rig) -> None:
    mail = [opened(number, "M1", error_code="1") for number in range(10)]
    texts = [opened(number, "M1", channel="twilio", error_code="1") for number in range(10)]
    await commit(town, *(one for pair in zip(mail, texts, strict=True) for one in pair))
    assert len(await town.database[EVENTS_COLLECTION].find().to_list(None)) == 1
    for filters in (NOTHING, {"kind": "opened"}, {"error_code": "1"}):
        assert await all_of(town, size=3, channel="twilio", **filters) == newest(texts), filters
        assert await all_of(town, size=3, channel="sendgrid", **filters) == newest(mail), filters
        assert await all_of(town, channel="rcs", **filters) == [], filters


async def test_more_than_can_be_sorted_says_what_to_do(town: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = [opened(number, f"M{number % 7}", recipient="a@example.com") for number in range(50)]
    await commit(town, *facts)
    monkeypatch.setattr(eventlists, "MAX_FOUND", 49)
    with pytest.raises(BackhaulError, match="More than 49 events") as refused:
        await all_of(town, address="a@example.com")
    assert (refused.value.code, refused.value.field) == (Code.DEADLINE_EXCEEDED, "from")
    assert "Narrow the span" in refused.value.fix
    # What it says helps.
    rows, token = await MongoReads(town.database).events("acme.1", {"address": "a@example.com"}, (101, 0), 500, "")
    assert [row["_id"] for row in rows] == newest(facts[1:])
    assert token == ""
    assert await all_of(town, message=message_key("acme.1", "sendgrid", "M3")) == newest(facts[3::7])


@pytest.mark.timed
@pytest.mark.parametrize("filters", [{"address": "a@example.com"}, {"error_code": "1"}])
async def test_a_list_that_takes_many_questions_ends_in_time(
    town: Rig, monkeypatch: pytest.MonkeyPatch, filters: dict[str, str]
) -> None:
    facts = [opened(number, recipient="a@example.com", error_code="1") for number in range(2000)]
    for start in range(0, len(facts), 500):
        await commit(town, *facts[start : start + 500])
    # None of them fits, and of each few of them it is asked anew.
    filters |= {"communication_id": "none"}
    monkeypatch.setattr(eventlists, "AT_ONCE", 1)
    monkeypatch.setattr(reads, "MAX_READ_S", 0.1)
    began = time.monotonic()
    with pytest.raises(BackhaulError) as late:
        await MongoReads(town.database).events("acme.1", filters, (0, 0), 50, "")
    assert late.value.code is Code.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 1
    monkeypatch.setattr(reads, "MAX_READ_S", 60)
    monkeypatch.setattr(eventlists, "AT_ONCE", 32)
    assert await MongoReads(town.database).events("acme.1", filters, (0, 0), 50, "") == ([], "")
