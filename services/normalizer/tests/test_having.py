"""What every commit asks afterwards, and how much MongoDB looks at for it."""

from __future__ import annotations

from backhaul_channels import EventKind
from backhaul_common.names import COMMUNICATIONS_COLLECTION, ENTRIES_COLLECTION
from backhaul_normalizer.having import Had, Having
from normalizer_rig import Rig
from rosters import Copy, Rosters
from tellings import batch_of, told

MANY = 200


async def test_a_commit_does_not_look_at_the_communications_that_nobody_registered(town: Rig) -> None:
    copy = Copy(town)
    sent = [
        told(key=f"k{n}", kind=EventKind.SENT, name=f"M{n}", query=f"communicationId=c{n}", arrived=1000 * n + 1000)
        for n in range(MANY + 1)
    ]
    await copy.store.commit(batch_of(sent[:MANY]), [])
    await town.database.command({"profile": 2})
    await copy.store.commit(batch_of(sent[MANY:]), [])
    await town.database.command({"profile": 0})
    asked = f"{town.database.name}.{ENTRIES_COLLECTION}"
    done = (
        await town.database["system.profile"].find({"ns": asked, "command.aggregate": {"$exists": True}}).to_list(None)
    )
    # Of both in one question; the profiler tells of each collection's part.
    assert len(done) == 1
    assert done[0]["docsExamined"] == 0
    assert await town.database[COMMUNICATIONS_COLLECTION].count_documents({}) == MANY + 1


async def test_who_has_replies_and_who_registers_is_told_apart_and_remembered(town: Rig) -> None:
    rosters, having = Rosters(town), Having(town.database)
    both = {"acme.1", "globex.1"}
    assert await having.of(both) == Had(set(), set())
    await rosters.communication("spring")
    assert await having.of(both) == Had(set(), {"acme.1"})
    replied = told(kind=EventKind.INBOUND, name="R1", provisional=False, tenant="globex")
    await Copy(town).store.commit(batch_of([replied]), [])
    assert await having.of(both) == Had({"globex.1"}, {"acme.1"})
    # Who is known to have it is not asked for again, whatever is there; the others are.
    await town.database[ENTRIES_COLLECTION].delete_many({})
    await town.database[COMMUNICATIONS_COLLECTION].delete_many({})
    assert await having.of(both) == Had({"globex.1"}, {"acme.1"})
    assert await having.of({"acme.1"}) == Had(set(), {"acme.1"})
    assert having.registering == {"acme.1"}
    assert await having.of(()) == Had(set(), set())
