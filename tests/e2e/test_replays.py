"""A channel whose mapping was wrong gets its events by a replay; dead letters are replayed and discarded by filter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_client import AsyncTenantClient, ConflictError, ForbiddenError, InvalidArgumentError, NotFoundError
from backhaul_testing.mapped import MPulseSimulator, new_id
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_client.replaymodels import Replay
    from simulators.people import Tenant, Town

LETTERS = 5
MAPPING: dict[str, Any] = {
    "mapping": {"message_id": "data.ref", "status": "data.outcome"},
    "statuses": {"arrived": "delivered"},
}


async def _over(tenant: Tenant, begun: Replay) -> Replay:
    async def probe() -> Replay | None:
        found = await tenant.client.replays.get(begun.id)
        return found if found.ended_at is not None else None

    found = await until("the end of the replay", probe)
    assert (found.state, found.percent, found.author) == ("done", 100, begun.author)
    return found


async def _unread(town: Town, tenant: Tenant) -> list[str]:
    """Callbacks that are dead letters, since the channel does not say where anything stands."""
    await town.platform.client.put_channel(tenant.id, "mPulse")
    ids = [new_id("m") for _ in range(LETTERS)]
    address = tenant.address("mPulse")
    await tenant.receive(
        *(MPulseSimulator().json(address, {"data": {"ref": one, "outcome": "arrived"}}) for one in ids)
    )

    async def filed() -> bool:
        return len(await tenant.dead_letters(state="open")) == LETTERS

    await until("the dead letters", filed)
    return ids


async def test_a_mapping_is_mended_and_its_callbacks_are_replayed(town: Town) -> None:
    tenant = await town.platform.register()
    began = datetime.now(UTC) - timedelta(minutes=1)
    ids = await _unread(town, tenant)
    await town.platform.client.put_channel(tenant.id, "mPulse", settings=MAPPING)
    replays = tenant.client.replays
    dry = await _over(tenant, await replays.begin("mPulse", from_=began, dry_run=True))
    assert (dry.kind, dry.dry_run, dry.channel) == ("callbacks", True, "mpulse")
    assert (dry.counts.callbacks, dry.counts.new, dry.counts.dead_letters) == (LETTERS, LETTERS, LETTERS)
    assert {one.outcome for one in dry.examples} == {"new", "closed"}
    assert await tenant.events() == []
    real = await _over(tenant, await replays.begin("mPulse", from_=began))
    assert real.counts == dry.counts
    assert {row.message_id for row in await tenant.events()} == set(ids)
    assert {row.source for row in await tenant.events()} == {"replay"}
    assert await tenant.dead_letters(state="open") == []
    # Once more it has nothing to do.
    assert (await _over(tenant, await replays.begin("mPulse", from_=began))).counts.new == 0
    assert len(await tenant.events()) == LETTERS
    listed = [one async for one in replays.list(page_size=2)]
    assert [one.counts.new for one in listed] == [0, LETTERS, LETTERS]
    assert all(one.examples == () for one in listed)


async def test_dead_letters_are_replayed_and_discarded_by_filter(town: Town) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    for one in (tenant, other):
        await _unread(town, one)
    replays, team = tenant.client.replays, town.platform.client
    dry = await _over(tenant, await replays.discard_dead_letters(reason="mapping.status", dry_run=True))
    assert dry.counts.dead_letters == LETTERS
    assert (await _over(tenant, await replays.discard_dead_letters(reason="else"))).counts.dead_letters == 0
    assert len(await tenant.dead_letters(state="open")) == LETTERS
    await team.put_channel(tenant.id, "mPulse", settings=MAPPING)
    # The platform team does the same, and it shows who did it.
    begun = await team.replay_dead_letters(tenant.id, channel="mPulse", idempotency_key="once")
    assert (await team.replay_dead_letters(tenant.id, channel="mPulse", idempotency_key="once")).id == begun.id
    found = await _over(tenant, begun)
    assert (found.kind, found.counts.dead_letters) == ("dead_letters", LETTERS)
    assert found.author is not None
    assert found.author.startswith("admin:")
    assert await team.replay(tenant.id, begun.id) == found
    assert await team.cancel_replay(tenant.id, begun.id) == found

    async def told() -> bool:
        return len(await tenant.events()) == LETTERS

    await until("the events", told)
    assert await tenant.dead_letters(state="open") == []
    assert len(await other.dead_letters(state="open")) == LETTERS
    with pytest.raises(NotFoundError):
        await team.replay(other.id, begun.id)
    discarded = await team.discard_dead_letters(other.id, from_=datetime(2026, 1, 1, tzinfo=UTC))
    assert (await _over(other, discarded)).counts.dead_letters == LETTERS
    assert await other.dead_letters(state="open") == []


async def test_what_is_refused_names_the_field_and_the_fix(town: Town) -> None:
    tenant = await town.platform.register()
    replays, began = tenant.client.replays, datetime(2026, 1, 1, tzinfo=UTC)
    for refused, field in (
        (replays.begin("Twilio", from_=began, to=began), "to"),
        (replays.begin("no channel!", from_=began), "channel"),
        (replays.replay_dead_letters(), "channel"),
        (replays.discard_dead_letters(reason="x" * 201), "reason"),
        (replays.discard_dead_letters(channel="Twilio", from_=began, to=began), "to"),
    ):
        with pytest.raises(InvalidArgumentError) as said:
            await refused
        assert said.value.field.removeprefix("body.") == field
        assert said.value.fix
    with pytest.raises(NotFoundError):
        await replays.begin("Elsewhere", from_=began)
    await replays.begin("Twilio", from_=began, idempotency_key="one")
    with pytest.raises(ConflictError) as conflict:
        await replays.begin("SendGrid", from_=began, idempotency_key="one")
    assert conflict.value.field == "Idempotency-Key"
    key = await tenant.client.add_key(scopes=["read"])
    async with AsyncTenantClient(tenant.base_url, key.key) as reader:
        assert len([one async for one in reader.replays.list()]) == 1
        with pytest.raises(ForbiddenError):
            await reader.replays.begin("Twilio", from_=began)
