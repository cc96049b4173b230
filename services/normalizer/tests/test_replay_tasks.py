"""Replays as tasks: begun once, bounded, cancelled, of one tenant alone, and worked whoever dies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.names import (
    EVENTS_COLLECTION,
    MESSAGES_COLLECTION,
    REPLAYS_COLLECTION,
)
from backhaul_common.tenants import Tenant
from backhaul_normalizer.committing import publish_all
from backhaul_normalizer.replays import callbacks
from backhaul_normalizer.replays.tasks import MAX_OPEN
from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from backhaul_testing import make
from backhaul_testing.waiting import until
from normalizer_rig import Rig, RigFactory
from replay_rig import ACME, GLOBEX, begin, correspondence, forgotten, get, over, replayed


@pytest.fixture
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "PAGE_MESSAGES", 7)


FOR_EVER = 4_000_000_000_000_000


async def test_two_tenants_and_their_replays_do_not_meet(rig: Rig) -> None:
    await rig.register(ACME, GLOBEX)
    for of in (ACME, GLOBEX):
        await rig.publish(of, make.callback(of, make.twilio("SM1", "sent")))
    await rig.drained()
    await forgotten(rig)
    await forgotten(rig, "globex")
    found = await replayed(rig)
    assert found.counts.new == 1
    assert {row["registration"] for row in await rig.rows(MESSAGES_COLLECTION)} == {"acme.1"}
    for call in (
        rig.replays.GetReplay(pb.GetReplayRequest(tenant_id="globex", id=found.id)),
        rig.replays.CancelReplay(pb.CancelReplayRequest(tenant_id="globex", id=found.id)),
    ):
        with pytest.raises(BackhaulError) as refused:
            await call
        assert refused.value.code is Code.NOT_FOUND
    assert not (await rig.replays.ListReplays(pb.ListReplaysRequest(tenant_id="globex"))).replays
    # A tenant who has the id next has no part in what its predecessor's callbacks tell.
    await rig.register(ACME.model_copy(update={"registration": "acme.2", "revision": 2}))

    async def heard() -> bool:
        return not (await rig.replays.ListReplays(pb.ListReplaysRequest(tenant_id="acme"))).replays

    await until("the successor is known", heard)
    assert (await replayed(rig)).counts == pb.ReplayCounts()


async def test_a_held_channel_waits_and_a_channel_that_goes_stops_it(rig: Rig) -> None:
    await rig.register(ACME)
    await rig.publish(ACME, make.callback(ACME, make.twilio("SM1", "sent")))
    await rig.drained()
    twilio = ACME.channels["twilio"]
    held = {**ACME.channels, "twilio": twilio.model_copy(update={"processing": "held"})}
    await rig.register(ACME.model_copy(update={"channels": held, "revision": 2}))
    begun = await begin(rig)

    async def waits() -> bool:
        found = await get(rig, "acme", begun.id)
        return found.state == pb.REPLAY_STATE_WAITING and found.text == "The channel's callbacks are held."

    await until("it waits", waits)
    channels = {"sendgrid": ACME.channels["sendgrid"]}
    await rig.register(ACME.model_copy(update={"channels": channels, "revision": 3}))
    found = await over(rig, begun)
    assert found.state == pb.REPLAY_STATE_STOPPED
    assert found.text == "The tenant has no such channel any more."


@pytest.mark.usefixtures("_small_pages")
async def test_one_that_is_cancelled_stops_where_it_is(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.register(ACME)
    for one in correspondence(ACME):
        await rig.publish(ACME, one)
    await rig.drained()
    await forgotten(rig)
    first, go_on = asyncio.Event(), asyncio.Event()
    page = callbacks.CallbackPages.page

    async def slow(self: callbacks.CallbackPages, held: Any, tenant: Tenant) -> Any:
        first.set()
        await go_on.wait()
        return await page(self, held, tenant)

    monkeypatch.setattr(callbacks.CallbackPages, "page", slow)
    begun, other = await begin(rig), await begin(rig)
    await asyncio.wait_for(first.wait(), 60)
    for id_ in (other.id, begun.id):
        answer = await rig.replays.CancelReplay(pb.CancelReplayRequest(tenant_id="acme", id=id_))
        assert answer.replay.state == pb.REPLAY_STATE_CANCELLED
    go_on.set()

    async def left() -> bool:
        return not await rig.database[REPLAYS_COLLECTION].count_documents({"open_since_us": {"$exists": True}})

    await until("nobody looks at them", left)
    found = await get(rig, "acme", begun.id)
    assert (found.state, found.ended_at_us) == (pb.REPLAY_STATE_CANCELLED, answer.replay.ended_at_us)
    # The page that was under way came to its end.
    assert 0 < found.counts.callbacks <= 7
    assert len(await rig.rows(EVENTS_COLLECTION)) == found.counts.new
    assert (await get(rig, "acme", other.id)).counts == pb.ReplayCounts()
    # Cancelled once more, it is as it was.
    again = await rig.replays.CancelReplay(pb.CancelReplayRequest(tenant_id="acme", id=begun.id))
    assert again.replay == found


@pytest.mark.usefixtures("_small_pages")
async def test_what_a_page_stored_and_did_not_publish_is_published_by_whoever_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.register(ACME)
    for one in correspondence(ACME):
        await rig.publish(ACME, one)
    await rig.drained()
    before = await rig.published()
    await forgotten(rig)
    publish, refused = publish_all, 0

    async def dies(*args: Any, **more: Any) -> None:
        nonlocal refused
        refused += 1
        if refused % 3 == 1:
            raise unavailable("JetStream")
        await publish(*args, **more)

    monkeypatch.setattr(callbacks, "publish_all", dies)
    found = await replayed(rig)
    assert found.counts.new == 80
    again = [event.id for event in await rig.published()]
    assert sorted(again) == sorted(event.id for event in before)


async def test_two_copies_do_it_once(rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "PAGE_MESSAGES", 3)
    async with rig_factory(copies=3) as rig:
        await rig.register(ACME, GLOBEX)
        for of in (ACME, GLOBEX):
            for one in correspondence(of):
                await rig.publish(of, one)
        await rig.drained()
        # Three copies that consume may publish an event once more, marked as repeated, when one takes over.
        before = {event.id for event in await rig.published()}
        for id_ in ("acme", "globex"):
            await forgotten(rig, id_)
        found = await asyncio.gather(replayed(rig), replayed(rig, "globex"))
        assert [one.counts.new for one in found] == [80, 80]
        again = [event.id for event in await rig.published()]
        assert sorted(again) == sorted(before)


async def test_one_that_cannot_go_on_keeps_no_other_waiting(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.register(ACME, GLOBEX)
    for of in (ACME, GLOBEX):
        await rig.publish(of, make.callback(of, make.twilio("SM1", "sent")))
    await rig.drained()
    page, away = callbacks.CallbackPages.page, True

    async def slow(self: callbacks.CallbackPages, held: Any, tenant: Tenant) -> Any:
        if away and tenant.id == "acme":
            raise unavailable("MongoDB")
        return await page(self, held, tenant)

    monkeypatch.setattr(callbacks.CallbackPages, "page", slow)
    stuck = await begin(rig)
    assert (await replayed(rig, "globex")).counts.callbacks == 1
    away = False
    assert (await over(rig, stuck)).counts.callbacks == 1


async def test_one_that_fails_for_good_stops(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.register(ACME)

    async def fails(*_: object) -> Any:
        raise ValueError("a page that nobody can read")

    monkeypatch.setattr(callbacks.CallbackPages, "page", fails)
    found = await over(rig, await begin(rig))
    assert (found.state, found.text) == (pb.REPLAY_STATE_STOPPED, "It failed: ValueError.")


async def test_a_key_begins_one_replay(rig: Rig) -> None:
    await rig.register(ACME)
    begun = await asyncio.gather(*(begin(rig, idempotency_key="k", to_us=FOR_EVER) for _ in range(4)))
    assert len({one.id for one in begun}) == 1
    with pytest.raises(BackhaulError) as refused:
        await begin(rig, idempotency_key="k", dry_run=True, to_us=FOR_EVER)
    assert (refused.value.code, refused.value.field) == (Code.CONFLICT, "idempotency_key")
    assert (await begin(rig, idempotency_key="k2", to_us=FOR_EVER)).id != begun[0].id


async def test_a_tenant_has_a_bounded_number_of_open_ones(rig_factory: RigFactory) -> None:
    async with rig_factory() as rig:
        held = {"twilio": ACME.channels["twilio"].model_copy(update={"processing": "held"})}
        await rig.register(ACME.model_copy(update={"channels": held}), GLOBEX)
        for _ in range(MAX_OPEN):
            await begin(rig)
        with pytest.raises(BackhaulError, match="not over") as refused:
            await begin(rig)
        assert refused.value.code is Code.FAILED_PRECONDITION
        assert (await replayed(rig, "globex")).counts == pb.ReplayCounts()
        listed = await rig.replays.ListReplays(pb.ListReplaysRequest(tenant_id="acme", page_size=7))
        rest = await rig.replays.ListReplays(
            pb.ListReplaysRequest(tenant_id="acme", page_size=7, page_token=listed.next_page_token)
        )
        assert len({one.id for one in (*listed.replays, *rest.replays)}) == MAX_OPEN


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"kind": 0}, Code.INVALID_ARGUMENT, "kind"),
        ({"kind": 77}, Code.INVALID_ARGUMENT, "kind"),
        ({"channel": ""}, Code.INVALID_ARGUMENT, "channel"),
        ({"channel": "a.b"}, Code.INVALID_ARGUMENT, "channel"),
        ({"channel": "callbacks.>"}, Code.INVALID_ARGUMENT, "channel"),
        ({"channel": "nothing"}, Code.NOT_FOUND, "channel"),
        ({"from_us": 0}, Code.INVALID_ARGUMENT, "from_us"),
        ({"from_us": -1}, Code.INVALID_ARGUMENT, "from_us"),
        ({"from_us": 1 << 62}, Code.INVALID_ARGUMENT, "from_us"),
        ({"to_us": 1}, Code.INVALID_ARGUMENT, "to_us"),
        ({"to_us": -1}, Code.INVALID_ARGUMENT, "to_us"),
        ({"reason": "x"}, Code.INVALID_ARGUMENT, "reason"),
        ({"idempotency_key": "x" * 256}, Code.INVALID_ARGUMENT, "idempotency_key"),
        ({"kind": pb.REPLAY_KIND_DISCARD, "channel": "", "from_us": 0}, Code.INVALID_ARGUMENT, "channel"),
        ({"kind": pb.REPLAY_KIND_DISCARD, "reason": "x" * 201}, Code.INVALID_ARGUMENT, "reason"),
        ({"kind": pb.REPLAY_KIND_DISCARD, "reason": "\x00"}, Code.INVALID_ARGUMENT, "reason"),
    ],
)
async def test_what_is_refused(rig: Rig, fields: dict[str, Any], code: Code, field: str) -> None:
    await rig.register(ACME)
    with pytest.raises(BackhaulError) as refused:
        await begin(rig, **fields)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert refused.value.fix
    assert not await rig.database[REPLAYS_COLLECTION].count_documents({})
