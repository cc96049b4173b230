"""What service accounts change is logged: before it is done, with whoever asked, and no secret."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from access_rig import INTERNAL, World, asks, first, refusal
from backhaul_common import mongo, rpc
from backhaul_common.changelog import Logged, logged
from backhaul_common.changestore import MongoChanges
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.names import META_COLLECTION
from backhaul_common.store_format import STORE_FORMAT, StoreFormat
from rpc_service import SERVICE, Ask
from structlog.testing import capture_logs

CALLS: dict[str, Logged | None] = {
    f"{SERVICE}.Get": logged("thing", "number", "text"),
    f"{SERVICE}.Import": logged("list", "number", "text"),
    f"{SERVICE}.Check": None,
}


class Logging:
    """A server whose calls are logged, and what was logged."""

    def __init__(self, world: World, database: mongo.Database) -> None:
        self.world = world
        self.database = database

    async def entries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.database["changes"].find().sort("_id", 1).to_list(None)
        return found


def _database_of(accounts: mongo.Collection) -> mongo.Database:
    found: Any = accounts.database  # which motor's types take for a collection
    database: mongo.Database = found
    return database


@pytest.fixture
async def logging(accounts: mongo.Collection) -> AsyncIterator[Logging]:
    database = _database_of(accounts)
    await database[META_COLLECTION].insert_one({"_id": "format", "number": STORE_FORMAT})
    world = World(accounts, None)
    store = MongoChanges(database, StoreFormat(database), days=30)
    with capture_logs():
        async with world.stack:
            await world.directory.refresh()
            await world.start(changes=rpc.CallLog(store, {}, CALLS))
            yield Logging(world, database)


async def test_a_change_by_a_service_account_is_logged_with_its_name(logging: Logging) -> None:
    world = logging.world
    stub = world.client(await world.account())
    await stub.Get(Ask(tenant_id="acme", number=7))
    assert await first(stub, "Import") == "service:crm"
    one, two = await logging.entries()
    assert (one["author"], one["client"], one["tenant_id"]) == ("service:crm", "127.0.0.1", "acme")
    assert (one["action"], one["kind"], one["status"]) == (f"{SERVICE}/Get", "thing", 200)
    assert (one["before"], orjson.loads(one["after"])) == ("", {"number": "7"})
    assert len(one["trace_id"]) == 32
    assert (one["ends_at"] - one["at"]).days == 30
    assert (two["action"], two["kind"], two["status"]) == (f"{SERVICE}/Import", "list", 200)
    # Backhaul's own services say themselves for whom they act, and what is read is no change.
    await first(world.client(INTERNAL), "Get")
    await first(stub, "Check")
    await first(stub, "Watch")
    assert len(await logging.entries()) == 2


async def test_of_a_huge_request_nothing_is_kept_but_that_it_was_made(logging: Logging) -> None:
    stub = logging.world.client(await logging.world.account())
    await stub.Import(asks(Ask(tenant_id="acme", number=7, text="x" * 300_000)))
    (entry,) = await logging.entries()
    assert (entry["status"], entry["after"]) == (200, "{}")


async def test_what_was_refused_keeps_nothing_of_the_request(logging: Logging) -> None:
    world = logging.world
    stub = world.client(await world.account(purposes=("marketing",)))
    with pytest.raises(BackhaulError):
        await stub.Get(Ask(tenant_id="acme", text="planted"))
    (entry,) = await logging.entries()
    assert (entry["status"], entry["before"], entry["after"]) == (403, "", "")
    # Of another tenant's nothing is begun.
    assert (await refusal(stub, tenant="globex")).code is Code.FORBIDDEN
    assert len(await logging.entries()) == 1
    assert "planted" not in str(await logging.entries())


@pytest.mark.parametrize("method", ["Get", "Import"])
async def test_nothing_is_done_that_cannot_be_logged(
    logging: Logging, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def away(*_: object) -> None:
        raise unavailable("MongoDB")

    stub = logging.world.client(await logging.world.account())
    monkeypatch.setattr(MongoChanges, "_insert", away)
    refused = await refusal(stub, method)
    assert refused.code is Code.UNAVAILABLE
    assert "log of changes" in refused.message
    assert (logging.world.servicer.called, await logging.entries()) == ([], [])


async def test_what_was_done_is_answered_as_done_though_that_cannot_be_logged(
    logging: Logging, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise unavailable("MongoDB")

    stub = logging.world.client(await logging.world.account())
    monkeypatch.setattr(MongoChanges, "complete", away)
    assert await first(stub, "Get") == "service:crm"
    (entry,) = await logging.entries()
    assert "status" not in entry


def test_each_field_of_a_request_is_shown_or_masked_and_each_change_has_a_row(accounts: mongo.Collection) -> None:
    database = _database_of(accounts)
    store = MongoChanges(database, StoreFormat(database), days=1)
    with pytest.raises(ValueError, match=r"Service\.Get is not decided: text"):
        rpc.CallLog(store, {}, {f"{SERVICE}.Get": logged("thing", "number")})
    with pytest.raises(ValueError, match=r"need a row in the table of what is logged: /\S+Service/Import"):
        rpc.CallLog(store, {}, {}).require_decided([f"/{SERVICE}/Import"])
