"""A gateway on a database that another version wrote says so, and leaves it alone."""

from __future__ import annotations

from typing import Any

from backhaul_common.store_format import STORE_FORMAT
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory
from pymongo import MongoClient
from pymongo.database import Database

TENANTS = "/admin/v1/tenants"
OLD = {"_id": "acme", "name": "Acme", "queue_path": "acme", "queue_path_key": "acme", "status": "active"}


async def test_a_database_of_another_format_is_refused_in_words_and_not_written_to(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, mongo_server: MongoServer, mongo_database: str
) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_server.uri)
    with client:
        database = client[mongo_database]
        database.tenants.insert_one(OLD)
        await _is_refused_until_it_is_dropped(gateway_factory, fresh_nats, database)


async def _is_refused_until_it_is_dropped(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, database: Database[dict[str, Any]]
) -> None:
    async with gateway_factory(fresh_nats.uri, wait=False) as gateway:
        # Everything else is there by then.
        failing: dict[str, str] = {}
        while failing.keys() != {"store_format", "tenants"}:
            failing = (await gateway.client.get("/readyz")).json()["failing"]
        words = failing["store_format"]
        assert f"{database.name!r} has no format number" in words
        assert "Name a database that does not exist yet" in words

        body = {"id": "globex", "name": "Globex", "queue_path": "globex"}
        for answer in (
            await gateway.client.post(TENANTS, headers=gateway.admin, json=body),
            await gateway.client.get(f"{TENANTS}/acme", headers=gateway.admin),
            await gateway.client.get(TENANTS, headers=gateway.admin),
            await gateway.client.patch(f"{TENANTS}/acme", headers=gateway.admin, json={"name": "x"}),
            await gateway.client.delete(f"{TENANTS}/acme?purge=true", headers=gateway.admin),
        ):
            assert "has no format number" in gateway.problem(answer, 409)["detail"]
        assert (await gateway.post(None, headers={"X-Api-Key": "bhk_000000000000_0"})).status_code == 503

        assert database.list_collection_names() == ["tenants"]
        assert database.tenants.find_one() == OLD
        assert list(database.tenants.index_information()) == ["_id_"]

        # Whoever removes it need not restart anything.
        database.client.drop_database(database.name)
        await gateway.ready()
        assert database.meta.find_one() == {"_id": "format", "number": STORE_FORMAT}
        await gateway.tenant()
