"""What the normalizer does with its batches: callbacks into facts, a transaction, EVENTS, and dead letters."""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from backhaul_channels import Ignored
from backhaul_common import metrics as catalogue
from backhaul_common.batches import Batch, Batches
from backhaul_common.feed import StreamMessage
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import Tracing, traceparent_of
from backhaul_common.turns import Turn
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_CALLBACK, Callback, CallbackBatch
from backhaul_proto.event.v1.event_pb2 import Event
from google.protobuf.message import DecodeError
from opentelemetry.trace import Span, SpanKind

from backhaul_normalizer.activity import Activity, Sends, Where
from backhaul_normalizer.committing import Portions, commit_all, file_all, publish_all
from backhaul_normalizer.merge import all_together
from backhaul_normalizer.model import KIND_NAMES, Committed, Fact, Outgoing, Rejection
from backhaul_normalizer.normalize import Normalizer
from backhaul_normalizer.ports import EventStore, Feed, Holding, Holds, Publisher, Tenants

READING_S = 0.25
"""How long one tenant's callbacks may take to be read in a batch. What is beyond waits for the next batch."""

_SLOW_S = 0.1
"""A message that takes longer to be read is a slow one: nearly all take less than a hundredth of it."""

_TURN_S = 0.02
"""How long reading may keep the event loop to itself."""

_BESIDE_TURN_S, _BESIDE_REST = 0.005, 1.0
"""The same while others' callbacks come beside a flood; it then rests for as long. Their commits, acknowledgements and
reads go through the loop in several steps, each of which would wait for a turn."""

_FULL_PAUSE_S = 2.0
"""How long what should be held waits where CALLBACKS has no room for it: as long as a gateway takes to make some."""

MAX_STRANGERS = 4096
"""Channels of registrations, each at a revision, of which it is remembered that they are not there."""


@dataclass(slots=True)
class CallbacksRead(Batch):
    """What was read of some messages of CALLBACKS, and what became of it.

    ``callbacks`` counts by tenant and channel, ``ignored`` by tenant, channel and reason. ``facts`` has each event
    once, completed by what further callbacks of the batch tell of it; ``duplicates`` counts these, and ``told`` has all
    that tell of one event. ``held`` was not read, since its channels' callbacks are held; ``moved`` leads from
    where a message lies to where it lay first. ``sends`` are the messages that were sent. ``committed`` and
    ``readable_at``, seconds since 1970, are there after the commit.
    """

    callbacks: dict[tuple[str, str], int] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    told: dict[str, list[Fact]] = field(default_factory=dict)
    duplicates: Counts[tuple[str, str]] = field(default_factory=Counts)
    ignored: Counts[tuple[str, str, str]] = field(default_factory=Counts)
    rejections: dict[str, Rejection] = field(default_factory=dict)
    held: list[Holding] = field(default_factory=list)
    moved: dict[int, int] = field(default_factory=dict)
    sends: Sends = field(default_factory=Sends)
    oldest_us: int = 0
    committed: Committed = field(default_factory=Committed)
    readable_at: float = 0.0


class Consumer:
    """Takes batches from the feed until cancelled. What it does with each is the ``Work`` of ``Batches``."""

    def __init__(
        self,
        feed: Feed,
        tenants: Tenants,
        normalizer: Normalizer,
        store: EventStore,
        publisher: Publisher,
        holds: Holds,
        activity: Activity,
        metrics: Metrics,
        tracing: Tracing,
        *,
        ack_wait_s: float,
    ) -> None:
        self._feed = feed
        # What waits in the feed is renewed that often, and what was taken from it is not.
        self._late_after_s = ack_wait_s / 2
        self._holds = holds
        self._activity = activity
        self._tenants = tenants
        self._strangers: set[tuple[Where, int]] = set()
        self._normalizer = normalizer
        self._store = store
        self._portions = Portions()
        self._publisher = publisher
        self._tracing = tracing
        put_back = metrics.counter(catalogue.BATCH_RETRIES)
        self._batches = Batches("normalizer", feed, self, tracing, put_back.add)
        self._log = get_logger(component="consumer")
        self._callbacks = metrics.counter(catalogue.CALLBACKS_NORMALIZED)
        self._stored = metrics.counter(catalogue.EVENTS_STORED)
        self._duplicate = metrics.counter(catalogue.EVENTS_DUPLICATE)
        self._ignored = metrics.counter(catalogue.PARTS_IGNORED)
        self._lacking = metrics.counter(catalogue.EVENTS_LACKING)
        self._dead = metrics.counter(catalogue.DEAD_LETTERS)
        self._seconds = metrics.histogram(catalogue.BATCH_SECONDS)
        self._events = metrics.histogram(catalogue.BATCH_EVENTS)
        self._lag = metrics.histogram(catalogue.CALLBACK_LAG_SECONDS)

    async def run(self) -> None:
        """Process until cancelled. A batch that is under way then is delivered again."""
        await self._batches.run()

    async def check(self) -> None:
        """A readiness check: batches can be committed and published."""
        await self._batches.check()

    async def answers(self) -> None:
        """See ``Work``."""
        await self._store.ping()

    async def read(self, messages: Sequence[StreamMessage]) -> CallbacksRead:
        """See ``Work``. What one tenant's callbacks take beyond ``READING_S`` waits for the next batch."""
        batch = CallbacksRead(messages)
        turn = Turn(_BESIDE_TURN_S, _BESIDE_REST) if self._feed.beside else Turn(_TURN_S)
        spent_s: dict[str, float] = {}
        beyond: list[StreamMessage] = []
        for message in messages:
            now = time.perf_counter() - turn.away_s
            if spent_s.get(message.path, 0.0) > READING_S:
                beyond.append(message)
                continue
            callbacks, position = await self._to_read(batch, message)
            if not callbacks:
                continue
            first = callbacks[0]
            counted = first.tenant_id, first.channel
            batch.callbacks[counted] = batch.callbacks.get(counted, 0) + len(callbacks)
            # Callbacks lie in a message in the order of their arrival.
            batch.oldest_us = min(batch.oldest_us or first.received_at_us, first.received_at_us)
            if self._tracing.enabled:
                batch.traceparents += [callback.traceparent for callback in callbacks if callback.traceparent]
            elif not batch.traceparents and first.traceparent:
                batch.traceparents.append(first.traceparent)
            for callback in callbacks:
                heard = callback.source == SOURCE_CALLBACK
                for one in self._normalizer.read(callback, position, message.path):
                    # A callback may hold thousands of events.
                    await turn.over()
                    _add(batch, callback, one)
                    if not heard and isinstance(one, Fact):
                        batch.sends.note(one)
            # What others had of it is nobody's.
            took_s = time.perf_counter() - turn.away_s - now
            spent_s[message.path] = spent_s.get(message.path, 0.0) + took_s
            if took_s > _SLOW_S:
                # It kept all that arrives waiting too, other tenants' callbacks among it.
                await self._feed.catch_up()
        for event_id, facts in batch.told.items():
            await turn.over()
            batch.facts[event_id] = all_together(facts)
        if beyond:
            kept = {message.stream_seq for message in beyond}
            batch.messages = [message for message in messages if message.stream_seq not in kept]
            await self._feed.take_back(beyond)
        return batch

    async def _to_read(self, batch: CallbacksRead, message: StreamMessage) -> tuple[list[Callback], int]:
        """The callbacks of ``message``, and the position by which it is known. None of them where they are held."""
        callbacks, position = self._callbacks_of(message)
        if not callbacks:
            return [], position
        first = callbacks[0]
        # Read once: each time they are made anew of the message's bytes.
        where = Where(first.tenant_id, first.registration, first.channel)
        # They lie in the order of their arrival, and one gateway stored them: the last knew the newest settings.
        await self._meet(where, callbacks[-1].tenant_revision)
        if (heard := _last_heard(callbacks)) is not None:
            self._activity.heard(where, heard.received_at_us)
        if self._holds.holds(where.registration, where.channel, message.subject):
            held = Holding(message, position, *where, len(callbacks))
            batch.held.append(held)
            return [], position
        if position != message.stream_seq:
            batch.moved[message.stream_seq] = position
        return callbacks, position

    async def _meet(self, where: Where, revision: int) -> None:
        """Hear of a registration and its channel before its callbacks are read: how is a setting of the channel. What
        this copy knows must be as new as what the gateway knew, which is the tenant's ``revision``."""
        if _knows(self._tenants.get(where.tenant), where, revision) or (where, revision) in self._strangers:
            return
        if not _knows(await self._tenants.reload(where.tenant), where, revision):
            # A registration that is gone never comes back, and whoever makes a channel says so: their callbacks need
            # not be looked up one by one.
            if len(self._strangers) >= MAX_STRANGERS:
                self._strangers.clear()
            self._strangers.add((where, revision))

    def _callbacks_of(self, message: StreamMessage) -> tuple[list[Callback], int]:
        """The callbacks, and the position by which the message is known."""
        try:
            batch = CallbackBatch.FromString(message.data)
        except DecodeError:
            # Only a program that is not Backhaul can have written it; there is no tenant's callback in it to keep.
            self._log.error("not_a_callback_batch", path=message.path, stream_seq=message.stream_seq)
            return [], message.stream_seq
        return list(batch.callbacks), batch.position or message.stream_seq

    async def commit(self, batch: CallbacksRead) -> None:
        """See ``Work``. What the store refuses by itself becomes a dead letter, and the others are stored."""
        with self._tracing.span("mongodb.commit", parent=traceparent_of(batch.span)) as span:
            batch.committed = await commit_all(
                self._store,
                list(batch.facts.values()),
                list(batch.rejections.values()),
                partial(self._rejected, batch),
                lambda events: self._publish(batch, events, span),
                self._portions,
            )
        batch.readable_at = time.time()
        if batch.committed.gone:
            self._log.info("not_stored_of_deleted_tenants", registrations=sorted(batch.committed.gone)[:20])

    async def publish(self, batch: CallbacksRead) -> None:
        """See ``Work``."""
        parent = traceparent_of(batch.span)
        with self._tracing.span("events.publish", parent=parent, kind=SpanKind.PRODUCER) as span:
            await self._publish(batch, batch.committed.outgoing, span)
        if batch.sends.noted:
            await self._activity.sent(batch.sends)
        if batch.held and (left := await self._holds.set_aside(batch.held)):
            # Nothing else of the batch has to wait for room in CALLBACKS.
            positions = {message.stream_seq for message in left}
            batch.messages = [message for message in batch.messages if message.stream_seq not in positions]
            await self._feed.give_back(left, _FULL_PAUSE_S)

    async def _publish(self, batch: CallbacksRead, events: Sequence[Outgoing], span: Span) -> None:
        # Another copy may have been given the callbacks meanwhile, and have published their events first.
        late = time.perf_counter() - batch.began > self._late_after_s
        # Where the database was restored, what is new to it may lie in EVENTS.
        anew = any(message.stream_seq <= self._feed.anew for message in batch.messages)
        await publish_all(self._publisher, events, traceparent_of(span), again=late or anew)

    async def dead_letter(self, message: StreamMessage, error: Exception) -> None:
        """See ``Work``: each of its callbacks is one, whole."""
        reason = f"It could not be processed: {type(error).__name__}."
        callbacks, position = self._callbacks_of(message)
        rejections = [
            rejection
            for callback in callbacks
            for rejection in self._normalizer.reject(callback, [(0, callback.body, reason)], position, message.path)
        ]
        await file_all(self._store, rejections)
        for one in rejections:
            self._dead.add(one.tenant, one.channel)

    def _rejected(self, batch: CallbacksRead, fact: Fact, reason: str) -> list[Rejection]:
        """The dead letter of an event that was read and cannot be stored."""
        del batch.facts[fact.id]
        event = Event.FromString(fact.payload)
        positions = fact.positions()
        rejections = [
            rejection
            for message in batch.messages
            if (position := batch.moved.get(message.stream_seq, message.stream_seq)) in positions
            for callback in self._callbacks_of(message)[0]
            if callback.id == event.callback_id
            for rejection in self._normalizer.reject(callback, [(0, event.raw, reason)], position, message.path)
        ]
        batch.rejections.update((one.id, one) for one in rejections)
        return rejections

    def done(self, batch: CallbacksRead) -> None:
        """See ``Work``."""
        committed = batch.committed
        for (tenant, channel), count in batch.callbacks.items():
            self._callbacks.add(tenant, channel, amount=count)
        stored = Counts((fact.origin.tenant, fact.origin.channel, fact.event.kind) for fact in committed.new)
        for (tenant, channel, kind), count in stored.items():
            self._stored.add(tenant, channel, KIND_NAMES[kind], amount=count)
        duplicates = batch.duplicates + Counts((fact.origin.tenant, fact.origin.channel) for fact in committed.known)
        for (tenant, channel), count in duplicates.items():
            self._duplicate.add(tenant, channel, amount=count)
        lacking = Counts(
            (fact.origin.tenant, fact.origin.channel) for fact in committed.new if fact.event.missing_parameters
        )
        for (tenant, channel), count in lacking.items():
            self._lacking.add(tenant, channel, amount=count)
        for labels, count in batch.ignored.items():
            self._ignored.add(*labels, amount=count)
        for one in batch.rejections.values():
            self._dead.add(one.tenant, one.channel)
        duration_s = time.perf_counter() - batch.began
        lag_s = max(0.0, batch.readable_at - batch.oldest_us / 1e6) if batch.oldest_us else 0.0
        self._seconds.record(duration_s)
        self._events.record(len(batch.facts))
        self._lag.record(lag_s)
        self._log.info(
            "batch",
            tenants=len({tenant for tenant, _ in batch.callbacks}),
            stream_messages=len(batch.messages),
            callbacks=sum(batch.callbacks.values()),
            events=len(committed.new),
            duplicates=duplicates.total(),
            revisions=committed.revisions,
            dead_letters=len(batch.rejections),
            oldest_lag_ms=round(lag_s * 1000, 1),
            duration_ms=round(duration_s * 1000, 1),
            trace_id=f"{batch.span.get_span_context().trace_id:032x}",
        )


def _last_heard(callbacks: Sequence[Callback]) -> Callback | None:
    """The last one that is the provider's. They lie in a message in the order of their arrival."""
    if callbacks[-1].source == SOURCE_CALLBACK:
        return callbacks[-1]
    return next((one for one in reversed(callbacks) if one.source == SOURCE_CALLBACK), None)


def _knows(tenant: Tenant | None, where: Where, revision: int) -> bool:
    return (
        tenant is not None
        and tenant.registration == where.registration
        and tenant.revision >= revision
        and where.channel in tenant.channels
    )


def _add(batch: CallbacksRead, callback: Callback, one: Fact | Ignored | Rejection) -> None:
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
