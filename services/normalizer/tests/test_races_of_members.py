"""Several who add to one batch at once, and close it meanwhile: on a real server, two registrars."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import BATCHES_COLLECTION, MEMBERS_COLLECTION, TENANTS_COLLECTION
from backhaul_common.tenants import Tenant
from backhaul_normalizer.communications.membership import MemberAt, Told, told_of
from backhaul_normalizer.communications.registering import BatchTold, MongoRegister
from backhaul_normalizer.communications.roster import Added, MongoRoster
from backhaul_normalizer.communications.validation import registered_of
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from normalizer_rig import Rig
from register_rig import phone


class Followed:
    """What was asked to follow."""

    def __init__(self) -> None:
        self.closed: list[bytes] = []

    async def of_members(self, batch: bytes, members: Sequence[bytes]) -> None: ...

    async def of_batch(self, batch: bytes) -> None:
        self.closed.append(batch)


def now_us() -> int:
    return time.time_ns() // 1000


class Batch:
    """One batch of acme, and two copies of what adds to it and closes it."""

    def __init__(self, rig: Rig, tenant: Tenant) -> None:
        self.rig = rig
        self.tenant = tenant
        self.followed = Followed()
        self.rosters = [MongoRoster(rig.database, now_us) for _ in range(2)]
        self.registers = [MongoRegister(rig.database, self.followed, now_us, lambda: None) for _ in range(2)]
        self.at: MemberAt

    async def put(self, expected_members: int = 0) -> None:
        settings = registered_of(pb.CommunicationSettings(channel="twilio"), self.tenant.channels)
        await self.registers[0].put_communication(self.tenant, "sale", settings)
        await self.registers[0].put_batch(self.tenant, "sale", "b1", BatchTold("", expected_members, 0))
        self.at = await self.rosters[0].place(self.tenant, "b1")

    def told(self, numbers: range, *, recipient: str = "") -> list[Told]:
        return [
            told_of(f"m{number}", [], [("twilio", recipient or phone(number), "")], self.at, self.tenant.channels)
            for number in numbers
        ]

    async def add(self, copy: int, members: Sequence[Told], *, last: bool = False) -> Added | None:
        """None where the batch was closed before."""
        try:
            return await self.rosters[copy].add(self.tenant, self.at, members, f"call{copy}", last=last)
        except BackhaulError as exc:
            if exc.code is not Code.FAILED_PRECONDITION:
                raise
            return None

    async def agrees(self) -> dict[str, Any]:
        """The batch's document, which counts what is there."""
        batch = await self.rig.database[BATCHES_COLLECTION].find_one({"_id": self.at.batch["_id"]})
        assert batch is not None
        members = await self.rig.database[MEMBERS_COLLECTION].find({}).to_list(None)
        assert batch["members"] == len(members)
        assert batch["destinations"] == sum(len(one["destinations"]) for one in members)
        return dict(batch)


@pytest.fixture
async def batch(town: Rig) -> Batch:
    document = await town.database[TENANTS_COLLECTION].find_one({"_id": "acme"})
    assert document is not None
    return Batch(town, Tenant.from_document(document))


def outcomes(answers: Sequence[Added | None]) -> Counter[str]:
    return Counter(one for answer in answers if answer is not None for one in answer.outcomes if isinstance(one, str))


async def test_two_copies_add_to_one_batch(batch: Batch) -> None:
    await batch.put()
    pages = [batch.told(range(start, start + 150)) for start in range(0, 1000, 100)]
    answers = await asyncio.gather(*(batch.add(number % 2, page) for number, page in enumerate(pages)))
    # Each page has fifty members of the next one.
    assert outcomes(answers) == {"added": 1050, "unchanged": 450}
    kept = await batch.agrees()
    assert kept["members"] == 1050
    assert kept["version"] == len(pages)
    assert set(kept["to_link"]) == {"call0", "call1"}
    for number in range(2):
        await batch.rosters[0].linked(batch.at.batch["_id"], f"call{number}")
    assert "to_link" not in await batch.agrees()


async def test_a_page_that_is_sent_twice_at_once_counts_once(batch: Batch) -> None:
    await batch.put()
    page = batch.told(range(200))
    answers = await asyncio.gather(batch.add(0, page), batch.add(1, page))
    assert outcomes(answers) == {"added": 200, "unchanged": 200}
    assert (await batch.agrees())["version"] == 1


async def test_destinations_that_two_copies_tell_at_once_are_all_there(batch: Batch) -> None:
    await batch.put()
    await batch.add(0, batch.told(range(50)))
    pages = [batch.told(range(50), recipient=f"+4930111{number:03d}") for number in range(4)]
    answers = await asyncio.gather(*(batch.add(number % 2, page) for number, page in enumerate(pages)))
    assert outcomes(answers) == {"changed": 200}
    kept = await batch.agrees()
    assert (kept["members"], kept["destinations"]) == (50, 250)


async def test_what_is_added_while_the_batch_is_closed_is_in_it_or_refused(batch: Batch) -> None:
    await batch.put()
    pages = [batch.told(range(start, start + 100)) for start in range(0, 1200, 100)]

    async def close() -> None:
        await asyncio.sleep(0.03)  # Somewhere among them; whatever comes of it must agree.
        await batch.registers[1].close_batch(batch.tenant, "b1")

    *answers, _ = await asyncio.gather(*(batch.add(number % 2, page) for number, page in enumerate(pages)), close())
    kept = await batch.agrees()
    assert kept["status"] == "closed"
    assert kept["members"] == outcomes(answers)["added"] == 100 * sum(one is not None for one in answers)
    assert await batch.add(0, batch.told(range(5000, 5001))) is None
    assert batch.followed.closed == [batch.at.batch["_id"]]


async def test_no_more_members_are_there_than_are_expected(batch: Batch) -> None:
    await batch.put(expected_members=250)
    pages = [batch.told(range(start, start + 100)) for start in range(0, 400, 100)]
    answers = await asyncio.gather(*(batch.add(number % 2, page) for number, page in enumerate(pages)))
    assert outcomes(answers)["added"] == 250
    assert all(answer is not None and not answer.closed for answer in answers)
    ends = await asyncio.gather(batch.add(0, [], last=True), batch.add(1, [], last=True))
    assert all(answer is not None and answer.closed for answer in ends)
    kept = await batch.agrees()
    assert (kept["members"], kept["status"]) == (250, "closed")


async def test_nothing_is_added_of_a_tenant_that_is_deleted(batch: Batch) -> None:
    await batch.put()
    await batch.rig.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    with pytest.raises(BackhaulError) as caught:
        await batch.rosters[0].add(batch.tenant, batch.at, batch.told(range(3)), "call", last=False)
    assert caught.value.code is Code.NOT_FOUND
    for work in (
        batch.registers[0].put_communication(batch.tenant, "other", {}),
        batch.registers[0].put_batch(batch.tenant, "sale", "b2", BatchTold("", 0, 0)),
        batch.registers[0].close_batch(batch.tenant, "b1"),
        batch.registers[0].switch(batch.tenant, "sale", disabled=True, reason="x", author=""),
    ):
        with pytest.raises(BackhaulError) as caught:
            await work
        assert (caught.value.code, caught.value.field) == (Code.NOT_FOUND, "tenant_id")
    assert (await batch.agrees())["members"] == 0
