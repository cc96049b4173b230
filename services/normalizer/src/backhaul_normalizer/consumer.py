"""From CALLBACKS to MongoDB and EVENTS, batch by batch.

While one batch is being committed the next is read and the one before is published, so the processor works while the
database and the broker do. Commits of one process follow one another: two of its batches never conflict.

``disposition`` decides what becomes of a batch that fails. While a part is away the copy rests: it gives back all that
it holds, so that another copy may do it, and says that it is not ready.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Counts
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from backhaul_channels import Ignored
from backhaul_common import metrics as catalogue
from backhaul_common.errors import BackhaulError
from backhaul_common.feed import StreamMessage
from backhaul_common.lifecycle import cancel, until_done
from backhaul_common.logs import get_logger
from backhaul_common.metrics import Metrics
from backhaul_common.outages import Repeated
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import Tracing, traceparent_of
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch
from backhaul_proto.event.v1.event_pb2 import Event
from google.protobuf.message import DecodeError
from opentelemetry.trace import Span, SpanKind

from backhaul_normalizer.committing import commit_all, publish_all
from backhaul_normalizer.disposition import FIRST_PAUSE_S, MOST_TRIES, Disposition, Tries, disposition, pause_s
from backhaul_normalizer.merge import all_together
from backhaul_normalizer.model import KIND_NAMES, Committed, Fact, Rejection
from backhaul_normalizer.normalize import Normalizer
from backhaul_normalizer.ports import EventStore, Feed, Publisher, Tenants

READING_S = 0.25
"""How long one tenant's callbacks may take to be read in a batch. What is beyond waits for the next batch."""

_SLOW_S = 0.1
"""A message that takes longer to be read is a slow one: nearly all take less than a hundredth of it."""

_TURN_S = 0.02
"""How long reading may keep the event loop to itself."""

MAX_STRANGERS = 4096
"""Registrations, each with a channel, of which it is remembered that they are not there."""


@dataclass(slots=True)
class _Batch:
    """What was read of some deliveries.

    ``callbacks`` counts by tenant and channel, ``ignored`` by tenant, channel and reason. ``facts`` has each event
    once, completed by what further callbacks of the batch tell of it; ``duplicates`` counts these, and ``told`` has all
    that tell of one event.
    """

    deliveries: Sequence[StreamMessage]
    began: float
    callbacks: dict[tuple[str, str], int] = field(default_factory=dict)
    traceparents: list[str] = field(default_factory=list)
    facts: dict[str, Fact] = field(default_factory=dict)
    told: dict[str, list[Fact]] = field(default_factory=dict)
    duplicates: Counts[tuple[str, str]] = field(default_factory=Counts)
    ignored: Counts[tuple[str, str, str]] = field(default_factory=Counts)
    rejections: dict[str, Rejection] = field(default_factory=dict)
    oldest_us: int = 0


class Consumer:
    """Takes batches from the feed until cancelled."""

    def __init__(
        self,
        feed: Feed,
        tenants: Tenants,
        normalizer: Normalizer,
        store: EventStore,
        publisher: Publisher,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        self._feed = feed
        self._tenants = tenants
        self._strangers: set[tuple[str, str]] = set()
        self._settling: asyncio.Task[None] | None = None
        self._publishing: asyncio.Task[None] | None = None
        self._normalizer = normalizer
        self._store = store
        self._publisher = publisher
        self._tracing = tracing
        self._tries = Tries()
        self._resting = asyncio.Event()
        self._resters = 0
        self._reason = ""
        self._away = Repeated("batch_put_back", component="consumer")
        self._log = get_logger(component="consumer")
        self._callbacks = metrics.counter(catalogue.CALLBACKS_NORMALIZED)
        self._stored = metrics.counter(catalogue.EVENTS_STORED)
        self._duplicate = metrics.counter(catalogue.EVENTS_DUPLICATE)
        self._ignored = metrics.counter(catalogue.PARTS_IGNORED)
        self._dead = metrics.counter(catalogue.DEAD_LETTERS)
        self._retries = metrics.counter(catalogue.BATCH_RETRIES)
        self._seconds = metrics.histogram(catalogue.BATCH_SECONDS)
        self._events = metrics.histogram(catalogue.BATCH_EVENTS)
        self._lag = metrics.histogram(catalogue.CALLBACK_LAG_SECONDS)

    async def run(self) -> None:
        """Process for ever. A batch that is under way when this is cancelled is delivered again."""
        try:
            while True:
                await self._worth_reading()
                for deliveries in self._tries.apart(await self._feed.next_batch()):
                    await self._take(deliveries)
        finally:
            for task in (self._settling, self._publishing):
                if task is not None:
                    await cancel(task)
            # Run again after a failure, it must not come upon the failed task.
            self._settling = self._publishing = None

    async def _worth_reading(self) -> None:
        """Returns when a whole batch waits, or nothing is being committed.

        Under load the next batch is read while one is committed. Otherwise what arrives meanwhile is better read
        together when that is done: read at once, it would keep those who come after it waiting for one commit more.
        """
        settling = self._settling
        if settling is None or settling.done():
            return
        full = asyncio.ensure_future(self._feed.full())
        try:
            await asyncio.wait({settling, full}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            full.cancel()

    async def _take(self, deliveries: Sequence[StreamMessage]) -> None:
        try:
            batch = await self._read(deliveries)
        except Exception as exc:  # noqa: BLE001  # whatever it is, nothing was acknowledged and all is delivered again
            await self._put_back(_Batch(deliveries, time.perf_counter()), exc)
            return
        if await self._turn_comes():
            self._settling = asyncio.create_task(self._settle(batch), name="settle")
        else:
            await self._feed.give_back(batch.deliveries, FIRST_PAUSE_S)

    async def _turn_comes(self) -> bool:
        """Wait until nothing is being committed. False, at once, when this copy rests: then nothing is to be begun."""
        settling = self._settling
        if settling is not None and not self._resting.is_set():
            resting = asyncio.ensure_future(self._resting.wait())
            try:
                await asyncio.wait({settling, resting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                resting.cancel()
        if self._resting.is_set():
            return False
        if settling is not None:
            await settling  # Raises what went wrong in it.
        return True

    async def check(self) -> None:
        """A readiness check: batches can be committed and published."""
        if self._resting.is_set():
            raise ConnectionError(f"batches are put back: {self._reason}")

    async def _read(self, deliveries: Sequence[StreamMessage]) -> _Batch:
        batch = _Batch(deliveries, time.perf_counter())
        turn = _Turn()
        spent_s: dict[str, float] = {}
        beyond: list[StreamMessage] = []
        for delivery in deliveries:
            now = time.perf_counter()
            if spent_s.get(delivery.path, 0.0) > READING_S:
                beyond.append(delivery)
                continue
            callbacks = self._callbacks_of(delivery)
            if not callbacks:
                continue
            first = callbacks[0]
            await self._meet(first)
            counted = first.tenant_id, first.channel
            batch.callbacks[counted] = batch.callbacks.get(counted, 0) + len(callbacks)
            # Callbacks lie in a message in the order of their arrival.
            batch.oldest_us = min(batch.oldest_us or first.received_at_us, first.received_at_us)
            if self._tracing.enabled:
                batch.traceparents += [callback.traceparent for callback in callbacks if callback.traceparent]
            elif not batch.traceparents and first.traceparent:
                batch.traceparents.append(first.traceparent)
            for callback in callbacks:
                for one in self._normalizer.read(callback, delivery.stream_seq, delivery.path):
                    # A callback may hold thousands of events.
                    await turn.over()
                    _add(batch, callback, one)
            took_s = time.perf_counter() - now
            spent_s[delivery.path] = spent_s.get(delivery.path, 0.0) + took_s
            if took_s > _SLOW_S:
                # It kept all that arrives waiting too, other tenants' callbacks among it.
                await self._feed.catch_up()
        for event_id, facts in batch.told.items():
            await turn.over()
            batch.facts[event_id] = all_together(facts)
        if beyond:
            kept = {delivery.stream_seq for delivery in beyond}
            batch.deliveries = [delivery for delivery in deliveries if delivery.stream_seq not in kept]
            await self._feed.take_back(beyond)
        return batch

    async def _meet(self, callback: Callback) -> None:
        """Hear of a registration and its channel before its callbacks are read: how is a setting of the channel."""
        registration, channel = callback.registration, callback.channel
        if (registration, channel) in self._strangers or _has(
            self._tenants.get(callback.tenant_id), registration, channel
        ):
            return
        if not _has(await self._tenants.reload(callback.tenant_id), registration, channel):
            # A registration that is gone never comes back, and whoever makes a channel says so: their callbacks need
            # not be looked up one by one.
            if len(self._strangers) >= MAX_STRANGERS:
                self._strangers.clear()
            self._strangers.add((registration, channel))

    def _callbacks_of(self, delivery: StreamMessage) -> list[Callback]:
        try:
            return list(CallbackBatch.FromString(delivery.data).callbacks)
        except DecodeError:
            # Only a program that is not Backhaul can have written it; there is no tenant's callback in it to keep.
            self._log.error("not_a_callback_batch", path=delivery.path, stream_seq=delivery.stream_seq)
            return []

    async def _settle(self, batch: _Batch) -> None:
        """Commit, and leave publishing and acknowledging to a task of its own."""
        span = self._start_span(batch)
        try:
            with self._tracing.span("mongodb.commit", parent=traceparent_of(span)) as commit_span:
                committed = await commit_all(
                    self._store,
                    list(batch.facts.values()),
                    list(batch.rejections.values()),
                    partial(self._rejected, batch),
                    partial(publish_all, self._publisher, traceparent=traceparent_of(commit_span)),
                )
        except Exception as exc:  # noqa: BLE001  # as above
            span.end()
            await self._put_back(batch, exc)
            return
        readable_at = time.time()
        if committed.gone:
            self._log.info("not_stored_of_deleted_tenants", registrations=sorted(committed.gone)[:20])
        # The next batch is committed while this one is published, and no further: what is committed but not published
        # must stay little, because it is what a crash makes this process do again.
        if self._publishing is not None:
            await self._publishing
        self._publishing = asyncio.create_task(self._finish(batch, committed, readable_at, span), name="publish")

    async def _finish(self, batch: _Batch, committed: Committed, readable_at: float, span: Span) -> None:
        """Publish and acknowledge; or have all of it delivered again, which then finds its events stored."""
        try:
            parent = traceparent_of(span)
            with self._tracing.span("events.publish", parent=parent, kind=SpanKind.PRODUCER) as publish_span:
                await publish_all(self._publisher, committed.outgoing, traceparent_of(publish_span))
            for delivery in batch.deliveries:
                await delivery.ack()
            self._away.over()
            self._tries.done([delivery.stream_seq for delivery in batch.deliveries])
            self._report(batch, committed, readable_at, span)
        except Exception as exc:  # noqa: BLE001  # the store has it, and it is published when it is delivered again
            await self._put_back(batch, exc)
        finally:
            span.end()

    async def _put_back(self, batch: _Batch, exc: Exception) -> None:
        """Have all of ``batch`` delivered again: for ever while a part is away, else a bounded number of times."""
        what = exc.message if isinstance(exc, BackhaulError) else type(exc).__name__
        self._retries.add(what)
        if disposition(exc) is Disposition.LATER:
            self._away.warning(repr(exc.__cause__ or exc), deliveries=len(batch.deliveries))
            await self._rest(batch, what)
            return
        self._log.error("batch_failed", deliveries=len(batch.deliveries), exc_info=exc)
        for delivery in batch.deliveries:
            tries = self._tries.failed(delivery.stream_seq)
            if tries < MOST_TRIES:
                await self._feed.give_back([delivery], pause_s(tries))
                continue
            # It stays in CALLBACKS for its age.
            self._log.error("message_given_up", path=delivery.path, stream_seq=delivery.stream_seq, tries=tries)
            with suppress(BackhaulError):  # An acknowledgement that is lost costs one more try.
                await delivery.ack()

    async def _rest(self, batch: _Batch, reason: str) -> None:
        """Give back all that this copy holds, and take nothing until the store answers and a pause is over."""
        self._reason = reason
        self._resting.set()
        self._resters += 1  # One batch may fail to be published while the next one fails to be committed.
        try:
            pause = pause_s(self._away.times)
            await self._feed.give_back(batch.deliveries, pause)
            await self._feed.hand_back(pause)
            await until_done("store_answers", self._store.ping, longest_pause_s=2.0)
            if self._away.times > 1:
                await asyncio.sleep(pause)
        finally:
            self._resters -= 1
            if not self._resters:
                self._resting.clear()
                self._feed.resume()

    def _rejected(self, batch: _Batch, fact: Fact, reason: str) -> list[Rejection]:
        """The dead letter of an event that was read and cannot be stored."""
        del batch.facts[fact.id]
        event = Event.FromString(fact.payload)
        positions = fact.positions()
        rejections = [
            rejection
            for delivery in batch.deliveries
            if delivery.stream_seq in positions
            for callback in self._callbacks_of(delivery)
            if callback.id == event.callback_id
            for rejection in self._normalizer.reject(
                callback, [(0, event.raw, reason)], delivery.stream_seq, delivery.path
            )
        ]
        batch.rejections.update((one.id, one) for one in rejections)
        return rejections

    def _start_span(self, batch: _Batch) -> Span:
        parents = list(dict.fromkeys(batch.traceparents))
        # A span has one parent: the first callback's. The others' traces are linked, so each leads here.
        return self._tracing.start(
            "normalizer.batch",
            parent=parents[0] if parents else None,
            kind=SpanKind.CONSUMER,
            links=parents[1:128],
        )

    def _report(self, batch: _Batch, committed: Committed, readable_at: float, span: Span) -> None:
        for (tenant, channel), count in batch.callbacks.items():
            self._callbacks.add(tenant, channel, amount=count)
        stored = Counts((fact.origin.tenant, fact.origin.channel, fact.event.kind) for fact in committed.new)
        for (tenant, channel, kind), count in stored.items():
            self._stored.add(tenant, channel, KIND_NAMES[kind], amount=count)
        duplicates = batch.duplicates + Counts((fact.origin.tenant, fact.origin.channel) for fact in committed.known)
        for (tenant, channel), count in duplicates.items():
            self._duplicate.add(tenant, channel, amount=count)
        for labels, count in batch.ignored.items():
            self._ignored.add(*labels, amount=count)
        for one in batch.rejections.values():
            self._dead.add(one.tenant, one.channel)
        duration_s = time.perf_counter() - batch.began
        lag_s = max(0.0, readable_at - batch.oldest_us / 1e6) if batch.oldest_us else 0.0
        self._seconds.record(duration_s)
        self._events.record(len(batch.facts))
        self._lag.record(lag_s)
        self._log.info(
            "batch",
            tenants=len({tenant for tenant, _ in batch.callbacks}),
            deliveries=len(batch.deliveries),
            callbacks=sum(batch.callbacks.values()),
            events=len(committed.new),
            duplicates=duplicates.total(),
            revisions=committed.revisions,
            dead_letters=len(batch.rejections),
            oldest_lag_ms=round(lag_s * 1000, 1),
            duration_ms=round(duration_s * 1000, 1),
            trace_id=f"{span.get_span_context().trace_id:032x}",
        )


class _Turn:
    """Gives the event loop to others now and then."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def over(self) -> None:
        """Let others have the loop if it was kept for long."""
        if time.perf_counter() - self._began > _TURN_S:
            await asyncio.sleep(0)
            self._began = time.perf_counter()


def _has(tenant: Tenant | None, registration: str, channel: str) -> bool:
    return tenant is not None and tenant.registration == registration and channel in tenant.channels


def _add(batch: _Batch, callback: Callback, one: Fact | Ignored | Rejection) -> None:
    if isinstance(one, Fact):
        kept = batch.facts.setdefault(one.id, one)
        if kept is not one:
            batch.duplicates[callback.tenant_id, callback.channel] += 1
            batch.told.setdefault(one.id, [kept]).append(one)
    elif isinstance(one, Ignored):
        batch.ignored[callback.tenant_id, callback.channel, one.reason] += 1
    else:
        filed = batch.rejections.get(one.id)
        batch.rejections[one.id] = one if filed is None else filed.with_duplicate(one)
