"""Files as they are listed, by when their events arrived, however late they were sealed."""

from __future__ import annotations

from backhaul_audit.files import CLOCKS_US, MongoFiles
from backhaul_audit.model import SealedFile
from backhaul_audit.ports import FilesQuery
from backhaul_common.names import AUDIT_FILES_COLLECTION
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
