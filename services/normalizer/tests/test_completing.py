"""When a batch is complete, what is said of it then, and what comes afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backhaul_channels import EventKind
from backhaul_common.names import (
    BATCH_COUNTS_COLLECTION,
    COMMUNICATIONS_COLLECTION,
    NORMALIZER_OUTBOX,
    TENANTS_COLLECTION,
)
from backhaul_normalizer.communications import completing
from backhaul_normalizer.communications.counting import summed
from backhaul_proto.notice.v1.notice_pb2 import Notice
from normalizer_rig import Rig
from rosters import DEADLINE_S, Copy, Rosters
from tellings import ARRIVED_US, told

KINDS = {
    "q": EventKind.QUEUED,
    "s": EventKind.SENT,
    "d": EventKind.DELIVERED,
    "f": EventKind.FAILED,
    "u": EventKind.UNDELIVERED,
}
DUE_US = ARRIVED_US + DEADLINE_S * 1_000_000


class Sale:
    """A communication with one batch, and two people in it."""

    def __init__(self, rig: Rig, completes_on: str) -> None:
        self.rig = rig
        self.now_us = ARRIVED_US
        self.copies = [Copy(rig, lambda: self.now_us) for _ in range(2)]
        self.rosters = Rosters(rig)
        self._completes_on = completes_on

    async def registered(self, people: int = 2) -> Sale:
        await self.rosters.communication("sale", self._completes_on)
        await self.rosters.batch("sale", "b1", at_us=ARRIVED_US)
        for number in range(people):
            await self.rosters.member(self.copies[0], "b1", f"p{number}", [("sendgrid", f"{number}@example.com")])
        return self

    async def happens(self, kinds: str, person: int = 0, copy: int = 0) -> None:
        for kind in kinds:
            fact = told(
                key=kind,
                kind=KINDS[kind],
                name=f"M{person}",
                at=ARRIVED_US + 1,
                arrived=ARRIVED_US + 1,
                recipient=f"{person}@example.com",
                query="communicationId=sale",
            )
            await self.copies[copy].store.commit([fact], [])

    async def close(self) -> None:
        await self.rosters.close(self.copies[0], "b1")

    async def status(self) -> tuple[str, str]:
        batch = await self.rosters.stored("b1")
        return batch["status"], batch.get("completed_by", "")

    async def late(self) -> int:
        return summed(await self.rig.database[BATCH_COUNTS_COLLECTION].find().to_list(None))[1]

    async def notices(self) -> list[Notice]:
        rows = await self.rig.database[NORMALIZER_OUTBOX].find().to_list(None)
        return [Notice.FromString(row["payload"]) for row in rows]


@pytest.mark.parametrize(
    ("completes_on", "steps", "completes"),
    [
        ("processed", "q", False),
        ("processed", "s", True),
        ("processed", "f", True),
        ("final", "s", False),
        ("final", "d", True),
        ("final", "u", True),
    ],
)
async def test_a_closed_batch_completes_when_all_of_it_is_so_far(
    town: Rig, completes_on: str, steps: str, completes: bool
) -> None:
    sale = await Sale(town, completes_on).registered()
    await sale.happens("d", person=1)
    await sale.happens(steps)
    assert await sale.status() == ("open", "")
    await sale.close()
    assert await sale.status() == (("complete", "condition") if completes else ("closed", ""))
    assert len(await sale.notices()) == completes


async def test_what_completes_it_may_come_after_it_was_closed(town: Rig) -> None:
    sale = await Sale(town, "processed").registered()
    await sale.close()
    await sale.happens("d", person=1)
    assert await sale.status() == ("closed", "")
    await sale.happens("s", copy=1)
    assert await sale.status() == ("complete", "condition")
    communication = await town.database[COMMUNICATIONS_COLLECTION].find_one({"communication_id": "sale"})
    assert communication is not None
    assert (communication["status"], communication["complete"]) == ("complete", 1)


async def test_a_batch_of_nobody_is_complete_when_it_is_closed(town: Rig) -> None:
    sale = await Sale(town, "final").registered(people=0)
    await sale.close()
    assert await sale.status() == ("complete", "condition")


@pytest.mark.parametrize("closed", [True, False])
async def test_its_deadline_completes_it_as_it_is(town: Rig, closed: bool) -> None:
    sale = await Sale(town, "processed").registered()
    await sale.happens("s")
    if closed:
        await sale.close()
    sale.now_us = DUE_US - 1
    assert await sale.copies[0].completing.pass_deadlines() == DUE_US
    assert await sale.status() == ("closed" if closed else "open", "")
    sale.now_us = DUE_US
    await asyncio.gather(*(copy.completing.pass_deadlines() for copy in sale.copies))
    assert await sale.status() == ("complete", "deadline")
    (notice,) = await sale.notices()
    assert (notice.type, notice.about.communication_id, notice.about.reference) == (completing.COMPLETED, "sale", "b1")
    assert notice.occurred_at_us == DUE_US
    told_of: dict[str, Any] = {one.name: one.value for one in notice.attributes}
    assert (told_of["completed_by"], told_of["members"], told_of["Sent"], told_of["waiting"]) == (
        "deadline",
        "2",
        "1",
        "1",
    )
    await sale.close()  # Nothing is left to be closed, and nobody is wrong who does it.
    assert await sale.status() == ("complete", "deadline")


async def test_what_comes_afterwards_corrects_counts_and_is_counted(town: Rig) -> None:
    sale = await Sale(town, "processed").registered()
    await sale.happens("s")
    await sale.happens("s", person=1)
    await sale.close()
    assert await sale.late() == 0
    before = (await sale.rosters.stored("b1"))["at_completion"]
    assert before == {"members": 2, "destinations": 2, "fulfilment": {"Sent": 2}}
    await sale.happens("d", copy=1)
    await sale.happens("q")  # It changes nothing.
    assert await sale.rosters.checked() == {"b1": {"Sent": 1, "Delivered": 1}}
    assert await sale.late() == 1
    assert (await sale.rosters.stored("b1"))["at_completion"] == before
    assert len(await sale.notices()) == 1


async def test_a_copy_that_died_before_it_looked_is_made_good(town: Rig) -> None:
    """By whoever gets its callbacks again, or looks after all batches."""
    sale = await Sale(town, "processed").registered(people=1)
    await sale.close()
    dying = Copy(town)
    dying.store._consequences = None
    for at, look in enumerate((lambda: sale.happens("s"), sale.copies[0].completing.check_some)):
        if at:
            await town.database[NORMALIZER_OUTBOX].delete_many({})
            await sale.rosters.batch("sale", "b2", at_us=ARRIVED_US)
            await sale.rosters.member(sale.copies[0], "b2", "p7", [("sendgrid", "7@example.com")])
            await sale.happens("q", person=7)
            await sale.rosters.close(sale.copies[0], "b2")
        sale.copies, live = [dying], sale.copies
        await sale.happens("s", person=7 if at else 0)
        sale.copies = live
        assert await sale.notices() == []
        await look()
        assert len(await sale.notices()) == 1


async def test_of_a_tenant_who_is_deleted_nothing_is_said(town: Rig) -> None:
    sale = await Sale(town, "processed").registered(people=0)
    await town.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    sale.now_us = DUE_US
    assert await sale.copies[0].completing.pass_deadlines() is None
    assert (await sale.status(), await sale.notices()) == (("open", ""), [])
