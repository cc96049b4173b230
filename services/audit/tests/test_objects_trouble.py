"""What goes wrong with object storage, and what is said of it."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from backhaul_audit.objects import Bucket, Place
from backhaul_audit.objects.bucket import PART_BYTES
from backhaul_audit.objects.http import ANSWER_S, CONNECT_S
from backhaul_common.errors import BackhaulError, Code
from backhaul_local.object_store import ObjectStoreConfig, ObjectStoreServer
from backhaul_testing.waiting import until

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from buckets_rig import bucket_at, folder, place_at
from lying_s3 import BUCKET, Lies, LyingS3, error


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ObjectStoreServer]:
    """An S3 server of this test's own, which may be killed."""
    server = ObjectStoreServer(ObjectStoreConfig(data_dir=tmp_path))
    server.start_blocking()
    try:
        yield server
    finally:
        server.kill_blocking()


async def refusal(bucket: Bucket) -> BackhaulError:
    """What an attempt to file is refused with."""
    with pytest.raises(BackhaulError) as refused:
        await bucket.create("x", b"1", {})
    assert refused.value.__cause__ is None
    # Tenants are shown it.
    assert urlsplit(bucket.place.endpoint).netloc not in str(refused.value)
    return refused.value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"access_key": "nobody"}, "Object storage does not know the access key."),
        ({"secret_key": "wrong"}, "The secret key does not belong to the access key."),
    ],
)
async def test_what_people_must_mend(s3_server: ObjectStoreServer, changes: dict[str, str], message: str) -> None:
    with bucket_at(s3_server, **changes) as bucket:
        told = await refusal(bucket)
        assert (told.code, told.message) == (Code.FAILED_PRECONDITION, message)
        # The answers to other calls have less to say, but none takes it for an object that is not there.
        for call in (bucket.stat("x"), bucket.delete("x"), anext(bucket.read("x")), anext(bucket.keys(""))):
            with pytest.raises(BackhaulError) as refused:
                await call
            assert refused.value.code is Code.FAILED_PRECONDITION


async def test_a_bucket_that_is_not_there(s3_server: ObjectStoreServer) -> None:
    with LyingS3().serving() as endpoint:
        bucket = Bucket(Place(endpoint, "nowhere", access_key="a", secret_key="b"))
        told = await refusal(bucket)
        assert (told.code, told.message) == (Code.FAILED_PRECONDITION, "The bucket 'nowhere' does not exist.")
        bucket.close()
    # The real one makes a bucket for whoever writes there, so it is only read.
    with bucket_at(s3_server, bucket="nowhere") as bucket:
        for call in (bucket.stat("x"), bucket.delete("x"), anext(bucket.read("x")), anext(bucket.keys(""))):
            with pytest.raises(BackhaulError) as refused:
                await call
            assert (refused.value.code, refused.value.message) == (told.code, told.message)


@pytest.mark.parametrize(
    "changes", [{"bucket": "no bucket"}, {"endpoint": "http://s3.example.com/path"}, {"region": "_"}, {"endpoint": "x"}]
)
def test_what_cannot_be_a_place(s3_server: ObjectStoreServer, changes: dict[str, str]) -> None:
    with pytest.raises(BackhaulError) as refused:
        Bucket(place_at(s3_server, **changes))
    assert refused.value.code is Code.FAILED_PRECONDITION
    assert "is not one that S3 can have" in refused.value.message


async def test_it_goes_on_when_the_server_is_back(own_server: ObjectStoreServer) -> None:
    with bucket_at(own_server) as bucket:
        assert await bucket.create("a", b"1", {})
        await own_server.kill()
        assert (await refusal(bucket)).code is Code.UNAVAILABLE
        await own_server.start()
        assert await bucket.create("b", b"1", {})
        assert [key async for key in bucket.keys("")] == ["a", "b"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [200_000, PART_BYTES + 1])
async def test_kill_9_while_objects_are_created(own_server: ObjectStoreServer, size: int) -> None:
    """What was answered is there, and what was not can be created again, whole: nothing is half there."""
    contents = {f"k{n:03}": bytes([n]) * size for n in range(40 if size < PART_BYTES else 8)}
    with bucket_at(own_server) as bucket:
        created: dict[str, bool] = {}
        codes: set[Code] = set()

        async def create(key: str) -> None:
            try:
                created[key] = await bucket.create(key, contents[key], {"key": key})
            except BackhaulError as exc:
                codes.add(exc.code)

        async def one_created() -> bool:
            return bool(created)

        async def kill() -> None:
            await until("one object is there", one_created, within_s=60, pause_s=0.01)
            await own_server.kill()

        await asyncio.gather(kill(), *map(create, contents))
        assert 0 < len(created) < len(contents)
        assert all(created.values())
        assert codes == {Code.UNAVAILABLE}
        await own_server.start()
        for key in contents.keys() - created.keys():
            # False where it was stored and nobody heard of it.
            await bucket.create(key, contents[key], {"key": key})
        for key, content in contents.items():
            assert b"".join([piece async for piece in bucket.read(key)]) == content
            found = await bucket.stat(key)
            assert found is not None
            assert found.metadata == {"key": key}
        # Not what the server is asked for to know whether it is ready: a put that was given up may be done late.
        assert [key async for key in bucket.keys("k")] == list(contents)


@pytest.mark.timed
@pytest.mark.slow
async def test_a_server_that_hangs(own_server: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backhaul_audit.objects.http.ANSWER_S", 1.0)
    with bucket_at(own_server) as bucket:
        await bucket.create("a", bytes(40 << 20), {})
        reading = bucket.read("a", chunk=1 << 16)
        await anext(reading)
        own_server.pause()
        began = time.monotonic()
        told = await refusal(bucket)
        assert told.code is Code.UNAVAILABLE
        assert "too slow, or hangs" in told.message
        with pytest.raises(BackhaulError) as refused:
            await _all(reading)
        assert refused.value.code is Code.UNAVAILABLE
        assert time.monotonic() - began < ANSWER_S
        own_server.resume()
        assert await bucket.create("b", b"1", {})


@pytest.mark.timed
@pytest.mark.slow
async def test_closing_ends_what_hangs(own_server: ObjectStoreServer) -> None:
    with bucket_at(own_server) as bucket:
        await bucket.create("a", b"1", {})
        own_server.pause()
        hanging = asyncio.create_task(bucket.create("b", b"1", {}))
        reading = asyncio.create_task(bucket.stat("a"))
        await asyncio.wait([hanging, reading], timeout=0.5)
        began = time.monotonic()
        bucket.close()
        for task in (hanging, reading):
            with pytest.raises(BackhaulError) as refused:
                await task
            assert refused.value.code is Code.UNAVAILABLE
        assert time.monotonic() - began < ANSWER_S / 2
        own_server.resume()
        with pytest.raises(BackhaulError) as refused:
            await bucket.stat("a")
        assert refused.value.code is Code.UNAVAILABLE


async def test_one_that_is_cancelled_stays_cancelled(s3_server: ObjectStoreServer) -> None:
    with bucket_at(s3_server) as bucket:
        creating = asyncio.create_task(bucket.create(f"{folder()}/x", bytes(1 << 20), {}))
        await asyncio.sleep(0)
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("http://127.0.0.1:9", "Nothing answers where object storage should be."),
        ("http://nobody.invalid", "The name of object storage's host is not known."),
    ],
)
async def test_nobody_there(endpoint: str, message: str) -> None:
    bucket = Bucket(Place(endpoint, BUCKET, access_key="a", secret_key="b"))
    told = await refusal(bucket)
    assert (told.code, told.message) == (Code.UNAVAILABLE, message)
    assert told.retry_after_s is not None
    bucket.close()


@pytest.mark.timed
async def test_a_host_that_takes_no_connection_is_given_up_soon() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        host, port = full.getsockname()
        waiting = []
        while True:
            # Until nobody is let in any more: then the kernel leaves a connection without an answer.
            client = socket.socket()
            client.settimeout(0.3)
            waiting.append(client)
            try:
                client.connect((host, port))
            except TimeoutError:
                break
        bucket = Bucket(Place(f"http://{host}:{port}", BUCKET, access_key="a", secret_key="b"))
        began = time.monotonic()
        assert "Nothing answers" in (await refusal(bucket)).message
        assert time.monotonic() - began < CONNECT_S + 3
        bucket.close()
        for client in waiting:
            client.close()


async def test_https_where_none_is_spoken(s3_server: ObjectStoreServer) -> None:
    bucket = Bucket(place_at(s3_server, endpoint=s3_server.uri.replace("http:", "https:")))
    told = await refusal(bucket)
    assert told.code is Code.FAILED_PRECONDITION
    assert "does not speak TLS" in told.message
    bucket.close()


async def _all(pieces: AsyncIterator[bytes]) -> list[bytes]:
    return [piece async for piece in pieces]


HTML = {"Content-Type": "text/html"}
XML = {"Content-Type": "application/xml"}
MOVED = error(301, "PermanentRedirect")[2]
ANSWERS = [
    (error(403, "RequestTimeTooSkewed"), Code.FAILED_PRECONDITION, "clocks"),
    (error(400, "ExpiredToken"), Code.FAILED_PRECONDITION, "have ended"),
    (error(403, "AccessDenied"), Code.FAILED_PRECONDITION, "may not do this"),
    (error(507, "XMinioStorageFull"), Code.FAILED_PRECONDITION, "no room"),
    (error(409, "QuotaExceeded"), Code.FAILED_PRECONDITION, "no room"),
    (error(503, "SlowDown"), Code.UNAVAILABLE, "overloaded"),
    (error(500, "Whatever"), Code.UNAVAILABLE, "overloaded"),
    (error(501, "NotImplemented"), Code.FAILED_PRECONDITION, "does not know what was asked"),
    (
        error(400, "AuthorizationHeaderMalformed", "expecting 'eu-west-3'"),
        Code.FAILED_PRECONDITION,
        "endpoint: eu-west-3.",
    ),
    (
        (301, {**XML, "x-amz-bucket-region": "fsn1"}, error(301, "PermanentRedirect")[2]),
        Code.FAILED_PRECONDITION,
        ": fsn1.",
    ),
    (error(418, "Teapot"), Code.FAILED_PRECONDITION, "(Teapot)"),
    (error(418, "two words"), Code.FAILED_PRECONDITION, "(HTTP 418)"),
    ((502, HTML, b"<html>bad gateway"), Code.UNAVAILABLE, "says that it is away"),
    ((413, HTML, b"<html>too large"), Code.FAILED_PRECONDITION, "refuses objects of this size"),
    ((403, HTML, b"<html>waf"), Code.FAILED_PRECONDITION, "before object storage"),
    ((404, HTML, b"<html>hello"), Code.FAILED_PRECONDITION, "is not S3"),
    ((302, {"Location": "http://127.0.0.1:9/", **XML}, b"<x/>"), Code.FAILED_PRECONDITION, ""),
]


@pytest.mark.parametrize(("answer", "code", "word"), ANSWERS, ids=[f"{a[0][0]}-{n}" for n, a in enumerate(ANSWERS)])
async def test_answers(answer: tuple[int, dict[str, str], bytes], code: Code, word: str) -> None:
    server = LyingS3(lies=Lies(answer=answer))
    with server.serving() as endpoint:
        bucket = Bucket(Place(endpoint, BUCKET, access_key="a", secret_key="b"))
        told = await refusal(bucket)
        assert told.code is code
        assert word in told.message
        assert "secret words" not in str(told)
        with pytest.raises(BackhaulError) as refused:
            await anext(bucket.read("x"))
        assert refused.value.code is code
        bucket.close()


async def test_what_asks_for_a_condition_and_what_does_not() -> None:
    """The client's public calls cannot send it; this would notice if the requests of another version were others."""
    server = LyingS3()
    with server.serving() as endpoint:
        bucket = Bucket(Place(endpoint, BUCKET, access_key="a", secret_key="b"))
        assert await bucket.create("whole", b"1", {"file-id": "f"})
        assert await bucket.create("parts", bytes(PART_BYTES + 1), {"file-id": "f"})
        assert not await bucket.create("parts", bytes(PART_BYTES + 1), {"file-id": "g"})
        assert not server.uploads
        await bucket.stat("whole")
        await bucket.delete("whole")
        bucket.close()
    conditions = [
        (method, path.partition("?")[2].split("=")[0], headers.get("if-none-match"))
        for method, path, headers in server.requests
    ]
    parts = [("POST", "uploads", None), ("PUT", "partNumber", None), ("PUT", "partNumber", None)]
    first = [("PUT", "", "*"), *parts, ("POST", "uploadId", "*"), *parts, ("POST", "uploadId", "*")]
    assert conditions[: len(first)] == first
    assert all(condition is None for _, _, condition in conditions[len(first) :])


async def test_a_completion_that_fails_late() -> None:
    """Status 200, and an error in the body, as Amazon's does when it has answered already."""
    server = LyingS3(lies=Lies(completes_with_error="InternalError"))
    with server.serving() as endpoint:
        bucket = Bucket(Place(endpoint, BUCKET, access_key="a", secret_key="b"))
        with pytest.raises(BackhaulError) as refused:
            await bucket.create("parts", bytes(PART_BYTES + 1), {})
        assert refused.value.code is Code.UNAVAILABLE
        await asyncio.to_thread(server.handle, "PUT", f"/{BUCKET}/parts", {}, b"somebody's")
        assert not await bucket.create("parts", bytes(PART_BYTES + 1), {})
        bucket.close()
