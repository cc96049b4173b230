"""Files as they are listed, by when their events arrived, however late they were sealed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from backhaul_audit.books import INDEXES
from backhaul_audit.documents import plan_document
from backhaul_audit.files import CLOCKS_US, MongoFiles
from backhaul_audit.model import PileKey, SealedFile
from backhaul_audit.ports import FilesQuery
from backhaul_common import mongo
from backhaul_common.names import AUDIT_FILES_COLLECTION
from backhaul_digests.model import Chain
from digests_rig import DAY_US, Rig


async def test_files_are_found_by_when_their_events_arrived(digesting: Rig) -> None:
    acme, globex = await digesting.register("acme"), await digesting.register("globex")
    files = [await digesting.seal(acme, at_us=digesting.now_us + hour * 3_600_000_000) for hour in range(6)]
    # It waited for its bucket for a day; and one was sealed by a clock that is behind.
    late = await digesting.seal(acme, at_us=digesting.now_us + DAY_US)
    rows = digesting.database[AUDIT_FILES_COLLECTION]
    behind = files[5].content.last_at_us - CLOCKS_US
    await rows.update_one({"key": files[5].plan.key}, {"$set": {"sealed_at_us": behind}})
    await digesting.seal(globex)
    listed = MongoFiles(digesting.database)

    async def numbers(from_us: int = 0, to_us: int = 0) -> list[int]:
        found: list[SealedFile] = []
        token = ""
        while True:
            page, token = await listed.page(acme.registration, FilesQuery(span=(from_us, to_us), size=2, token=token))
            found += page
            if not token:
                return sorted(file.number for file in found)

    assert await numbers() == [1, 2, 3, 4, 5, 6, 7]
    arrived = late.content.last_at_us
    assert await numbers(from_us=arrived) == [7]
    assert await numbers(from_us=files[4].content.last_at_us) == [5, 6, 7]
    assert await numbers(from_us=files[5].content.last_at_us + 1) == [7]
    assert await numbers(to_us=files[2].content.first_at_us) == [1, 2]
    assert await numbers(from_us=files[2].content.first_at_us, to_us=files[3].content.first_at_us) == [3]
    assert await numbers(from_us=1, to_us=2) == []
    assert await numbers(from_us=arrived + DAY_US) == []


async def test_channels_with_files_that_are_not_encrypted(digesting: Rig) -> None:
    acme, globex = await digesting.register("acme"), await digesting.register("globex")
    rows = digesting.database[AUDIT_FILES_COLLECTION]
    for tenant, channel, encrypted, deleted_at_us in (
        (acme, "plain", False, 0),
        (acme, "plain", False, 0),
        (acme, "both", True, 0),
        (acme, "both", False, 0),
        (acme, "before", None, 0),
        (acme, "encrypted", True, 0),
        (acme, "deleted", False, 9),
        (globex, "theirs", False, 0),
    ):
        file = await digesting.seal(tenant)
        change: dict[str, Any] = {"$set": {"channel": channel, "deleted_at_us": deleted_at_us}}
        # Files of before there was encryption say nothing of it.
        change |= {"$unset": {"encrypted": ""}} if encrypted is None else {}
        if encrypted is not None:
            change["$set"]["encrypted"] = encrypted
        await rows.update_one({"key": file.plan.key}, change)
    # One that is being made is none yet.
    plan = plan_document(replace(file.plan, id="f" * 32, pile=PileKey(acme.registration, "made", Chain.EVENTS)), 1)
    await rows.insert_one(plan)
    files = MongoFiles(digesting.database)
    assert await files.plain_channels(acme.registration) == ["before", "both", "plain"]
    assert await files.plain_channels(globex.registration) == ["theirs"]
    assert await files.plain_channels("nobody.0") == []
    # However many files there are, each channel is some looks at an index.
    await mongo.make_indexes(digesting.database, INDEXES)
    row = await rows.find_one({"key": file.plan.key}, {"_id": 0})
    assert row is not None
    many = {**row, "registration": acme.registration, "channel": "a", "encrypted": True}
    await rows.insert_many([{**many, "number": number, "_id": f"{number}"} for number in range(1000, 3000)])
    assert await files.plain_channels(acme.registration) == ["before", "both", "plain"]
    for encrypted in (None, False):
        asked = {"registration": acme.registration, "encrypted": encrypted, "deleted_at_us": 0, "channel": {"$gt": ""}}
        explained = await rows.find(asked, {"channel": 1}).sort("channel", 1).limit(1).explain()
        assert explained["executionStats"]["totalDocsExamined"] <= 2, explained["queryPlanner"]
