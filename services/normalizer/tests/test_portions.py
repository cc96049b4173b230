"""A batch of very many members: what the messages of one commit read of them goes by the messages, not by the batch."""

from __future__ import annotations

from math import ceil

import pytest
from backhaul_channels import EventKind
from backhaul_common.names import MEMBERS_COLLECTION
from backhaul_normalizer.committing import COMMIT_EVENTS
from backhaul_normalizer.communications.finding import MAX_ASKING
from backhaul_normalizer.model import Fact
from normalizer_rig import Rig
from rosters import Copy, Destinations, Rosters
from tellings import ARRIVED_US, batch_of, told


def mail(number: int) -> str:
    return f"{number}@example.com"


def sent(number: int, recipient: str) -> Fact:
    return told(
        kind=EventKind.SENT,
        name=f"M{number}",
        at=ARRIVED_US,
        arrived=ARRIVED_US,
        recipient=recipient,
        query="communicationId=spring",
    )


async def registered(rig: Rig, people: dict[str, Destinations]) -> tuple[Rosters, Copy]:
    """They are in one batch; and the copy knows that their tenant registers."""
    rosters, copy = Rosters(rig), Copy(rig)
    await rosters.communication("spring")
    await rosters.batch("spring", "b0", at_us=ARRIVED_US)
    await rosters.members(copy, "b0", people)
    await copy.store.commit([sent(-1, "nobody@example.com")], [])
    return rosters, copy


@pytest.mark.parametrize("members", [COMMIT_EVENTS, 2 * COMMIT_EVENTS])
async def test_each_message_of_a_commit_reads_its_own_member(town: Rig, members: int) -> None:
    people: dict[str, Destinations] = {f"k{number}": [("sendgrid", mail(number))] for number in range(members)}
    rosters, copy = await registered(town, people)
    facts = [sent(number, mail(number)) for number in range(COMMIT_EVENTS)]
    of_members = {"ns": f"{town.database.name}.{MEMBERS_COLLECTION}", "op": {"$in": ["query", "getmore"]}}
    # Each member that is written has a line too, and the oldest lines go.
    await town.database.command("profile", 1, filter=of_members)
    await copy.store.commit(batch_of(facts), [])
    await town.database.command("profile", 0, filter="unset")
    read = await town.database["system.profile"].find(of_members).to_list(None)
    assert len(read) == ceil(COMMIT_EVENTS / MAX_ASKING)
    assert sum(one["docsExamined"] for one in read) == COMMIT_EVENTS
    assert sum(one["keysExamined"] for one in read) <= 2 * COMMIT_EVENTS + len(read)
    assert await rosters.counted() == {"b0": {"Sent": COMMIT_EVENTS}}
