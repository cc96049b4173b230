"""What the tests of the reconciler find beside them."""

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

from books_rig import Rig


@pytest.fixture
async def books(mongo_server: Any, mongo_database: str) -> AsyncIterator[Rig]:
    """A prepared database, and nothing that runs."""
    client = mongo.connect(mongo_server.uri)
    database = mongo.database(client, mongo_database)
    await StoreFormat(database).ensure()
    rig = Rig(database)
    await rig.prepare()
    yield rig
    client.close()


@pytest.fixture
async def asking(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Any]:
    """A provider, a normalizer, and no copy of the reconciler yet: an ``asking_rig.Rig``."""
    from asking_rig import rigged

    async with rigged(mongo_server.uri, mongo_database, nats_url) as rig:
        yield rig
