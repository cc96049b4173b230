"""Channels that are asked no more: nothing is asked, stored or told of them from then on, and it is said in words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_reconciler.model import DAY_US
from provider_api import Request

if TYPE_CHECKING:
    from asking_rig import Rig


async def test_nothing_is_stored_or_told_of_a_tenant_who_is_going(asking: Rig) -> None:
    tenant = await asking.register()
    asking.send(25)
    copy = asking.copy()
    await copy.channels.sync()

    async def going(request: Request, _: asyncio.StreamWriter) -> None:
        if request.params.get("page") == "10":
            # The gateway marks the tenant; this copy has not heard of it.
            await asking.database["tenants"].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})

    asking.api.misbehave = going
    await copy.turn()
    await asking.normalizer.process()
    assert sum(asking.normalizer.backfilled.values()) == 10
    (run,) = await asking.runs()
    assert run["counts"]["missing"] == 10
    before = await asking.channel()
    assert before["lists"]["messages"]["cursor"] == "10"
    # Its data is deleted: a copy that still knows it does not make it anew.
    await asking.database["reconciled_channels"].delete_many({})
    await asking.copy("late").channels.sync()
    assert await asking.database["reconciled_channels"].count_documents({}) == 0
    gone = tenant.model_copy(update={"status": "deleting"})
    asking.directory.tenants = {"acme": gone}
    await copy.channels.sync()
    assert not await copy.turn()


async def test_a_suspended_tenant_is_not_asked_for_and_goes_on_where_it_was(asking: Rig) -> None:
    tenant = await asking.register()
    asking.send(5)
    copy = asking.copy()
    await copy.channels.sync()
    await asking.put(tenant.model_copy(update={"status": "suspended"}))
    await copy.channels.sync()
    assert not await copy.channels.due()
    assert not await copy.turn()
    row = await asking.channel()
    assert (row["standing"], row["text"]) == ("off", "The tenant is suspended.")
    await asking.put(tenant)
    await copy.channels.sync()
    await copy.until_done()
    assert (await asking.channel())["standing"] == "asked"
    assert asking.api.requests


async def test_a_held_channel_is_not_asked_until_it_goes_on(asking: Rig) -> None:
    """What it lacks would be told again at each run, and wait with what is held."""
    tenant = await asking.register()
    asking.send(5)
    copy = asking.copy()
    await copy.channels.sync()
    held = tenant.channels["twilio"].model_copy(update={"processing": "held"})
    await asking.put(tenant.model_copy(update={"channels": {"twilio": held}}))
    await copy.channels.sync()
    assert not await copy.turn()
    row = await asking.channel()
    assert (row["standing"], "held" in row["text"]) == ("off", True)
    with pytest.raises(BackhaulError) as caught:
        await copy.ask(asking.directory.tenants["acme"])
    assert (caught.value.code, "held" in str(caught.value)) == (Code.FAILED_PRECONDITION, True)
    assert not asking.api.requests
    await asking.put(tenant)
    await copy.channels.sync()
    await copy.until_done()
    assert (await asking.channel())["standing"] == "asked"
    assert asking.api.requests


async def test_a_channel_that_is_switched_off_or_removed_ends_its_run(asking: Rig) -> None:
    tenant = await asking.register()
    copy = asking.copy()
    await copy.channels.sync()
    report = await copy.ask(tenant)
    with pytest.raises(BackhaulError) as caught:
        await copy.ask(tenant)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert report in caught.value.violations[0].fix
    await asking.register(enabled=False)
    await copy.channels.sync()
    (run,) = await asking.runs()
    assert (run["_id"], run["state"]) == (report, "stopped")
    assert not await copy.turn()
    assert (await asking.channel())["standing"] == "off"
    await asking.put(tenant.model_copy(update={"channels": {}}))
    await copy.channels.sync()
    assert await asking.database["reconciled_channels"].count_documents({}) == 0
    # Also where no copy was there when it was removed.
    await asking.put(tenant)
    await copy.channels.sync()
    await asking.put(tenant.model_copy(update={"channels": {}}))
    await asking.copy("new").channels.sync()
    assert await asking.database["reconciled_channels"].count_documents({}) == 0


async def test_why_a_channel_is_not_asked_comes_with_what_to_do(asking: Rig) -> None:
    tenant = await asking.register()
    copy = asking.copy()

    async def refused(**fields: object) -> BackhaulError:
        channel = tenant.channels["twilio"].model_copy(update=fields)
        with pytest.raises(BackhaulError) as caught:
            await copy.ask(tenant.model_copy(update={"channels": {"twilio": channel}}))
        assert (caught.value.code, caught.value.field) == (Code.FAILED_PRECONDITION, "channel")
        return caught.value

    without = await refused(pull_credentials="")
    assert "no pull_credentials" in without.message
    assert without.violations[0].fix == "PUT the channel with pull_credentials; twilio takes: account, sender, token."
    off = await refused(settings={"reconcile": {"enabled": False}})
    assert "reconcile.enabled" in off.violations[0].fix
    held = await refused(processing="held")
    assert "resume" in held.violations[0].fix
    other = await refused(provider="mpulse")
    assert "no API" in other.message
    assert "another channel" in other.violations[0].fix


async def test_a_span_that_the_provider_does_not_reach_back_to_is_refused_and_not_taken_for_complete(
    asking: Rig,
) -> None:
    tenant = await asking.register()
    copy = asking.copy()
    now_us = asking.now_us()
    for span in ((now_us - 401 * DAY_US, 0), (now_us - 500 * DAY_US, now_us - 450 * DAY_US)):
        with pytest.raises(BackhaulError) as caught:
            await copy.ask(tenant, span)
        assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "from_us")
        assert "400 days" in caught.value.message
    await copy.channels.sync()
    await copy.ask(tenant, (now_us - 399 * DAY_US, 0), dry_run=True)


async def test_what_was_found_of_a_channel_goes_with_it_and_nobody_elses_does(asking: Rig) -> None:
    found = ("reconciled_differences", "reconciled_days", "reconciled_seen")
    tenant = await asking.register()
    await asking.register("globex", account="A2")
    copy = asking.copy()
    await copy.channels.sync()
    await copy.until_done()
    assert await copy.turn("twilio/A2")
    registration, other = tenant.registration, asking.directory.tenants["globex"].registration
    for name in found:
        for life, channel in ((registration, "twilio"), (registration, "twilio/2"), (registration, "twilio2")):
            row = {"_id": f"{life}/{channel}/one", "registration": life, "channel": channel}
            await asking.database[name].insert_one(row)

    async def left() -> dict[str, int]:
        return {name: await asking.database[name].count_documents({}) for name in found}

    before = await left()
    assert before == {"reconciled_differences": 3, "reconciled_days": 5, "reconciled_seen": 3}
    # Nothing goes while it is switched off.
    await asking.register(enabled=False)
    await copy.channels.sync()
    assert await left() == before
    await asking.put(tenant.model_copy(update={"channels": {}}))
    await copy.channels.sync()
    assert await left() == {"reconciled_differences": 2, "reconciled_days": 3, "reconciled_seen": 2}
    assert await asking.database["reconciled_days"].count_documents({"registration": other}) == 1
    assert len(await asking.runs()) == 2, "reports stay for their time"
