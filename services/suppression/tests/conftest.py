"""A database of the test's own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_common.store_format import StoreFormat

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from store_rig import Rig


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str) -> AsyncIterator[Rig]:
    """A prepared database, and nothing that runs."""
    client = mongo.connect(mongo_server.uri)
    database = mongo.database(client, mongo_database)
    await StoreFormat(database).ensure()
    made = Rig(client, database)
    await made.store().prepare()
    yield made
    client.close()
