"""Files whose time is over go, and digests say so before; locks are waited for."""

from __future__ import annotations

import json

from backhaul_audit.ports import Locked
from backhaul_common.names import AUDIT_FILES_COLLECTION
from backhaul_digests.model import Chain
from digests_rig import DAY_US, Here, Locking, Rig, together


async def days(digesting: Rig, count: int) -> None:
    """So many days pass, with a digest each."""
    for _ in range(count):
        await digesting.hour(24)


async def is_there(digesting: Rig, key: str) -> bool:
    return await digesting.bucket.stat(key) is not None


async def test_files_go_when_their_time_is_over_and_digests_say_so_before(digesting: Rig) -> None:
    acme, globex = await digesting.register("acme"), await digesting.register("globex")
    await digesting.keep_for(acme, 30)
    old, others = await digesting.seal(acme), await digesting.seal(globex)
    late = await digesting.seal(acme, chain=Chain.BACKFILL)
    await digesting.hour()
    await days(digesting, 29)
    new = await digesting.seal(acme)
    retention = digesting.retention()
    await retention.look()
    await days(digesting, 2)
    assert await is_there(digesting, old.plan.key)

    await retention.look()
    await retention.look()
    # Condemned, and no digest says so yet.
    assert await is_there(digesting, old.plan.key)
    assert (await digesting.verified(acme))[0] == []
    await digesting.hour()
    assert await is_there(digesting, old.plan.key)
    await retention.look()
    for gone in (old, late):
        assert not await is_there(digesting, gone.plan.key)
    for kept in (others, new):
        assert await is_there(digesting, kept.plan.key)
    findings, told = await digesting.verified(acme)
    assert findings == []
    assert told.files == 3
    row = await digesting.database[AUDIT_FILES_COLLECTION].find_one({"key": old.plan.key})
    assert row is not None
    assert row["deleted_at_us"] == digesting.now_us
    said = json.loads((await digesting.rows(acme))[-1]["line"])["deletions"]
    assert [(one["number"], one["object"], one["reason"]) for one in said] == [(1, old.plan.key, "retention")]
    await digesting.hour()
    await retention.look()
    assert [row["deletions"] for row in await digesting.rows(acme)][-2:] == [1, 0]
    # What is left is checked as before.
    assert await digesting.bucket.delete(new.plan.key) is None
    assert [one.problem for one in (await digesting.verified(acme))[0]] == ["not_found"]


async def test_a_copy_that_dies_in_between_has_deleted_nothing_twice_and_nothing_in_secret(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    await digesting.keep_for(acme, 1)
    file = await digesting.seal(acme)
    await digesting.hour()
    await days(digesting, 2)
    await digesting.retention().look()
    await digesting.hour()
    # It deleted the object, and died before it could write that down.
    assert await digesting.bucket.delete(file.plan.key) is None
    assert (await digesting.verified(acme))[0] == []
    await together(*(digesting.retention().look() for _ in range(3)))
    row = await digesting.database[AUDIT_FILES_COLLECTION].find_one({"key": file.plan.key})
    assert row is not None
    assert row["deleted_at_us"] == digesting.now_us


async def test_what_a_lock_holds_goes_when_the_lock_is_over(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    await digesting.keep_for(acme, 1)
    file = await digesting.seal(acme)
    await digesting.hour()
    await days(digesting, 2)
    await digesting.retention().look()
    await digesting.hour()
    until_us = digesting.now_us + DAY_US
    locking = Locking(digesting.bucket, digesting, until_us)
    retention = digesting.retention(Here(locking))
    await retention.look()
    await retention.look()
    assert locking.asked == 1
    assert await retention.locked(acme.registration) == {file.plan.pile.channel: Locked(1, until_us)}
    assert await retention.locked("globex.1") == {}
    assert await is_there(digesting, file.plan.key)
    await digesting.hour(25)
    await retention.look()
    assert not await is_there(digesting, file.plan.key)
    assert await retention.locked(acme.registration) == {}
    assert (await digesting.verified(acme))[0] == []
