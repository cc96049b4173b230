"""Whatever is looked up has an index that answers it."""

from __future__ import annotations

from typing import Any

from backhaul_channels import EventKind, Review
from backhaul_common.documents import Document
from backhaul_common.names import EVENTS_COLLECTION, JOINS_COLLECTION, MESSAGES_COLLECTION
from backhaul_normalizer.attribution import Touched
from backhaul_normalizer.facts import message_key, pair_key
from backhaul_normalizer.settling import waiting_query
from backhaul_normalizer.store import MongoEventStore
from backhaul_testing import make
from books import batch_of, told
from normalizer_rig import RigFactory

KEY = message_key("acme.1", "sendgrid", "M5")
REPLY = message_key("acme.1", "sendgrid", "R5")
PAIR = pair_key("acme.1", "a5@example.com", "shop@example.com")
EVENTS = [("received_at_us", -1), ("_id", -1)]
MESSAGES = [("created_at_us", -1), ("_id", -1)]


def listed(collection: str, order: list[tuple[str, int]], **filters: Any) -> tuple[str, Document, Any, int]:
    """A second page, as ``MongoReads`` asks for it."""
    name = order[0][0]
    past = [{name: {"$lte": 900}}, {"$or": [{name: {"$lt": 900}}, {"_id": {"$lt": "8"}}]}]
    return collection, {"$and": [{"registration": "acme.1", **filters}, *past]}, order, 51


LOOKUPS = [
    listed(EVENTS_COLLECTION, EVENTS),
    listed(EVENTS_COLLECTION, EVENTS, address="a5@example.com"),
    listed(EVENTS_COLLECTION, EVENTS, communication_id="c5"),
    listed(EVENTS_COLLECTION, EVENTS, error_code="5"),
    listed(EVENTS_COLLECTION, EVENTS, message=KEY),
    listed(EVENTS_COLLECTION, EVENTS, message=KEY, kind="opened", channel="sendgrid"),
    listed(MESSAGES_COLLECTION, MESSAGES),
    listed(MESSAGES_COLLECTION, MESSAGES, address="a5@example.com"),
    listed(MESSAGES_COLLECTION, MESSAGES, communication_id="c5"),
    listed(MESSAGES_COLLECTION, MESSAGES, error_code="5"),
    listed(MESSAGES_COLLECTION, MESSAGES, references="r5"),
    listed(MESSAGES_COLLECTION, MESSAGES, _id={"$in": [KEY]}),
    (MESSAGES_COLLECTION, {"registration": "acme.1", "references": "r5", "channel": "sendgrid"}, [], 2),
    (EVENTS_COLLECTION, {"message": KEY, "registration": "acme.1"}, [("occurred_at_us", 1)], 1001),
    (EVENTS_COLLECTION, {"message": {"$in": [KEY, "x"]}}, [], 0),
    (EVENTS_COLLECTION, {"message": {"$in": [KEY, "x"]}, "alias": {"$gt": ""}}, [], 65),
    (EVENTS_COLLECTION, {"moved_by": {"$in": [KEY, "x"]}}, [], 0),
    listed(EVENTS_COLLECTION, EVENTS, kind="inbound"),
    listed(EVENTS_COLLECTION, EVENTS, kind="inbound", communication_id="c5"),
    listed(EVENTS_COLLECTION, EVENTS, kind="inbound", review="flagged"),
    (EVENTS_COLLECTION, waiting_query(Touched(names={KEY, REPLY, "x"}, sent={PAIR: 1500, "y": 1900})), [], 0),
    (EVENTS_COLLECTION, waiting_query(Touched(names={REPLY, "x"})), [], 0),
    (EVENTS_COLLECTION, waiting_query(Touched(sent={PAIR: 1500})), [], 0),
    (EVENTS_COLLECTION, {"kind": "inbound", "waits_for": REPLY}, [("occurred_at_us", 1), ("_id", 1)], 129),
    (MESSAGES_COLLECTION, {"pair": {"$in": [PAIR, "x"]}, "first_at_us": {"$gte": 1, "$lte": 1500}}, [], 4097),
    (
        MESSAGES_COLLECTION,
        {"pair": PAIR, "first_at_us": {"$gte": 1, "$lte": 1500}},
        [("first_at_us", -1), ("_id", -1)],
        1,
    ),
    (JOINS_COLLECTION, {"_id": {"$in": [KEY, "x"]}, "registration": "acme.1"}, [], 0),
]


async def test_every_lookup_reads_about_as_many_documents_as_it_finds(rig_factory: RigFactory) -> None:
    facts = [
        told(
            key=str(number),
            kind=EventKind.OPENED,
            name=f"M{number % 200}",
            aliases=[f"A{number % 200}"],
            recipient=f"a{number % 100}@example.com",
            sender="shop@example.com",
            references=[f"r{number % 100}"],
            error_code=str(number % 40),
            query=f"communicationId=c{number % 50}",
            arrived=number + 1,
        )
        for number in range(2000)
    ]
    facts += [
        told(
            key=f"r{number}",
            kind=EventKind.INBOUND,
            name=f"R{number % 200}",
            provisional=False,
            recipient=f"a{number % 100}@example.com",
            sender="shop@example.com",
            review=Review.NONE if number % 50 else Review.FLAGGED,
            query=f"communicationId=c{number % 50}",
            arrived=number + 1,
        )
        for number in range(500)
    ]
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        await store.commit(batch_of(facts), [])
        for collection, query, order, limit in LOOKUPS:
            command: Document = {"find": collection, "filter": query, "sort": dict(order), "limit": limit}
            plan = await rig.database.command({"explain": command, "verbosity": "executionStats"})
            done = plan["executionStats"]
            # Of a message of ten events all are looked at, whichever page is asked for.
            assert done["totalDocsExamined"] <= done["nReturned"] + 10, (query, plan["queryPlanner"]["winningPlan"])
