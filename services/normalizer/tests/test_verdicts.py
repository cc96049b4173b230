"""Whatever is stored, and whatever a record tells: its verdict is what its processing turns out to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
from backhaul_channels import EventKind
from backhaul_common import mongo
from backhaul_normalizer.facts import message_key
from backhaul_normalizer.merge import merge, tells_more
from backhaul_normalizer.model import Fact
from backhaul_normalizer.records.verdicts import NEAR_US, Compared, Record, compared
from backhaul_normalizer.store import INDEXES, MongoEventStore
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_OBSERVED_INVALID, VERIFICATION_VERIFIED
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.normalizer.v1 import records_pb2 as pb
from books import Books
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from normalizer_rig import Rig
from storedbooks import stored_books
from tellings import batch_of, facts, told

PUBLISHED = (pb.VERDICT_MISSING, pb.VERDICT_BETTER)
_OF_STATE = ("state", "error_code", "invalid_recipient", "kinds", "by_machine")


async def verdict_of(town: Rig, record: Sequence[Fact]) -> Compared:
    work = partial(compared, [Record(record)], time.monotonic() + 60)
    (found,) = await mongo.read_at_one_moment(town.database, work, 60)
    return found


def states(books: Books) -> dict[str, Any]:
    """What people see of the messages: states and counts."""
    return {key: {name: row.get(name) for name in _OF_STATE} for key, row in books.message_rows.items()}


def written(books: Books) -> list[Any]:
    """All that a record may change."""
    events = {key: (row["payload"], row.get("duplicate_of")) for key, row in books.event_rows.items()}
    return [events, books.message_rows, books.join_rows]


def verified(fact: Fact) -> bool:
    return fact.origin.verification == VERIFICATION_VERIFIED


@pytest.mark.timeout(400)
@settings(
    max_examples=settings.default.max_examples // 2 if settings.default else 50,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(facts(), max_size=8),
    st.lists(facts().filter(lambda one: verified(one) and one.event.message_id != ""), min_size=1, max_size=3),
)
async def test_the_verdict_is_what_processing_does(town: Rig, events: list[Fact], record: list[Fact]) -> None:
    for name in INDEXES:
        await town.database[name].delete_many({})
    store = MongoEventStore(town.client, town.database)
    for event in events:
        await store.commit([event], [])
    before = await stored_books(town)
    # They have no position in CALLBACKS yet when they are compared.
    one = batch_of(at_position(fact, 0) for fact in record)
    found = await verdict_of(town, one)
    assert written(await stored_books(town)) == written(before)

    await store.commit([at_position(fact, 99) for fact in one], [])
    after = await stored_books(town)
    if found.verdict in PUBLISHED:
        assert written(after) != written(before)
        assert (await verdict_of(town, one)).verdict == pb.VERDICT_KNOWN
    else:
        assert found.verdict == pb.VERDICT_KNOWN
        if all(map(verified, events)):
            assert states(after) == states(before)
    message = after.message_rows.get(message_key("acme.1", "sendgrid", found.message_id))
    if found.verdict in PUBLISHED or all(map(verified, events)):
        assert found.state_after == (message["state"] if message is not None else "")
    known = before.message_rows.get(message_key("acme.1", "sendgrid", found.message_id))
    assert found.message_known >= (known is not None)
    if known is not None:
        assert (found.stored_state, found.stored_error_code) == (known["state"], known["error_code"])


def at_position(fact: Fact, seq: int) -> Fact:
    return msgspec.structs.replace(fact, origin=msgspec.structs.replace(fact.origin, stream_seq=seq))


@given(facts(), facts())
def test_what_tells_no_more_than_a_near_time_changes_nothing_else(kept: Fact, other: Fact) -> None:
    if not verified(kept) or not verified(other):
        return
    merged = merge(kept, other)
    if not tells_more(kept, other, NEAR_US):
        assert kept.occurred_at_us - merged.occurred_at_us < NEAR_US
        same = msgspec.structs.replace(merged.event, occurred_at_us=kept.event.occurred_at_us)
        assert (same, merged.message, merged.alias) == (kept.event, kept.message, kept.alias)
        assert (merged.communication_id, merged.batch_id, merged.member_key) == (
            kept.communication_id, kept.batch_id, kept.member_key,
        )  # fmt: skip
    else:
        assert merged is not kept


@pytest.mark.parametrize(
    ("apart_us", "verdict"),
    [
        (0, pb.VERDICT_KNOWN),
        (NEAR_US - 1, pb.VERDICT_KNOWN),
        (NEAR_US, pb.VERDICT_BETTER),
        # When the provider priced the message, say: that it was delivered was told before.
        (-NEAR_US, pb.VERDICT_KNOWN),
    ],
)
async def test_a_time_is_better_where_it_is_far_earlier(town: Rig, apart_us: int, verdict: int) -> None:
    arrived = 10 * NEAR_US
    await MongoEventStore(town.client, town.database).commit([told(arrived=arrived)], [])
    record = told(at=arrived - apart_us, arrived=arrived + 1, seq=0)
    found = await verdict_of(town, [record])
    assert (found.verdict, found.heard_at_us, found.occurred_at_us) == (verdict, arrived, arrived - apart_us)


async def test_what_a_less_trusted_one_told_is_known_where_the_record_says_no_more(town: Rig) -> None:
    """Of a channel that verifies nothing each event would be told anew."""
    store = MongoEventStore(town.client, town.database)
    await store.commit([told(query="communicationId=spring", verification=0)], [])
    assert (await verdict_of(town, [told(seq=0)])).verdict == pb.VERDICT_KNOWN
    record = told(seq=0, error_code="511")
    assert (await verdict_of(town, [record])).verdict == pb.VERDICT_BETTER
    await store.commit([at_position(record, 9)], [])
    (message,) = (await stored_books(town)).message_rows.values()
    assert (message["error_code"], message["communication_id"]) == ("511", "spring")


async def test_a_duplicate_that_says_more_of_the_message_is_better_once(town: Rig) -> None:
    """That it was queued is known by the message's first name, and why it fails by another one."""
    store = MongoEventStore(town.client, town.database)
    await store.commit([told(key="q", kind=EventKind.QUEUED, name="M1", aliases=["S1"])], [])
    record = told(key="api", kind=EventKind.QUEUED, name="S1", error_code="511", seq=0)
    assert (await verdict_of(town, [record])).verdict == pb.VERDICT_BETTER
    await store.commit([at_position(record, 9)], [])
    (message,) = (await stored_books(town)).message_rows.values()
    assert (message["state"], message["error_code"], message["kinds"]) == ("queued", "511", {"queued": 1})
    assert (await verdict_of(town, [record])).verdict == pb.VERDICT_KNOWN


async def test_what_nobody_could_verify_is_proven_by_the_provider_once(town: Rig) -> None:
    store = MongoEventStore(town.client, town.database)
    await store.commit([told(verification=VERIFICATION_OBSERVED_INVALID)], [])
    record = told(seq=0)
    assert (await verdict_of(town, [record])).verdict == pb.VERDICT_BETTER
    await store.commit([at_position(record, 9)], [])
    assert (await verdict_of(town, [record])).verdict == pb.VERDICT_KNOWN
    (row,) = (await stored_books(town)).event_rows.values()
    assert Event.FromString(row["payload"]).verification == VERIFICATION_VERIFIED


async def test_what_happens_once_is_known_by_another_name_too(town: Rig) -> None:
    store = MongoEventStore(town.client, town.database)
    await store.commit([told(key="p", kind=EventKind.QUEUED, name="M1", aliases=["A1"], at=1)], [])
    await store.commit([told(key="d", name="M1", at=2, arrived=7)], [])
    found = await verdict_of(town, [told(key="api", name="A1", at=2, seq=0)])
    assert (found.verdict, found.message_id, found.heard_at_us) == (pb.VERDICT_KNOWN, "M1", 7)
    # A name that nobody told leads somewhere once it is processed.
    named = await verdict_of(town, [told(key="d", name="M1", aliases=["S1"], at=2, seq=0)])
    assert named.verdict == pb.VERDICT_BETTER
