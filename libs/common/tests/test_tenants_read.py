"""What the tenant directory asks MongoDB for: what changed, and no secret without need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_common.directory import TenantDirectory, TenantDocuments
from backhaul_common.tenants import Channel, Credential
from structlog.testing import capture_logs
from tenants_rig import NOW, store, tenant


@pytest.fixture
async def reads(collection: mongo.Collection) -> AsyncIterator[Callable[[], Awaitable[list[tuple[bool, int, int]]]]]:
    """What the server was asked of the collection since the last time: whether for some tenants only, and the documents
    and bytes that it returned."""
    database = collection.database
    asked = {"ns": f"{database.name}.tenants", "op": {"$in": ["query", "getmore", "command"]}}
    await database.command({"profile": 1, "filter": asked})
    seen = 0

    async def since() -> list[tuple[bool, int, int]]:
        nonlocal seen
        entries = [entry async for entry in database["system.profile"].find({}).sort("$natural", 1)]
        new, seen = entries[seen:], len(entries)
        return [
            (
                "filter" in entry["command"] and bool(entry["command"]["filter"]),
                entry["nreturned"],
                entry["responseLength"],
            )
            for entry in new
        ]

    yield since
    await database.command("profile", 0)


async def test_only_what_changed_is_read(
    collection: mongo.Collection, reads: Callable[[], Awaitable[list[tuple[bool, int, int]]]]
) -> None:
    count = 1200
    channel = Channel(label="t", key="twilio", provider="twilio", secrets=("s" * 200,), updated_at=NOW)
    credential = Credential(id="0" * 12, kind="api", digest="d" * 64, created_at=NOW)
    full: dict[str, Any] = {"credentials": (credential,), "channels": {"twilio": channel}}
    await collection.insert_many([tenant(f"t{n}", **full).to_document() for n in range(count)])
    directory = TenantDirectory(TenantDocuments(collection, secrets=True))
    await directory.refresh()
    assert len(directory.tenants) == count
    first = await reads()
    assert sum(returned for some, returned, _ in first if some) == count

    await directory.refresh()
    looks = await reads()
    assert not any(some for some, _, _ in looks)
    assert sum(returned for _, returned, _ in looks) == count
    # Of no tenant more than what tells whether it has changed.
    assert sum(size for _, _, size in looks) < count * 150

    await store(collection, tenant("t1", revision=2, **full))
    await store(collection, tenant("t2", created=NOW + timedelta(seconds=1), **full))
    await store(collection, tenant("new", **full))
    await collection.delete_one({"_id": "t3"})
    await collection.update_one({"_id": "t4"}, {"$set": {"status": "of a newer version", "revision": 2}})
    heard: list[str] = []
    directory.listen(lambda tenant_id, _: heard.append(tenant_id))
    heard.clear()
    await directory.refresh()
    assert sorted(heard) == ["new", "t1", "t2", "t3"]
    assert [returned for some, returned, _ in await reads() if some] == [4]
    # One that this copy cannot read may be mended by hand any time, which no revision tells.
    await directory.refresh()
    assert [returned for some, returned, _ in await reads() if some] == [1]
    await collection.update_one({"_id": "t4"}, {"$set": {"status": "suspended"}})
    await directory.refresh()
    assert directory.tenants["t4"].status == "suspended"


async def test_without_need_no_secret_leaves_the_database(collection: mongo.Collection) -> None:
    full = tenant(
        credentials=(Credential(id="0" * 12, kind="api", digest="hunter2", created_at=NOW),),
        channels={
            "twilio": Channel(
                label="t",
                key="twilio",
                provider="twilio",
                secrets=("hunter2",),
                pull_credentials="hunter2",
                audit_credentials="hunter2",
                settings={"n": 1},
                updated_at=NOW,
            )
        },
    )
    await store(collection, full)
    await collection.update_one({"_id": "acme"}, {"$set": {"channels.twilio.of_a_newer_version": "hunter2"}})
    # Whatever a document is like that is no tenant, the others are read.
    odd: list[dict[str, Any]] = [{}, {"channels": 7}, {"channels": {"x": "y"}}, {"channels": None}]
    await collection.insert_many([{"_id": name, **document} for name, document in zip("abcd", odd, strict=True)])
    documents = TenantDocuments(collection)
    assert "hunter2" not in str(await documents.read(["acme", "a", "b", "c", "d"]))
    directory = TenantDirectory(documents)
    with capture_logs() as lines:
        await directory.refresh()
    assert {line["tenant"] for line in lines} == {"a", "b", "c", "d"}
    known = directory.tenants["acme"]
    assert (known.credentials, known.channels["twilio"].secrets) == ((), ())
    assert known.channels["twilio"].settings == {"n": 1}
    whole = TenantDirectory(TenantDocuments(collection, secrets=True))
    with capture_logs():
        await whole.refresh()
    channel = whole.tenants["acme"].channels["twilio"]
    assert (channel.secrets, channel.pull_credentials) == (("hunter2",), "hunter2")
    assert channel.audit_credentials == "hunter2"
    assert whole.tenants["acme"].credentials == full.credentials
