"""What is linked while its tenant is being deleted."""

from __future__ import annotations

from backhaul_channels import EventKind
from backhaul_common.names import BATCH_COUNTS_COLLECTION, MESSAGES_COLLECTION, TENANTS_COLLECTION
from backhaul_normalizer.attribution import Touched
from normalizer_rig import Rig
from rosters import Copy, Rosters
from tellings import ARRIVED_US, batch_of, told


async def test_nothing_is_counted_of_a_tenant_who_is_being_deleted(town: Rig) -> None:
    rosters, copy, sleeper = Rosters(town), Copy(town), Copy(town)
    await rosters.communication("spring")
    await rosters.batch("spring", "b1", at_us=ARRIVED_US)
    await rosters.member(copy, "b1", "k1", [("sendgrid", "a@example.com")])
    fact = told(kind=EventKind.SENT, recipient="a@example.com", query="communicationId=spring")
    await copy.store.commit(batch_of([fact]), [])
    message = await town.database[MESSAGES_COLLECTION].find_one({})
    assert message is not None
    # As the sleeper left it: it had moved what held the destination away, and fell asleep.
    await town.database[MESSAGES_COLLECTION].update_one({"_id": message["_id"]}, {"$unset": {"holds": ""}})
    await town.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    await town.database[BATCH_COUNTS_COLLECTION].delete_many({})
    await sleeper.consequences.of_commit(Touched(destinations={message["dest"]}), ["acme"])
    assert await town.database[BATCH_COUNTS_COLLECTION].count_documents({}) == 0
