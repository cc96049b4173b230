"""A bucket on a real S3 server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from backhaul_audit.objects import Bucket
from backhaul_audit.objects.bucket import PAGE_KEYS, PART_BYTES
from backhaul_common.errors import BackhaulError, Code
from backhaul_local.object_store import ObjectStoreServer

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

import buckets_rig
from buckets_rig import bucket_at, client_at


@pytest.fixture
def bucket(s3_server: ObjectStoreServer) -> Iterator[Bucket]:
    with bucket_at(s3_server) as made:
        yield made


@pytest.fixture
def folder() -> str:
    return buckets_rig.folder()


async def whole(bucket: Bucket, key: str, chunk: int = 1 << 20) -> bytes:
    return b"".join([piece async for piece in bucket.read(key, chunk=chunk)])


async def test_an_object_is_created_once_and_stays_as_it_was(bucket: Bucket, folder: str) -> None:
    key = f"{folder}/AUDIT_1_Events.json"
    assert await bucket.create(key, b"first", {"file-id": "one"})
    assert not await bucket.create(key, b"second", {"file-id": "two"})
    found = await bucket.stat(key)
    assert found is not None
    assert (found.size, found.metadata) == (5, {"file-id": "one"})
    assert await whole(bucket, key) == b"first"


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 5])
async def test_of_every_size_also_of_several_parts(bucket: Bucket, folder: str, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    pieces = [data[: size // 3], b"", data[size // 3 : size // 2], data[size // 2 :]]
    assert await bucket.create(f"{folder}/x", pieces, {"n": "1"})
    assert not await bucket.create(f"{folder}/x", b"other", {"n": "2"})
    assert not await bucket.create(f"{folder}/x", [bytes(PART_BYTES), b"other"], {"n": "3"})
    assert await whole(bucket, f"{folder}/x") == data
    found = await bucket.stat(f"{folder}/x")
    assert found is not None
    assert (found.size, found.metadata) == (size, {"n": "1"})


async def test_of_several_at_once_exactly_one_succeeds(bucket: Bucket, folder: str) -> None:
    contents = [bytes([n]) * 1000 for n in range(4)]
    made = await asyncio.gather(*(bucket.create(f"{folder}/x", data, {"n": str(n)}) for n, data in enumerate(contents)))
    assert sorted(made) == [False, False, False, True]
    found = await bucket.stat(f"{folder}/x")
    assert found is not None
    assert found.metadata == {"n": str(made.index(True))}
    assert await whole(bucket, f"{folder}/x") == contents[made.index(True)]


async def test_of_several_at_once_in_parts_one_is_there_as_a_whole(bucket: Bucket, folder: str) -> None:
    # This server looks for the object before it puts the parts together, so two that complete at the same moment may
    # both be told that they succeeded. No harm is done by that: whoever files the same positions sends the same bytes.
    contents = [bytes([n]) * (PART_BYTES + 1) for n in range(4)]
    made = await asyncio.gather(*(bucket.create(f"{folder}/x", data, {"n": str(n)}) for n, data in enumerate(contents)))
    assert any(made)
    found = await bucket.stat(f"{folder}/x")
    assert found is not None
    stored = int(found.metadata["n"])
    assert made[stored]
    assert await whole(bucket, f"{folder}/x") == contents[stored]


async def test_no_part_of_what_came_too_late_stays(bucket: Bucket, folder: str, s3_server: ObjectStoreServer) -> None:
    assert await bucket.create(f"{folder}/x", b"first", {})
    assert not await bucket.create(f"{folder}/x", bytes(PART_BYTES + 1), {})
    uploads = client_at(s3_server)._list_multipart_uploads(bucket.bucket, prefix=folder).uploads
    assert uploads == []


async def test_what_is_not_there(bucket: Bucket, folder: str) -> None:
    assert await bucket.stat(f"{folder}/x") is None
    assert await bucket.delete(f"{folder}/x") is None
    with pytest.raises(BackhaulError) as refused:
        await whole(bucket, f"{folder}/x")
    assert refused.value.code is Code.NOT_FOUND


async def test_an_object_is_read_in_pieces_as_it_is_stored(bucket: Bucket, folder: str) -> None:
    assert await bucket.create(f"{folder}/x.json.gz", b"\x1f\x8b not gzip", {})
    assert await whole(bucket, f"{folder}/x.json.gz") == b"\x1f\x8b not gzip"
    await bucket.create(f"{folder}/y", bytes(10_000), {})
    pieces = [piece async for piece in bucket.read(f"{folder}/y", chunk=4096)]
    assert [len(piece) for piece in pieces] == [4096, 4096, 1808]
    reading = bucket.read(f"{folder}/y", chunk=10)
    assert await anext(reading) == bytes(10)
    await reading.aclose()


async def test_a_deleted_object_is_gone(bucket: Bucket, folder: str) -> None:
    for key in ("x", "x-y/z", "xy"):
        await bucket.create(f"{folder}/{key}", b"1", {})
    assert await bucket.delete(f"{folder}/x") is None
    assert await bucket.stat(f"{folder}/x") is None
    assert [key async for key in bucket.keys(folder)] == [f"{folder}/x-y/z", f"{folder}/xy"]
    assert await bucket.create(f"{folder}/x", b"2", {})


ODD = [
    *(
        "sp ace",
        "ü/é漢",
        "a=b/c+d",
        "per%20cent",
        "q?x=1#f",
        "emoji😀",
        "quote\"'<>&",
        "~tilde",
        "semi;colon",
        "*",
        "a..b",
    ),
    "tenants/acme.5c0e9d1f2a3b/events/channel=Outbound Delivery/dt=2026-11-26/AUDIT_20261126094044123_x_Events.json.gz",
]


async def test_unusual_keys(bucket: Bucket, folder: str) -> None:
    for key in ODD:
        assert await bucket.create(f"{folder}/{key}", key.encode(), {"k": "v"})
        assert not await bucket.create(f"{folder}/{key}", b"", {})
    assert [key async for key in bucket.keys(f"{folder}/")] == sorted(f"{folder}/{key}" for key in ODD)
    for key in ODD:
        assert await whole(bucket, f"{folder}/{key}") == key.encode()
        assert await opened(await bucket.link(f"{folder}/{key}", 60)) == (200, key.encode())
        assert await bucket.delete(f"{folder}/{key}") is None
    assert [key async for key in bucket.keys(f"{folder}/")] == []


@pytest.mark.parametrize("key", ["", "/x", "x/", "a//b", "a/./b", "a/../b", "a\\b", "x" * 1025])
async def test_keys_that_not_every_server_takes_as_they_are(bucket: Bucket, key: str) -> None:
    for call in (
        bucket.create(key, b"", {}),
        bucket.stat(key),
        bucket.delete(key),
        bucket.link(key, 1),
        whole(bucket, key),
    ):
        with pytest.raises(BackhaulError) as refused:
            await call
        assert refused.value.code is Code.INVALID_ARGUMENT


@pytest.mark.slow
async def test_keys_are_listed_page_by_page(bucket: Bucket, folder: str) -> None:
    keys = [f"{folder}/{n:05}" for n in range(PAGE_KEYS + 10)]
    for n in range(0, len(keys), 100):
        await asyncio.gather(*(bucket.create(key, b"", {}) for key in keys[n : n + 100]))
    assert [key async for key in bucket.keys(f"{folder}/")] == keys
    assert [key async for key in bucket.keys(f"{folder}/", keys[5])] == keys[6:]
    assert [key async for key in bucket.keys(f"{folder}/", keys[-1])] == []


async def test_a_link_needs_no_credentials_and_ends(bucket: Bucket, folder: str) -> None:
    await bucket.create(f"{folder}/x", b"content", {})
    link = await bucket.link(f"{folder}/x", 3600)
    assert await opened(link) == (200, b"content")
    over = await bucket.link(f"{folder}/x", 1)
    async with asyncio.timeout(60):
        while (status := (await opened(over))[0]) == 200:
            await asyncio.sleep(0.1)
    assert status == 403
    assert (await opened(link))[0] == 200
    assert (await opened(link.replace(f"{folder}/x", f"{folder}/y")))[0] == 403


async def test_a_link_names_the_public_endpoint(s3_server: ObjectStoreServer, folder: str) -> None:
    with bucket_at(s3_server, public_endpoint="https://files.example.com") as bucket:
        link = await bucket.link(f"{folder}/x", 60)
    assert link.startswith(f"https://files.example.com/{bucket.bucket}/{folder}/x?")


async def opened(link: str) -> tuple[int, bytes]:
    """What somebody gets who has nothing but the link."""

    def get() -> tuple[int, bytes]:
        with urllib3.PoolManager(retries=False) as pool:
            answer = pool.request("GET", link)
            return answer.status, answer.data

    return await asyncio.to_thread(get)
