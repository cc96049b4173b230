"""A normalizer that takes too long, and what other versions of the reconciler have stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from backhaul_channels.pull import Listing
from backhaul_common.metrics import RECONCILER_LATE_SECONDS
from backhaul_common.names import RECONCILED_ACCOUNTS_COLLECTION, RECONCILED_CHANNELS_COLLECTION
from backhaul_reconciler import app
from days_rig import turns
from provider_api import Messages

if TYPE_CHECKING:
    from asking_rig import Copy, Rig

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US


@pytest.mark.parametrize("most", [4, 1])
async def test_what_takes_too_long_to_compare_is_compared_in_smaller_parts(asking: Rig, most: int) -> None:
    asking.normalizer.most = most
    await asking.register()
    asking.send(10)
    await turns(asking, 0)
    (run,) = await asking.runs()
    assert (run["state"], run["counts"]["missing"]) == ("done", 10)
    assert len(asking.normalizer.backfilled) == 10
    assert asking.normalizer.sizes.count(10) == 1


async def test_an_age_that_only_another_version_asks_at_blocks_no_other(asking: Rig) -> None:
    await asking.register()
    asking.normalizer.hear("acme", "M1", "sent", asking.now_us() - 2 * HOUR_US)
    copy = asking.copy()
    await copy.channels.sync()
    opening = {"age": 7_200, "from_us": 0, "to_us": 1, "end_us": 1}
    await asking.database[RECONCILED_CHANNELS_COLLECTION].update_one({}, {"$set": {"opening": opening}})
    await copy.until_done()
    assert asking.api.asked("/message/M1")
    assert "opening" not in await asking.channel()


async def test_a_list_may_be_named_as_a_pass_is(asking: Rig) -> None:
    class Called(Messages):
        lists = (Listing("called", "api", rows=10), Listing("open", "api", rows=10))

    asking.ask(Called())
    tenant = await asking.register()
    asking.normalizer.hear("acme", "OPEN", "sent", asking.now_us() - HOUR_US)
    copy = asking.copy()
    await copy.channels.sync()
    copy.turns._turn_pages = 2  # it takes several turns
    asking.send(25)
    report = await copy.ask(tenant)
    while "called" in (row := await asking.channel()) or row.get("running", {}).get("cause") == "call":
        assert await copy.turn()
    (run,) = [one for one in await asking.runs() if one["_id"] == report]
    assert run["state"] == "done"
    assert asking.api.asked("/open")
    assert asking.api.asked("/message/OPEN")


async def test_a_dry_run_neither_lists_nor_settles_differences(asking: Rig) -> None:
    tenant = await asking.register()
    now_us = asking.now_us()
    await turns(asking, 0)  # what is scheduled is not due
    copy = asking.copy()
    await copy.channels.sync()
    asking.normalizer.hear("acme", "TWO", "delivered", now_us - HOUR_US)
    asking.api.send("TWO", "undelivered", now_us - HOUR_US)
    span = (now_us - 2 * HOUR_US, now_us)
    await copy.ask(tenant, span, dry_run=True)
    await copy.turn()
    dry = (await asking.runs())[-1]
    assert (dry["dry_run"], dry["counts"]["differing"]) == (True, 1)
    assert await asking.differences() == {}

    await copy.ask(tenant, span)
    await copy.turn()
    assert (await asking.differences()).keys() == {"TWO"}
    # The callbacks that would make both sides equal are missing still.
    asking.api.send("TWO", "delivered", now_us - HOUR_US)
    await copy.ask(tenant, span, dry_run=True)
    await copy.turn()
    assert (await asking.differences()).keys() == {"TWO"}
    await copy.ask(tenant, span)
    await copy.turn()
    assert await asking.differences() == {}


def late_s(copy: Copy) -> float:
    lines = copy.metrics.render().decode().splitlines()
    (found,) = [line for line in lines if line.startswith(RECONCILER_LATE_SECONDS.name)]
    return float(found.rpartition(" ")[2])


async def test_who_is_being_asked_is_not_late(asking: Rig) -> None:
    await asking.register()
    copies = [asking.copy(name) for name in ("one", "two", "three")]
    await copies[0].channels.sync()
    since = {"$set": {"due_at_us": asking.now_us() - 600 * SECOND_US, "changed_at_us": 0}}
    await asking.database[RECONCILED_CHANNELS_COLLECTION].update_many({}, since)
    full = copies[2]
    full.asking._most = 0
    await full.asking.look()
    assert late_s(full) == pytest.approx(600, abs=30), "nobody asks it"

    async def hang(*_: object) -> None:
        await asking.api.hang()

    asking.api.misbehave = hang
    try:
        for _ in range(2):
            for copy in copies[:2]:
                await copy.asking.look()
        assert len(copies[0].asking._held) == 1
        assert [late_s(copy) for copy in copies[:2]] == [0.0, 0.0]
    finally:
        for task in copies[0].asking._held.values():
            task.cancel()


async def test_an_account_that_nobody_asks_any_more_goes_and_comes_back_unspent(asking: Rig) -> None:
    await asking.register()
    copy = asking.copy()
    held = await copy.accounts.take("twilio/A1")
    assert held is not None
    indexes = await asking.database[RECONCILED_ACCOUNTS_COLLECTION].index_information()
    assert [one["key"] for one in indexes.values() if one.get("expireAfterSeconds") == 90 * 86_400] == [[("until", 1)]]
    assert RECONCILED_ACCOUNTS_COLLECTION in app.INDEXES
    await copy.accounts.hand_over(held, 0, {})
    await asking.database[RECONCILED_ACCOUNTS_COLLECTION].delete_many({})
    again = await asking.copy("other").accounts.take("twilio/A1")
    assert again is not None
    assert (again.epoch, again.left) == (1, None)
    await asking.dead()
    await copy.channels.sync()
    await copy.until_done()
    assert (await asking.channel())["standing"] == "asked"
