"""Atomic batches: many messages for one stream, stored all or none by one acknowledgement.

With an fsync for every write the server then makes a few for all of them. Each is a message all the same, with its own
subject, headers and position. https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

MIN_MESSAGES = 30
"""Fewer go singly. The server makes a store of its own for every batch, and removes it, which costs what some twenty
messages cost that come one by one."""

MAX_MESSAGES = 1000
"""nats-server takes no more in one batch, unless it is told to."""

MAX_BATCH_BYTES = 1 << 20
"""Payloads. nats-py holds twice as much before whoever publishes must wait for the socket."""

MAX_MEMBER_BYTES = MAX_BATCH_BYTES // (MIN_MESSAGES + 2)
"""A larger message goes alone: an fsync is less than half of what it costs, and others need not wait for its bytes."""

_BLANK = re.compile(r"\s")

_T = TypeVar("_T")


class Sendable(Protocol):
    """What a batch is made of."""

    @property
    def subject(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def headers(self) -> dict[str, str]: ...


def parts(things: Iterable[_T], bytes_of: Callable[[_T], int]) -> Iterator[list[_T]]:
    """``things`` in their order: those that make a batch together, at least MIN_MESSAGES, or else each by itself."""
    run: list[_T] = []
    total = 0
    for thing in things:
        size = bytes_of(thing)
        if run and (size > MAX_MEMBER_BYTES or len(run) == MAX_MESSAGES or total + size > MAX_BATCH_BYTES):
            yield from _together(run)
            run, total = [], 0
        if size > MAX_MEMBER_BYTES:
            yield [thing]
        else:
            run.append(thing)
            total += size
    yield from _together(run)


def weight(message: Sendable) -> int:
    """The bytes of ``message``; more than a batch takes, where only nats-py's own way of writing it down will do."""
    if not message.subject or _BLANK.search("".join((message.subject, *message.headers.values()))):
        return MAX_MEMBER_BYTES + 1
    return len(message.payload)


def encoded(messages: Sequence[Sendable], batch_id: str, reply: str) -> bytes:
    """``messages`` as the bytes that publish them as one batch, which is answered at ``reply``.

    https://docs.nats.io/reference/reference-protocols/nats-protocol#hpub
    """
    pieces: list[bytes] = []
    last = len(messages)
    for number, message in enumerate(messages, 1):
        payload = message.payload
        fields = "".join([f"{name}: {value}\r\n" for name, value in message.headers.items()])
        head = f"NATS/1.0\r\n{fields}Nats-Batch-Id: {batch_id}\r\nNats-Batch-Sequence: {number}\r\n"
        if number < last:
            head, answer = f"{head}\r\n", ""
        else:
            head, answer = f"{head}Nats-Batch-Commit: 1\r\n\r\n", f"{reply} "
        header = head.encode()
        size = len(header)
        pieces += (
            f"HPUB {message.subject} {answer}{size} {size + len(payload)}\r\n".encode(),
            header,
            payload,
            b"\r\n",
        )
    return b"".join(pieces)


def _together(run: list[_T]) -> Iterator[list[_T]]:
    if len(run) >= MIN_MESSAGES:
        yield run
    else:
        for thing in run:
            yield [thing]
