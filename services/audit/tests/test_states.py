"""How it stands with files, told by one copy after another."""

from __future__ import annotations

from typing import Any

from backhaul_audit.ports import Waiting
from backhaul_audit.states import MongoStates
from backhaul_common import mongo


async def test_what_a_copy_said_before_it_died_is_not_said_for_ever(mongo_server: Any, mongo_database: str) -> None:
    """The one that takes over finds nothing that waits any more, and has nothing to tell of that tenant."""
    client = mongo.connect(mongo_server.uri)
    database = mongo.database(client, mongo_database)
    dead, next_one = MongoStates(database), MongoStates(database)
    wrong = Waiting("twilio", "The bucket 'x' does not exist.", 5)
    await dead.begin()
    await dead.tell({"acme.1": [wrong], "globex.1": [wrong]}, 1)
    await next_one.begin()
    still = Waiting("twilio", "", 5)
    await next_one.tell({"globex.1": [still]}, 2)
    assert await next_one.waiting("acme.1") == []
    assert await next_one.waiting("globex.1") == [still]
    # It was given up for a while, and does not take for said what another one has overwritten.
    await dead.begin()
    await dead.tell({"globex.1": [wrong]}, 3)
    assert await dead.waiting("globex.1") == [wrong]
    client.close()
