"""Whether a bucket that lies is found out, and what the probe leaves behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from backhaul_audit.objects import Bucket, Buckets, Place, Probes
from backhaul_audit.objects import trial as words
from backhaul_audit.objects.trial import PREFIX, Outcome, cleared, tried
from backhaul_common.errors import BackhaulError
from backhaul_common.secrets import SecretBox
from backhaul_local.object_store import ObjectStoreServer
from minio.commonconfig import GOVERNANCE
from minio.objectlockconfig import DAYS, ObjectLockConfig

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from buckets_rig import KEY, Tenants, bucket_at, client_at, folder, place_at
from lying_s3 import BUCKET, Lies, LyingS3, error


@contextmanager
def lying(server: LyingS3) -> Iterator[Bucket]:
    with server.serving() as endpoint:
        bucket = Bucket(Place(endpoint, BUCKET, access_key="a", secret_key="b"))
        try:
            yield bucket
        finally:
            bucket.close()


async def outcome_of(bucket: Bucket) -> Outcome:
    return await bucket.trial(lambda plain, creating: tried(plain, creating, bucket.bucket))


LIES = [
    (False, {}, [words.NO_LOCK]),
    (True, {}, [words.NO_DEFAULT]),
    (False, {"replaces": True}, [words.NO_LOCK, words.REPLACES]),
    (False, {"replaces_parts": True}, [words.NO_LOCK, words.REPLACES_PARTS]),
    (False, {"replaces_at_once": True}, [words.NO_LOCK, words.REPLACES_AT_ONCE]),
    (False, {"lists_late": True}, [words.NO_LOCK, words.LISTS_LATE]),
    (False, {"lists_deleted": True}, [words.NO_LOCK, words.LISTS_DELETED]),
    (True, {"deletes_locked": True}, [words.NO_DEFAULT, words.LOCK_IGNORED]),
    (True, {"refuses_locks": True}, [words.NO_DEFAULT, words.LOCK_REFUSED]),
]


@pytest.mark.parametrize(
    ("locks", "lies", "weaknesses"), LIES, ids=["-".join([*lies, str(locks)]) for locks, lies, _ in LIES]
)
async def test_a_server_that_lies(locks: bool, lies: dict[str, Any], weaknesses: list[str]) -> None:
    server = LyingS3(locks=locks, lies=Lies(**lies))
    with lying(server) as bucket:
        assert await outcome_of(bucket) == Outcome(weaknesses, 0)
    assert (server.objects, server.uploads) == ([], {})


async def test_a_real_server(s3_server: ObjectStoreServer) -> None:
    with bucket_at(s3_server) as bucket:
        assert await outcome_of(bucket) == Outcome([words.NO_LOCK], 0)
        assert [key async for key in bucket.keys(PREFIX)] == []


@pytest.fixture
def locked(s3_server: ObjectStoreServer) -> Iterator[Bucket]:
    name = folder()
    client_at(s3_server).make_bucket(name, object_lock=True)
    with bucket_at(s3_server, bucket=name) as bucket:
        yield bucket


async def test_a_real_server_with_object_lock(s3_server: ObjectStoreServer, locked: Bucket) -> None:
    assert await outcome_of(locked) == Outcome([words.NO_DEFAULT], 0)
    client = client_at(s3_server)
    client.set_object_lock_config(locked.bucket, ObjectLockConfig(GOVERNANCE, 1, DAYS))
    # The credentials of the tests may do everything.
    assert await outcome_of(locked) == Outcome([words.BYPASSES], 0)
    assert list(client.list_objects(locked.bucket, recursive=True, include_version=True)) == []


async def test_a_lock_says_until_when(s3_server: ObjectStoreServer, locked: Bucket) -> None:
    client_at(s3_server).set_object_lock_config(locked.bucket, ObjectLockConfig(GOVERNANCE, 1, DAYS))
    assert await locked.create("a/x", b"1", {})
    assert not await locked.create("a/x", b"2", {})
    until = await locked.delete("a/x")
    assert until is not None
    assert timedelta(hours=23) < until - datetime.now(UTC) < timedelta(hours=25)
    assert await locked.stat("a/x") is not None


async def test_a_legal_hold_has_no_end(s3_server: ObjectStoreServer, locked: Bucket) -> None:
    assert await locked.create("a/x", b"1", {})
    client = client_at(s3_server)
    client.enable_object_legal_hold(locked.bucket, "a/x")
    with pytest.raises(BackhaulError, match="A legal hold keeps an object"):
        await locked.delete("a/x")
    client.disable_object_legal_hold(locked.bucket, "a/x")
    assert await locked.delete("a/x") is None
    assert list(client.list_objects(locked.bucket, recursive=True, include_version=True)) == []


async def test_what_governance_keeps_is_deleted_later_and_said_till_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "HOLD_S", 2)
    server = LyingS3(locks=True, lies=Lies(no_bypass=True))
    now = 0.0
    with server.serving() as endpoint:
        tenants = Tenants()
        buckets = Buckets(Place(endpoint, BUCKET, access_key="a", secret_key="b"), tenants, SecretBox([KEY]))
        probes = Probes(buckets, tenants, clock=lambda: now)
        assert probes.weaknesses("acme.1", "") == ()
        assert 0 < await probes.step() < 100
        assert probes.weaknesses("acme.1", "") == (words.NO_DEFAULT,)
        assert [stored.key.rpartition("/")[2] for stored in server.objects] == ["locked"]
        now = 70.0
        server.objects[0].headers["x-amz-object-lock-retain-until-date"] = "2999-01-01T00:00:00Z"
        server.objects[0].modified -= timedelta(seconds=100)
        await probes.step()
        assert probes.weaknesses("acme.1", "") == (
            words.NO_DEFAULT,
            "A lock, or missing rights, keep what a probe has written there: 1 under backhaul-probe/.",
        )
        server.objects[0].headers["x-amz-object-lock-retain-until-date"] = "2001-01-01T00:00:00Z"
        installation = buckets.named("acme.1", "")
        assert await installation.trial(lambda plain, creating: cleared(plain, creating, BUCKET)) == 0
        assert server.objects == []
        buckets.close()


async def test_what_an_earlier_probe_has_left_is_deleted() -> None:
    server = LyingS3()
    with lying(server) as bucket:
        for key in ("old", "new"):
            await bucket.create(f"{PREFIX}run/{key}", b"1", {})
        server.objects[0].modified -= timedelta(hours=1)
        await outcome_of(bucket)
    assert [stored.key for stored in server.objects] == [f"{PREFIX}run/new"]


async def test_it_is_tried_again_when_it_answers_and_then_every_hour() -> None:
    server = LyingS3(lies=Lies(answer=error(503, "SlowDown")))
    now = 0.0
    with server.serving() as endpoint:
        tenants = Tenants()
        buckets = Buckets(Place(endpoint, BUCKET, access_key="a", secret_key="b"), tenants, SecretBox([KEY]))
        probes = Probes(buckets, tenants, clock=lambda: now)
        wait_s = await probes.step()
        assert 3 < wait_s < 8
        assert probes.problem("acme.1", "") == "Object storage is overloaded, or starting. It is tried again."
        now += wait_s
        assert 7 < await probes.step() < 13
        server.lies.answer = None
        now += 20
        assert await probes.step() == 3600
        assert probes.weaknesses("acme.1", "") == (words.NO_LOCK,)
        assert probes.problem("acme.1", "") == ""
        # What it lies about from now on is found an hour later.
        server.lies.replaces = True
        asked = len(server.requests)
        now += 3599
        assert await probes.step() == 1
        assert len(server.requests) == asked
        now += 1
        await probes.step()
        assert probes.weaknesses("acme.1", "") == (words.NO_LOCK, words.REPLACES)
        buckets.close()


async def test_a_new_channel_is_probed_at_once(s3_server: ObjectStoreServer) -> None:
    tenants = Tenants()
    buckets = Buckets(place_at(s3_server), tenants, SecretBox([KEY]))
    probes = Probes(buckets, tenants)
    running = asyncio.create_task(probes.run())
    server = LyingS3(lies=Lies(replaces=True))
    with server.serving() as endpoint:
        tenants.put("acme", channel={"endpoint": endpoint, "bucket": BUCKET})
        async with asyncio.timeout(30):
            while not (probes.weaknesses("acme.1", "own") and probes.weaknesses("acme.1", "")):
                await asyncio.sleep(0.02)
        assert probes.weaknesses("acme.1", "own") == (words.NO_LOCK, words.REPLACES)
        assert probes.weaknesses("acme.1", "") == (words.NO_LOCK,)
        assert probes.weaknesses("globex.1", "own") == ()
        tenants.put("acme", channel=None)
        async with asyncio.timeout(30):
            while probes.weaknesses("acme.1", "own"):
                await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    buckets.close()
