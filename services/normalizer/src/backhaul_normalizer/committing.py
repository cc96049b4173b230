"""Committing and publishing a batch: usually at once, by halves where something in it is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NoReturn, TypeVar

import msgspec
from backhaul_common.disposition import Disposition, disposition
from backhaul_common.logs import get_logger
from backhaul_proto.callback.v1.callback_pb2 import Callback

from backhaul_normalizer.model import Committed, Fact, Outgoing, Rejection
from backhaul_normalizer.ports import EventStore, Publisher
from backhaul_normalizer.snapshot import TooMuchError

COMMIT_EVENTS, COMMIT_BYTES = 2500, 8 << 20
"""Events, and bytes of them, in one transaction. A usual batch is one; a callback full of tiny events is several, since
MongoDB ends a transaction that takes too long, and the driver sends a command of at most 16 MB."""

MAX_LESS = 64
"""The part of that which is tried at the least."""

HELD_BYTES = 32 << 20
"""Bytes of committed events that wait to be published with the rest of their batch. A small callback can revise many
large events."""

_T = TypeVar("_T")

Reject = Callable[[Fact, str], Sequence[Rejection]]
"""Gives the dead letters of an event that was read and cannot be stored, and of the reason."""

Publish = Callable[[Sequence[Outgoing]], Awaitable[None]]
"""Publishes events that are committed."""


class Portions:
    """How much goes into one transaction: less after one that came to no end in time, and more after each that did.

    Where MongoDB is slow, what is tried again would otherwise never be done: it is as much as before.
    """

    def __init__(self) -> None:
        self._less = 1

    def of(self, facts: Sequence[Fact]) -> list[list[Fact]]:
        """``facts`` in parts for a transaction each; one empty part when there are none."""
        most, most_bytes = COMMIT_EVENTS // self._less, COMMIT_BYTES // self._less
        return _parts(facts, lambda fact: len(fact.payload), most, most_bytes)

    def failed(self) -> None:
        """A transaction did not come to its end."""
        self._less = min(self._less * 4, MAX_LESS)

    def done(self) -> None:
        """One did."""
        self._less = max(1, self._less // 2)


async def commit_all(
    store: EventStore,
    facts: Sequence[Fact],
    rejections: Sequence[Rejection],
    reject: Reject,
    publish: Publish,
    portions: Portions,
) -> Committed:
    """Commit all of it, in ``portions``.

    What is more to publish than a batch may hold is published at once; the rest is returned.

    What cannot be stored is found by halves. An event becomes a dead letter. A dead letter that cannot be stored is
    filed without its callback's bytes; where even that is refused it is left out, and the log says so. Raises what may
    pass: a store that refuses everything does not make dead letters of it.
    """
    committing = _Committing(store, reject, publish)
    filing = _parts(list(rejections), lambda one: len(one.callback)) if rejections else []
    *first, last = portions.of(facts)
    try:
        for part in first:
            await committing.store_facts(part, ())
        # Dead letters go with the last of the events, so that a usual batch is one transaction.
        await committing.store_facts(last, filing.pop(0) if filing else ())
    except Exception:
        portions.failed()
        raise
    portions.done()
    for some in filing:
        await committing.file(some)
    while committing.to_file:
        some, committing.to_file = committing.to_file, []
        await committing.file(some)
    return committing.done


async def file_all(store: EventStore, rejections: Sequence[Rejection]) -> None:
    """File dead letters alone, with what cannot be stored of them left out, as ``commit_all`` does."""
    committing = _Committing(store, _no_event, _no_event)
    for some in _parts(rejections, lambda one: len(one.callback)):
        if some:
            await committing.file(some)


def _no_event(*_: object) -> NoReturn:
    raise AssertionError("there is no event among dead letters")


class _Committing:
    def __init__(self, store: EventStore, reject: Reject, publish: Publish) -> None:
        self._store = store
        self._reject = reject
        self._publish = publish
        self._log = get_logger(component="consumer")
        self._takes_others = False
        """Whether the store was seen to take something: what it refuses is then at fault by itself."""
        self.done = Committed()
        self.to_file: list[Rejection] = []

    async def store_facts(self, facts: Sequence[Fact], rejections: Sequence[Rejection]) -> None:
        """Store ``facts`` and file ``rejections`` with them."""
        try:
            committed = await self._store.commit(facts, rejections)
        except TooMuchError:
            # Nothing is wrong with them. Each half is a transaction of its own.
            middle = len(facts) // 2
            await self.store_facts(facts[:middle], ())
            await self.store_facts(facts[middle:], rejections)
        except Exception as exc:
            await self._may_isolate(exc)
            if rejections:
                # Either side may be at fault.
                if facts:
                    await self.store_facts(facts, ())
                await self.file(rejections, refused=exc if not facts else None)
            elif len(facts) > 1:
                middle = len(facts) // 2
                await self.store_facts(facts[:middle], ())
                await self.store_facts(facts[middle:], ())
            elif facts:
                self._log.error("event_not_stored", tenant=facts[0].origin.tenant, exc_info=exc)
                self.to_file += self._reject(facts[0], f"It could not be stored: {type(exc).__name__}.")
            else:
                raise
        else:
            self.done = self.done.and_then(committed)
            if sum(len(event.payload) for event in self.done.outgoing) > HELD_BYTES:
                await self._publish(self.done.outgoing)
                self.done = replace(self.done, outgoing=())

    async def file(self, rejections: Sequence[Rejection], *, refused: Exception | None = None) -> None:
        """File ``rejections``; ``refused`` is why the store did not take all of them at once, if that was tried."""
        if refused is None:
            try:
                await self._store.commit((), rejections)
            except Exception as exc:  # noqa: BLE001  # raised again by the next line unless it is the dead letter's fault
                await self._may_isolate(exc)
                refused = exc
            else:
                return
        if len(rejections) > 1:
            middle = len(rejections) // 2
            await self.file(rejections[:middle])
            await self.file(rejections[middle:])
            return
        (one,) = rejections
        try:
            await self._store.commit((), [_without_bytes(one, refused)])
        except Exception as exc:  # noqa: BLE001  # as above
            await self._may_isolate(exc)
            self._log.error("dead_letter_not_stored", tenant=one.tenant, stream_seq=one.stream_seq, exc_info=exc)
        else:
            self._log.error(
                "dead_letter_without_bytes", tenant=one.tenant, stream_seq=one.stream_seq, error=repr(refused)
            )

    async def _may_isolate(self, exc: Exception) -> None:
        """Return if what was just refused with ``exc`` is at fault by itself; raise what may pass."""
        if disposition(exc) is Disposition.AWAY:
            raise exc
        if not self._takes_others:
            await self._store.takes_writes()
            self._takes_others = True


async def publish_all(
    publisher: Publisher, events: Sequence[Outgoing], traceparent: str, *, again: bool = False
) -> None:
    """Publish all ``events``, ``again`` as in ``Publisher``. One that is refused by itself is left out, and the log
    says so; it is in the store."""
    try:
        await publisher.publish(events, traceparent, again=again)
    except Exception as exc:
        if disposition(exc) is Disposition.AWAY or not events:
            raise
        if len(events) > 1:
            middle = len(events) // 2
            # Some of the messages may have been stored before one of them was refused.
            await publish_all(publisher, events[:middle], traceparent, again=True)
            await publish_all(publisher, events[middle:], traceparent, again=True)
        else:
            get_logger(component="consumer").error(
                "event_not_published", path=events[0].path, event_id=events[0].id, exc_info=exc
            )


def _without_bytes(one: Rejection, exc: Exception) -> Rejection:
    """``one``, with what identifies its callback and nothing else of it."""
    callback = Callback.FromString(one.callback)
    return msgspec.structs.replace(
        one,
        reason=f"It could not be stored with its bytes ({type(exc).__name__}). CALLBACKS has them at {one.stream_seq}.",
        callback=Callback(
            id=callback.id,
            tenant_id=callback.tenant_id,
            registration=callback.registration,
            channel=callback.channel,
            provider=callback.provider,
            received_at_us=callback.received_at_us,
        ).SerializeToString(),
    )


def _parts(
    items: Sequence[_T], size_of: Callable[[_T], int], most: int = COMMIT_EVENTS, most_bytes: int = COMMIT_BYTES
) -> list[list[_T]]:
    """``items`` in parts that one transaction takes each; one empty part when there are none."""
    parts: list[list[_T]] = [[]]
    total = 0
    for item in items:
        size = size_of(item)
        total += size
        if parts[-1] and (total > most_bytes or len(parts[-1]) == most):
            parts.append([])
            total = size
        parts[-1].append(item)
    return parts
