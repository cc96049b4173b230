"""What is asked of deliveries and endpoints is found by an index, however much lies beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_notifier.indexes import INDEXES

ROWS = 4000
PAGE = 20
OLDEST, LATEST = [("order", 1)], [("created_at_us", -1), ("_id", -1)]
WAITING = {"subscription": "one", "state": "waiting"}


@pytest.fixture
async def database(mongo_server: Any, mongo_database: str) -> AsyncIterator[mongo.Database]:
    client = mongo.connect(mongo_server.uri)
    database = mongo.database(client, mongo_database)
    await mongo.make_indexes(database, INDEXES)
    rows: list[Document] = []
    for number in range(ROWS):
        waits = number % 2 == 0
        row: Document = {
            "_id": number.to_bytes(16, "big"),
            "registration": "acme.1",
            "subscription": "one" if number % 4 < 2 else "two",
            "type": "message.read",
            "event_id": f"event {number}",
            "state": "waiting" if waits else "delivered",
            "order": number,
            "due_at_us": number,
            "created_at_us": number,
            "message_id": f"message {number // 4}",
            "channel": "twilio",
            "communication_id": f"communication {number // 40}",
        }
        if number % 100:
            row["key"] = bytes([number % 200])
        rows.append(row)
    rows[1]["state"] = "failed"
    await database["deliveries"].insert_many(rows)
    endpoints = [{"_id": str(number), "registration": "acme.1", "active": True} for number in range(ROWS)]
    endpoints[7]["due_at_us"] = 1
    await database["endpoints"].insert_many(endpoints)
    yield database
    client.close()


async def test_every_question_is_answered_without_looking_at_much_else(database: mongo.Database) -> None:
    of_tenant = {"registration": "acme.1"}
    questions: list[tuple[str, Document, list[tuple[str, int]]]] = [
        ("deliveries", WAITING | {"due_at_us": {"$lte": ROWS}}, [("due_at_us", 1), ("order", 1)]),
        ("deliveries", WAITING | {"order": {"$gt": 1000}, "key": {"$exists": True}}, OLDEST),
        ("deliveries", WAITING | {"key": bytes([4]), "order": {"$lte": ROWS}}, OLDEST),
        ("deliveries", WAITING, OLDEST),
        ("deliveries", {"subscription": "one"}, []),
        ("deliveries", WAITING | {"call": b"a"}, OLDEST),
        ("deliveries", of_tenant | {"state": {"$in": ["waiting", "delivered", "failed"]}}, LATEST),
        ("deliveries", of_tenant | {"state": "failed"}, LATEST),
        ("deliveries", of_tenant | {"subscription": "one", "state": "failed"}, LATEST),
        ("deliveries", of_tenant | {"event_id": "event 5"}, LATEST),
        ("deliveries", of_tenant | {"channel": "twilio", "message_id": "message 5"}, LATEST),
        ("deliveries", of_tenant | {"communication_id": "communication 5"}, LATEST),
        ("deliveries", of_tenant, []),
        ("endpoints", {"active": True, "due_at_us": {"$lte": 5}}, [("due_at_us", 1)]),
        ("endpoints", of_tenant, []),
    ]
    looked = {}
    for collection, query, order in questions:
        command: Document = {"find": collection, "filter": query, "limit": PAGE}
        if order:
            command["sort"] = dict(order)
        explained = await database.command("explain", command, verbosity="executionStats")
        found = explained["executionStats"]
        assert "COLLSCAN" not in str(explained["queryPlanner"]["winningPlan"]), query
        looked[str(query)] = found["totalKeysExamined"] + found["totalDocsExamined"]
    assert {query: many for query, many in looked.items() if many > 6 * PAGE} == {}


async def test_those_without_a_key_are_found_among_many_that_have_one(database: mongo.Database) -> None:
    query = WAITING | {"key": {"$exists": False}, "due_at_us": {"$lte": ROWS}}
    command = {"find": "deliveries", "filter": query, "sort": {"due_at_us": 1, "order": 1}, "limit": 100}
    explained = await database.command("explain", command, verbosity="executionStats")
    assert explained["executionStats"]["nReturned"] == 40
    assert explained["executionStats"]["totalKeysExamined"] < 100
