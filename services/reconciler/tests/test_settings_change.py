"""A channel's account, credentials and settings change while it is asked, and gateways' clocks are wrong."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from provider_api import Answer, Request

if TYPE_CHECKING:
    from asking_rig import Copy, Rig

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


async def in_the_middle_of_a_page(rig: Rig, copy: Copy, **changed: str) -> None:
    """A turn in whose second page the channel is PUT anew, of which another copy hears first."""

    before = rig.directory.tenants
    after: list[Any] = []

    async def changes(request: Request, _: asyncio.StreamWriter) -> Answer | None:
        if request.params.get("page") == "10":
            rig.api.misbehave = None
            await rig.register(**changed)
            await rig.copy("other").channels.sync()
            after.append(rig.directory.tenants)
            rig.directory.tenants = before
        return None

    rig.api.misbehave = changes
    assert await copy.turn()
    (rig.directory.tenants,) = after


@pytest.mark.parametrize("changed", [{"account": "A2"}, {"token": "other"}])
async def test_whatever_changes_in_the_middle_of_a_page_all_is_found_once(asking: Rig, changed: dict[str, str]) -> None:
    await asking.register()
    asking.api.tokens.add("other")
    asking.send(25)
    copy = asking.copy()
    await copy.channels.sync()
    await in_the_middle_of_a_page(asking, copy, **changed)
    row = await asking.channel()
    asked = len(asking.api.requests)
    await copy.channels.sync()
    account = f"twilio/{changed.get('account', 'A1')}"
    assert row["account"] == account
    await asking.due()  # the other copy has left it some seconds to hear of it
    for _ in range(3):
        await copy.turn(account)
    first = asking.api.requests[asked]
    # In another account nothing of what was read leads on.
    assert first.params["page"] == ("" if "account" in changed else "10")
    assert ("lists" in row) == ("account" not in changed)
    await asking.normalizer.process()
    assert asking.normalizer.backfilled == {("acme", f"M{place:04}", "delivered"): 1 for place in range(25)}


async def test_of_another_account_yesterday_is_asked_for_too(asking: Rig) -> None:
    """And of the same one not, however often the channel is put, held or switched off meanwhile."""
    await asking.register()
    copy = asking.copy()
    await copy.channels.sync()
    await copy.until_done()
    known_to = (await asking.channel())["lists"]["messages"]["to_us"]
    for enabled in (False, True):
        await asking.register(enabled=enabled)
        await copy.channels.sync()
    assert (await asking.channel())["lists"]["messages"]["to_us"] == known_to
    asking.api.send("M1", "delivered", asking.now_us() - 2 * HOUR_US)
    await asking.register(account="A2")
    await copy.channels.sync()
    await copy.turn("twilio/A2")
    await asking.normalizer.process()
    assert asking.normalizer.backfilled == {("acme", "M1", "delivered"): 1}


@pytest.mark.parametrize("ahead_h", [-5, 5])
async def test_settings_that_a_gateway_with_a_wrong_clock_stored_are_followed(asking: Rig, ahead_h: int) -> None:
    tenant = await asking.register()
    asking.send(5)
    copy, stale = asking.copy(), asking.copy("stale")
    await copy.channels.sync()
    await stale.channels.sync()
    at = datetime.now(UTC) + timedelta(hours=ahead_h)
    changed = tenant.channels["twilio"].model_copy(update={"updated_at": at.replace(microsecond=0)})
    await asking.put(tenant.model_copy(update={"channels": {"twilio": changed}}))
    await copy.channels.sync()
    await copy.until_done()
    await asking.normalizer.process()
    assert len(asking.normalizer.backfilled) == 5
    # Who has not heard of it, and is started anew, does not put the old ones there again.
    after = asking.directory.tenants
    asking.directory.tenants = {"acme": tenant}
    await asking.copy("late").channels.sync()
    assert (await asking.channel())["settings_us"] == int(changed.updated_at.timestamp() * 1_000_000)
    asking.directory.tenants = after
