"""Dead letters by filter: sent through once more, or closed, as a task."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from backhaul_common.names import DEAD_LETTERS_COLLECTION, MESSAGES_COLLECTION
from backhaul_normalizer.heldstream import HeldStream
from backhaul_normalizer.replays import letters
from backhaul_normalizer.replays.tasks import AWAITED
from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from backhaul_proto.tenantdata.v1.tenantdata_pb2 import EraseRecipientRequest
from backhaul_testing.waiting import until
from letters_rig import ACME, PERSON, filed, mended, states, told
from normalizer_rig import Rig
from replay_rig import begin, get


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "PAGE_LETTERS", 3)


async def test_what_fits_is_discarded_and_a_dry_run_counts_it(rig: Rig) -> None:
    await filed(rig)
    dry = await told(rig, pb.REPLAY_KIND_DISCARD, channel="mPulse", dry_run=True)
    assert dry.counts == pb.ReplayCounts(dead_letters=10)
    assert await states(rig) == {"open": 22}
    real = await told(rig, pb.REPLAY_KIND_DISCARD, channel="mPulse")
    assert (real.counts, real.examples) == (dry.counts, dry.examples)
    assert await states(rig, registration="acme.1", channel="mpulse") == {"discarded": 10}
    assert await states(rig) == {"open": 12, "discarded": 10}
    assert (await told(rig, pb.REPLAY_KIND_DISCARD, channel="mPulse")).counts == pb.ReplayCounts()


async def test_what_fits_is_replayed_and_becomes_events(rig: Rig) -> None:
    await filed(rig)
    await mended(rig)
    found = await told(rig, pb.REPLAY_KIND_DEAD_LETTERS, channel="mpulse")
    assert found.counts == pb.ReplayCounts(dead_letters=10)
    await rig.drained()
    assert {row["state"] for row in await rig.rows(MESSAGES_COLLECTION)} == {"delivered"}
    assert len(await rig.published()) == 10
    assert await states(rig, registration="acme.1") == {"replayed": 10, "open": 1}
    assert await states(rig, registration="globex.1") == {"open": 11}


async def test_those_that_come_back_are_sent_once(rig: Rig) -> None:
    await filed(rig)
    found = await told(rig, pb.REPLAY_KIND_DEAD_LETTERS, channel="mpulse")
    # It is over when it is known what became of them.
    assert (found.counts, found.text) == (pb.ReplayCounts(refused_again=10), "")
    assert {one.outcome for one in found.examples} == {pb.REPLAY_OUTCOME_REFUSED_AGAIN}
    rows = await rig.rows(DEAD_LETTERS_COLLECTION, registration="acme.1", channel="mpulse")
    assert {(row["state"], row["occurrences"]) for row in rows} == {("open", 2)}


async def test_of_some_that_come_back_the_others_are_closed(rig: Rig) -> None:
    await filed(rig)
    await mended(rig)
    found = await told(rig, pb.REPLAY_KIND_DEAD_LETTERS, from_us=1)
    assert (found.counts, found.text) == (pb.ReplayCounts(dead_letters=10, refused_again=1), "")
    told_of = {one.id: one.outcome for one in found.examples}
    rows = await rig.rows(DEAD_LETTERS_COLLECTION, registration="acme.1")
    outcomes = {"replayed": pb.REPLAY_OUTCOME_CLOSED, "open": pb.REPLAY_OUTCOME_REFUSED_AGAIN}
    assert told_of == {row["_id"]: outcomes[row["state"]] for row in rows}


async def test_what_is_not_processed_in_time_is_said_to_be_open_to_it(rig: Rig) -> None:
    await filed(rig)
    kept = ACME.channels["mpulse"].model_copy(update={"processing": "held"})
    await rig.register(ACME.model_copy(update={"revision": 2, "channels": {**ACME.channels, "mpulse": kept}}))
    found = await told(rig, pb.REPLAY_KIND_DEAD_LETTERS, channel="mpulse")
    assert (found.counts, found.text) == (pb.ReplayCounts(dead_letters=10), letters.UNKNOWN)
    assert await states(rig, registration="acme.1", channel="mpulse") == {"replayed": 10}


async def test_a_cancelled_one_says_what_is_known_of_what_it_sent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: HeldStream, position: int) -> bool:
        return False

    monkeypatch.setattr(HeldStream, "processed", never)
    await filed(rig)
    begun = await begin(rig, kind=pb.REPLAY_KIND_DEAD_LETTERS, channel="mpulse", from_us=0)

    async def waits() -> bool:
        return (await get(rig, "acme", begun.id)).text == AWAITED

    await until("it waits for what it sent", waits)
    await rig.drained()
    await rig.replays.CancelReplay(pb.CancelReplayRequest(tenant_id="acme", id=begun.id))

    async def counted() -> pb.Replay | None:
        found = await get(rig, "acme", begun.id)
        return found if found.counts.refused_again else None

    found = await until("it is counted", counted)
    assert (found.state, found.counts) == (pb.REPLAY_STATE_CANCELLED, pb.ReplayCounts(refused_again=10))


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"reason": "mapping.status"}, 10),
        # Nothing in it is a pattern.
        ({"reason": "mapping.s.*"}, 0),
        ({"reason": "not there under any"}, 10),
        ({"reason": "mapping", "channel": "sendgrid"}, 0),
        ({"to_us": 1000}, 0),
        ({"from_us": 1}, 11),
        ({"channel": "nothing"}, 0),
    ],
)
async def test_filters(rig: Rig, filters: dict[str, Any], count: int) -> None:
    await filed(rig)
    assert (await told(rig, pb.REPLAY_KIND_DISCARD, dry_run=True, **filters)).counts.dead_letters == count
    found = await told(rig, pb.REPLAY_KIND_DISCARD, **filters)
    assert found.counts.dead_letters == count
    assert await states(rig) == Counter(open=22 - count, discarded=count)


async def test_one_whose_bytes_are_gone_is_counted_and_stays(rig: Rig) -> None:
    await filed(rig)
    await rig.data.EraseRecipient(
        EraseRecipientRequest(tenant_id="acme", registration="acme.1", address=PERSON, before_us=time.time_ns() // 1000)
    )
    rows = rig.database[DEAD_LETTERS_COLLECTION]
    await rows.update_many({"state": "discarded"}, {"$set": {"state": "open"}})
    found = await told(rig, pb.REPLAY_KIND_DEAD_LETTERS, channel="sendgrid")
    assert found.counts == pb.ReplayCounts(unreadable=1)
    assert await states(rig, registration="acme.1", channel="sendgrid") == {"open": 1}


async def test_two_at_once_close_each_once(rig: Rig) -> None:
    await filed(rig)
    found = await asyncio.gather(*(told(rig, pb.REPLAY_KIND_DISCARD, from_us=1) for _ in range(2)))
    assert sum(one.counts.dead_letters for one in found) == 11
    assert not sum(one.counts.unreadable for one in found)
