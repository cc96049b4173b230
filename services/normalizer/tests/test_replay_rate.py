"""A replay at a rate leaves the rest of the time to what comes in, and a dry run says how long it will take."""

from __future__ import annotations

from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import REPLAYS_COLLECTION
from backhaul_common.tenants import Tenant
from backhaul_normalizer.replays.tasks import MAX_RATE_PER_S
from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig
from replay_rig import ACME, GLOBEX, begin, get, over, replayed


def _told(of: Tenant, count: int) -> list[Any]:
    return [make.callback(of, make.twilio(f"SM{number}", "sent")) for number in range(count)]


async def test_a_replay_keeps_to_its_rate_and_a_dry_run_foretells_it(rig: Rig) -> None:
    await rig.register(ACME)
    for one in _told(ACME, 30):
        await rig.publish(ACME, one)
    await rig.drained()
    dry = await replayed(rig, rate_per_s=20, dry_run=True)
    assert (dry.rate_per_s, dry.counts.callbacks) == (20, 30)
    assert dry.takes_s >= 2
    found = await replayed(rig, rate_per_s=20)
    assert (found.rate_per_s, found.counts.callbacks) == (20, 30)
    # Between its two pages, of a second's callbacks each at most.
    assert found.ended_at_us - found.created_at_us >= 900_000
    fast = await replayed(rig, rate_per_s=MAX_RATE_PER_S)
    assert fast.counts.callbacks == 30
    # Without a rate it is told by how long it took.
    usual = await replayed(rig, dry_run=True)
    assert (usual.rate_per_s, usual.takes_s > 0) == (0, True)


async def test_a_dry_run_tells_what_a_rate_makes_of_it_and_does_not_keep_to_it(rig: Rig) -> None:
    await rig.register(ACME)
    # A page at this rate is of one message, and rests for five minutes after the first.
    for number in range(10):
        await rig.publish(ACME, *_told(ACME, 1 if number else 300))
    await rig.drained()
    dry = await replayed(rig, rate_per_s=1, dry_run=True)
    assert (dry.counts.callbacks, dry.takes_s) == (309, 309)
    # Each page takes it once.
    [row] = await rig.rows(REPLAYS_COLLECTION)
    assert row["epoch"] < 10


async def test_one_that_rests_keeps_no_other_tenant_and_ends_at_once(rig: Rig) -> None:
    await rig.register(ACME, GLOBEX)
    for of in (ACME, GLOBEX):
        await rig.publish(of, *_told(of, 300))
        await rig.publish(of, make.callback(of, make.twilio("SM-last", "sent")))
    await rig.drained()
    slow = await begin(rig, rate_per_s=1)
    other = await replayed(rig, "globex")
    assert other.counts.callbacks == 301
    again = await replayed(rig, "globex")
    assert again.counts.callbacks == 301
    resting = await get(rig, "acme", slow.id)
    assert (resting.state, resting.counts.callbacks) == (pb.REPLAY_STATE_RUNNING, 300)
    assert resting.takes_s >= 300
    cancelled = (await rig.replays.CancelReplay(pb.CancelReplayRequest(tenant_id="acme", id=slow.id))).replay
    assert cancelled.state == pb.REPLAY_STATE_CANCELLED
    # Nor does it keep the tenant's next one.
    assert (await replayed(rig)).counts.callbacks == 301


@pytest.mark.parametrize(
    "fields",
    [
        {"rate_per_s": -1},
        {"rate_per_s": MAX_RATE_PER_S + 1},
        {"rate_per_s": 5, "kind": pb.REPLAY_KIND_DEAD_LETTERS},
        {"rate_per_s": 5, "kind": pb.REPLAY_KIND_DISCARD},
    ],
)
async def test_a_rate_is_bounded_and_only_of_callbacks(rig: Rig, fields: dict[str, Any]) -> None:
    await rig.register(ACME)
    with pytest.raises(BackhaulError) as refused:
        await begin(rig, **fields)
    assert (refused.value.code, refused.value.violations[0].field) == (Code.INVALID_ARGUMENT, "rate_per_s")


async def test_one_of_the_version_before_has_no_rate(rig: Rig) -> None:
    await rig.register(ACME)
    await rig.publish(ACME, *_told(ACME, 3))
    await rig.drained()
    begun = await begin(rig, idempotency_key="once", to_us=4_000_000_000_000_000)
    await over(rig, begun)
    await rig.database[REPLAYS_COLLECTION].update_one(
        {"_id": begun.id}, {"$unset": {"rate_per_s": "", "took_us": "", "rest_until": ""}}
    )
    again = await begin(rig, idempotency_key="once", to_us=4_000_000_000_000_000)
    assert (again.id, again.rate_per_s, again.takes_s) == (begun.id, 0, 0)
    with pytest.raises(BackhaulError) as refused:
        await begin(rig, idempotency_key="once", to_us=4_000_000_000_000_000, rate_per_s=7)
    assert refused.value.code is Code.CONFLICT
