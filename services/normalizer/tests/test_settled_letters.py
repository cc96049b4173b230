"""What a replay of dead letters says at its end of those that it sent through, whatever happens in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.names import CALLBACKS_STREAM, REPLAYS_COLLECTION
from backhaul_common.tenants import Tenant
from backhaul_normalizer.heldstream import HeldStream
from backhaul_normalizer.replays import held, letters
from backhaul_normalizer.replays.held import Held, MongoHeld, Page
from backhaul_normalizer.replays.tasks import AWAITED
from backhaul_normalizer.service import NormalizerUseCases
from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from backhaul_testing.waiting import until
from letters_rig import filed, mended, states, told
from normalizer_rig import Rig, RigFactory
from replay_rig import begin, get, over

LETTERS = pb.REPLAY_KIND_DEAD_LETTERS


@pytest.mark.parametrize(
    ("size", "lost"),
    [pytest.param(50, 1, id="the only"), pytest.param(3, 4, id="the last"), pytest.param(3, 2, id="one")],
)
@pytest.mark.parametrize("refused", [False, True])
async def test_a_page_that_is_lost_is_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, size: int, lost: int, refused: bool
) -> None:
    monkeypatch.setattr(letters, "PAGE_LETTERS", size)
    await filed(rig)
    if not refused:
        await mended(rig)
    found, pages = MongoHeld.found, 0

    async def dies(*args: Any) -> None:
        nonlocal pages
        pages += 1
        if pages == lost:
            raise unavailable("MongoDB")
        await found(*args)

    monkeypatch.setattr(MongoHeld, "found", dies)
    done = await told(rig, LETTERS, channel="mpulse")
    assert pages > lost
    assert (done.counts, done.text) == (pb.ReplayCounts(**{"refused_again" if refused else "dead_letters": 10}), "")
    assert await states(rig, registration="acme.1", channel="mpulse") == {"open" if refused else "replayed": 10}


async def test_it_awaits_what_it_sent_where_the_stream_does_not_tell_its_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filed(rig)
    await mended(rig)
    ends, asked = HeldStream.ends, 0

    async def away(self: HeldStream) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise unavailable("JetStream")
        return await ends(self)

    monkeypatch.setattr(HeldStream, "ends", away)
    done = await told(rig, LETTERS, channel="mpulse")
    assert (done.counts, done.text, asked) == (pb.ReplayCounts(dead_letters=10), "", 2)


async def test_one_that_sent_nothing_awaits_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: HeldStream, position: int) -> bool:
        return False

    monkeypatch.setattr(HeldStream, "processed", never)
    await filed(rig)
    assert (await told(rig, LETTERS, channel="nothing")).counts == pb.ReplayCounts()


async def test_a_stream_that_answers_an_error_is_away(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        await rig.nats.jetstream().delete_stream(CALLBACKS_STREAM)
        with pytest.raises(BackhaulError) as refused:
            await HeldStream(rig.nats, rig.nats.jetstream()).ends()
        assert refused.value.code is Code.UNAVAILABLE


async def test_what_refused_nothing_again_says_nothing_of_it(rig: Rig) -> None:
    """The version before knows no such count."""
    await filed(rig)
    await mended(rig)
    await told(rig, LETTERS, channel="mpulse")
    [row] = await rig.rows(REPLAYS_COLLECTION)
    assert row["counts"] == {"dead_letters": 10}


async def test_counts_and_outcomes_that_this_copy_does_not_know_are_left_out(rig: Rig) -> None:
    await filed(rig)
    await mended(rig)
    done = await told(rig, LETTERS, channel="mpulse")
    await rig.database[REPLAYS_COLLECTION].update_one(
        {"_id": done.id}, {"$set": {"counts.of_tomorrow": 3, "examples.0.outcome": "of_tomorrow"}}
    )
    found = await get(rig, "acme", done.id)
    assert found.counts == done.counts
    assert found.examples[1:] == done.examples[1:]


async def test_one_that_awaits_what_it_sent_keeps_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    processed, behind = HeldStream.processed, True

    async def by_others(self: HeldStream, position: int) -> bool:
        return not behind and await processed(self, position)

    monkeypatch.setattr(HeldStream, "processed", by_others)
    await filed(rig)
    first = await waiting(rig)
    # What it sent was refused again, and is sent by another one.
    await rig.drained()
    second = await waiting(rig)
    await rig.drained()
    assert (await told(rig, pb.REPLAY_KIND_DISCARD, channel="sendgrid")).counts == pb.ReplayCounts(dead_letters=1)
    behind = False
    for begun in (first, second):
        assert (await over(rig, begun)).counts == pb.ReplayCounts(refused_again=10)


async def test_a_page_that_takes_long_keeps_its_lease_and_ends_where_that_is_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if each letter took as long.
    monkeypatch.setattr(held, "RENEW_S", 0)
    await filed(rig)
    await mended(rig)
    rows, owners, send = rig.database[REPLAYS_COLLECTION], [], NormalizerUseCases.replay
    taken = {"owner": "another", "epoch": {"$add": ["$epoch", 1]}, "until": {"$add": ["$$NOW", 1000]}}

    async def slow(self: NormalizerUseCases, *args: Any, **more: Any) -> Any:
        owners.append((await rows.find_one({}) or {})["owner"])
        if len(owners) == 3:
            await rows.update_one({}, [{"$set": taken}])
        return await send(self, *args, **more)

    monkeypatch.setattr(NormalizerUseCases, "replay", slow)
    assert (await told(rig, LETTERS, channel="mpulse")).counts == pb.ReplayCounts(dead_letters=10)
    assert len(owners) == 10
    assert "another" not in owners
    [row] = await rig.rows(REPLAYS_COLLECTION)
    assert row["renewals"] >= 10


async def waiting(rig: Rig) -> pb.Replay:
    """A replay that has sent what it is to send."""
    begun = await begin(rig, kind=LETTERS, channel="mpulse", from_us=0)

    async def waits() -> bool:
        return (await get(rig, "acme", begun.id)).text == AWAITED

    await until("it waits for what it sent", waits)
    return begun


@pytest.mark.parametrize("dry_run", [False, True])
async def test_one_that_is_cancelled_says_that_its_counts_may_change(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    """Of what a page sends that is under way, and what became of all."""
    page, under_way, go_on = letters.LetterPages.page, asyncio.Event(), asyncio.Event()

    async def slow(self: letters.LetterPages, one: Held, tenant: Tenant) -> Page:
        found = await page(self, one, tenant)
        under_way.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(letters.LetterPages, "page", slow)
    monkeypatch.setattr(letters, "PAGE_LETTERS", 3)
    await filed(rig)
    begun = await begin(rig, kind=LETTERS, channel="mpulse", from_us=0, dry_run=dry_run)
    await asyncio.wait_for(under_way.wait(), 60)
    ended = await cancel(rig, begun)
    assert (ended.state, ended.text) == (pb.REPLAY_STATE_CANCELLED, "" if dry_run else AWAITED)
    await rig.drained()
    go_on.set()
    found = await nobody_looks_at(rig, begun)
    assert (found.state, found.text, found.ended_at_us) == (pb.REPLAY_STATE_CANCELLED, "", ended.ended_at_us)
    assert found.counts == (pb.ReplayCounts(dead_letters=3) if dry_run else pb.ReplayCounts(refused_again=3))


async def test_one_that_is_cancelled_stays_so_where_its_counting_fails(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: HeldStream, position: int) -> bool:
        return False

    async def fails(*_: object, **__: object) -> Any:
        raise ValueError("a page that nobody can read")

    monkeypatch.setattr(HeldStream, "processed", never)
    await filed(rig)
    begun = await waiting(rig)
    monkeypatch.setattr(letters, "sent_through", fails)
    await cancel(rig, begun)
    found = await nobody_looks_at(rig, begun)
    assert (found.state, found.text) == (pb.REPLAY_STATE_CANCELLED, "It failed: ValueError.")


async def cancel(rig: Rig, begun: pb.Replay) -> pb.Replay:
    return (await rig.replays.CancelReplay(pb.CancelReplayRequest(tenant_id="acme", id=begun.id))).replay


async def nobody_looks_at(rig: Rig, begun: pb.Replay) -> pb.Replay:
    async def left() -> bool:
        return "open_since_us" not in (await rig.rows(REPLAYS_COLLECTION, _id=begun.id))[0]

    await until("nobody looks at it any more", left)
    return await get(rig, "acme", begun.id)
