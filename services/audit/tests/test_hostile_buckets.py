"""Buckets whose owners mean to keep the service busy, or to fill its memory."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest
from backhaul_audit.objects import Bucket, Place, http
from backhaul_common.errors import BackhaulError, Code

LISTED = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n"


@dataclass
class Hostile:
    """Answers each connection with what ``answer`` sends. ``sent`` are the bytes that went out by now."""

    answer: Callable[[Hostile, socket.socket], None]
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def send(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(data)
        self.sent += len(data)

    @contextmanager
    def bucket(self) -> Iterator[Bucket]:
        """A bucket there, for as long as the server serves."""
        listening = socket.create_server(("127.0.0.1", 0))

        def serve(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                self.answer(self, connection)

        def accept() -> None:
            with suppress(OSError):
                while not self.over.is_set():
                    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        bucket = Bucket(Place(endpoint, "theirs", access_key="a", secret_key="b"))
        try:
            yield bucket
        finally:
            bucket.close()
            self.over.set()
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
            thread.join()


def endless(head: bytes) -> Callable[[Hostile, socket.socket], None]:
    def answer(hostile: Hostile, connection: socket.socket) -> None:
        connection.recv(65536)
        hostile.send(connection, head + b"\r\n<ListBucketResult>")
        while not hostile.over.is_set():
            hostile.send(connection, b" " * (1 << 16))

    return answer


def dripping(head: bytes) -> Callable[[Hostile, socket.socket], None]:
    """A byte now and then, so that nothing ever waits for long."""

    def answer(hostile: Hostile, connection: socket.socket) -> None:
        connection.recv(65536)
        hostile.send(connection, head)
        while not hostile.over.wait(0.05):
            hostile.send(connection, b"x")

    return answer


def sipping(hostile: Hostile, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    while not hostile.over.wait(0.05):
        connection.recv(1)


async def refusal(hostile: Hostile, call: Callable[[Bucket], object]) -> BackhaulError:
    with hostile.bucket() as bucket, pytest.raises(BackhaulError) as refused:
        await call(bucket)  # type: ignore[misc]  # each returns an awaitable
    return refused.value


@pytest.mark.parametrize("status", [b"200 OK", b"500 No", b"403 No"])
async def test_an_answer_without_an_end_is_not_kept(status: bytes) -> None:
    hostile = Hostile(endless(b"HTTP/1.1 " + status + b"\r\nContent-Type: application/xml\r\n"))
    told = await refusal(hostile, lambda bucket: anext(bucket.keys("")))
    assert told.code in (Code.FAILED_PRECONDITION, Code.UNAVAILABLE)
    # What is on its way in buffers comes on top.
    assert hostile.sent < http.MAX_ANSWER_BYTES + (32 << 20)


@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "call"),
    [
        (dripping(LISTED), "create"),
        (dripping(LISTED), "stat"),
        (dripping(LISTED + b"\r\n<"), "list"),
        (dripping(LISTED + b"\r\n<"), "delete"),
        (sipping, "create"),
        (sipping, "list"),
    ],
)
async def test_a_byte_now_and_then_keeps_nobody(
    answer: Callable[[Hostile, socket.socket], None], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ANSWER_S", 0.5)
    monkeypatch.setattr(http, "STALL_S", 0.5)
    calls: dict[str, Callable[[Bucket], object]] = {
        "create": lambda bucket: bucket.create("x", bytes(1 << 20), {}),
        "list": lambda bucket: anext(bucket.keys("")),
        "stat": lambda bucket: bucket.stat("x"),
        "delete": lambda bucket: bucket.delete("x"),
    }
    began = time.monotonic()
    told = await refusal(Hostile(answer), calls[call])
    assert (told.code, told.message) == (Code.UNAVAILABLE, "Object storage is too slow, or hangs.")
    assert time.monotonic() - began < 12


def one_more_page(hostile: Hostile, connection: socket.socket) -> None:
    page = (
        b'<?xml version="1.0"?><ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<Name>theirs</Name><IsTruncated>true</IsTruncated><NextKeyMarker>x</NextKeyMarker>"
        b"<NextVersionIdMarker>x</NextVersionIdMarker></ListVersionsResult>"
    )
    while not hostile.over.is_set() and connection.recv(65536):
        hostile.send(connection, LISTED + b"Content-Length: %d\r\n\r\n" % len(page) + page)


async def test_a_listing_without_an_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CALL_S", 0.5)
    hostile = Hostile(one_more_page)
    told = await refusal(hostile, lambda bucket: bucket.delete("x"))
    assert (told.code, told.message) == (Code.UNAVAILABLE, "Object storage is too slow, or hangs.")
    assert hostile.sent > 1000


async def test_an_object_that_drips_keeps_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_S", 0.5)

    async def read(bucket: Bucket) -> None:
        async for _ in bucket.read("x", chunk=1 << 16):
            pass

    told = await refusal(Hostile(dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")), read)
    assert (told.code, told.message) == (Code.UNAVAILABLE, "Object storage is too slow, or hangs.")
