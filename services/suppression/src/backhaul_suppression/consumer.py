"""What suppression does with events: facts, a commit, and a wait until every copy knows; then the acknowledgement."""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from backhaul_common import metrics as catalogue
from backhaul_common.batches import Batch, Batches
from backhaul_common.feed import StreamMessage
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.outages import Repeated, is_outage
from backhaul_common.tenants import SuppressionSettings
from backhaul_common.tracing import Tracing, traceparent_of
from backhaul_common.turns import Turn
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from google.protobuf.message import DecodeError
from pydantic import ValidationError

from backhaul_suppression.enforcement import Enforcement
from backhaul_suppression.facts import fact_of, proves_delivery, spread
from backhaul_suppression.model import Fact
from backhaul_suppression.ports import Barrier, Facts, Feed, Lookup, Recorded, Store, Tenants

MAX_STRANGERS = 4096
"""Registrations of which it is remembered that they are gone."""

MAX_UNREADABLE = 4096
"""Tenants of which it is remembered that it was said that they cannot be read."""

_WIDEST = SuppressionSettings()
"""What is meant where it cannot be known: a STOP covers everything."""

_TURN_S = 0.005
"""How long reading may keep the event loop to itself: questions are answered by the same one."""


@dataclass(slots=True)
class EventsRead(Batch):
    """What was read of some messages of EVENTS, and what became of it.

    ``facts`` has each once, in its highest revision. ``outcomes`` counts events. ``recorded`` is there after the
    commit, if there were facts.
    """

    facts: dict[str, Fact] = field(default_factory=dict)
    outcomes: Counts[str] = field(default_factory=Counts)
    recorded: Recorded | None = None


class Consumer:
    """Takes batches from the feed until cancelled. What it does with each is the ``Work`` of ``Batches``.

    An opt-out is acknowledged when no copy that answers overlooks it. ``now_us`` is unix time in microseconds.
    """

    def __init__(
        self,
        feed: Feed,
        tenants: Tenants,
        facts: Facts,
        barrier: Barrier,
        rows: Lookup,
        store: Store,
        enforcement: Enforcement,
        metrics: Metrics,
        tracing: Tracing,
        now_us: Callable[[], int],
    ) -> None:
        self._tenants = tenants
        self._facts = facts
        self._barrier = barrier
        self._rows = rows
        self._store = store
        self._enforcement = enforcement
        self._tracing = tracing
        self._now_us = now_us
        self._gone: set[str] = set()
        self._unreadable: dict[str, Repeated] = {}
        self._log = get_logger(component="consumer")
        self._events = metrics.counter(catalogue.SUPPRESSION_EVENTS)
        self._seconds = metrics.histogram(catalogue.SUPPRESSION_BATCH_SECONDS)
        put_back = metrics.counter(catalogue.SUPPRESSION_BATCH_RETRIES)
        self._batches = Batches("suppression", feed, self, tracing, put_back.add)

    async def run(self) -> None:
        """Process until cancelled. A batch that is under way then is delivered again."""
        await self._batches.run()

    async def check(self) -> None:
        """A readiness check: batches can be committed and acknowledged."""
        await self._batches.check()

    async def answers(self) -> None:
        """See ``Work``."""
        await self._store.ping()
        self._rows.fresh()

    async def read(self, messages: Sequence[StreamMessage]) -> EventsRead:
        """See ``Work``."""
        batch = EventsRead(messages)
        turn = Turn(_TURN_S)
        now_us = self._now_us()
        for message in messages:
            for event in self._events_of(message):
                await turn.over()
                settings = await self._settings_of(event)
                if settings is None:
                    batch.outcomes["gone"] += 1
                    continue
                facts = self._facts_of(event, settings, now_us)
                batch.outcomes["fact" if facts else "nothing"] += 1
                for fact in facts:
                    kept = batch.facts.get(fact.id)
                    if kept is None or fact.revision > kept.revision:
                        batch.facts[fact.id] = fact
                if facts and event.traceparent and (self._tracing.enabled or not batch.traceparents):
                    batch.traceparents.append(event.traceparent)
        return batch

    async def commit(self, batch: EventsRead) -> None:
        """See ``Work``."""
        if batch.facts:
            with self._tracing.span("mongodb.commit", parent=traceparent_of(batch.span)):
                batch.recorded = await self._facts.commit(list(batch.facts.values()))

    async def publish(self, batch: EventsRead) -> None:
        """See ``Work``. Also where nothing was new: what was committed by a process that died then may not be known to
        every copy yet."""
        if batch.recorded is not None:
            with self._tracing.span("suppression.barrier", parent=traceparent_of(batch.span)):
                await self._barrier.passed(batch.recorded.seq)

    def done(self, batch: EventsRead) -> None:
        """See ``Work``."""
        for outcome, count in batch.outcomes.items():
            self._events.add(outcome, amount=count)
        duration_s = time.perf_counter() - batch.began
        self._seconds.record(duration_s)
        if batch.recorded is None:
            return
        changes = batch.recorded.changes
        self._enforcement.enforced(changes)
        self._log.info(
            "batch",
            tenants=len({fact.tenant_id for fact in batch.facts.values()}),
            stream_messages=len(batch.messages),
            events=batch.outcomes.total(),
            facts=len(batch.facts),
            changes=len(changes),
            duration_ms=round(duration_s * 1000, 1),
            trace_id=f"{batch.span.get_span_context().trace_id:032x}",
        )

    async def dead_letter(self, message: StreamMessage, error: Exception) -> None:  # noqa: ARG002  # of the protocol
        """See ``Work``. What each of its events says is recorded by itself, so that one that cannot be keeps no other's
        opt-out away. Those that cannot be are named in the log, and stay in the stream for its age."""
        for event in self._events_of(message):
            try:
                settings = await self._settings_of(event)
                facts = self._facts_of(event, settings, self._now_us()) if settings is not None else ()
                if facts:
                    self._enforcement.enforced((await self._facts.record(facts)).changes)
            except Exception as exc:  # whatever it is, the others' opt-outs must hold
                if is_outage(exc):
                    raise
                self._events.add("failed")
                self._log.error(
                    "event_not_applied", tenant=event.tenant_id, event_id=event.id, kind=event.kind, exc_info=exc
                )

    def _events_of(self, message: StreamMessage) -> Sequence[Event]:
        try:
            return EventBatch.FromString(message.data).events
        except DecodeError:
            # Only a program that is not Backhaul can have written it.
            self._log.error("not_an_event_batch", path=message.path, stream_seq=message.stream_seq)
            return ()

    def _facts_of(self, event: Event, settings: SuppressionSettings, now_us: int) -> Sequence[Fact]:
        """The facts to record, none where ``event`` says nothing. UNAVAILABLE of a delivery while this copy may not
        answer."""
        fact = fact_of(event, settings, now_us)
        if fact is None:
            return ()
        facts = spread(fact, settings)
        if not proves_delivery(fact):
            return facts
        # Most events are such, and hardly any has something to lift. A row that is not here yet is settled when it
        # comes: by asking what was delivered since. But only a copy that may answer is waited for before that is asked:
        # one that may not could miss the row, and nobody would look again.
        kept = [one for one in facts if self._rows.has(one.address, {target.kind for target in one.targets})]
        self._rows.fresh()
        return kept

    async def _settings_of(self, event: Event) -> SuppressionSettings | None:
        """What its tenant's people mean, None where the event's registration is gone. UNAVAILABLE."""
        registration = event.registration
        tenant = self._tenants.get(event.tenant_id)
        if tenant is not None and tenant.registration == registration:
            if self._unreadable:
                self._is_readable(event.tenant_id)
            return tenant.suppression
        if registration in self._gone:
            return None
        try:
            tenant = await self._tenants.reload(event.tenant_id)
        except ValidationError as exc:
            # A newer version may have written the tenant, and an opt-out must hold all the same. The commit judges
            # whether the registration lives.
            self._unreadable_of(event.tenant_id).error(f"unreadable in {exc.error_count()} places")
            return _WIDEST
        self._is_readable(event.tenant_id)
        if tenant is not None and tenant.registration == registration:
            return tenant.suppression
        # A registration that is gone never comes back, so its events need not be looked up one by one.
        if len(self._gone) >= MAX_STRANGERS:
            self._gone.clear()
        self._gone.add(registration)
        return None

    def _unreadable_of(self, tenant_id: str) -> Repeated:
        # Such a tenant may have thousands of events a second.
        if tenant_id not in self._unreadable:
            if len(self._unreadable) >= MAX_UNREADABLE:
                self._unreadable.clear()
            self._unreadable[tenant_id] = Repeated("tenant_unreadable", component="consumer", tenant=tenant_id)
        return self._unreadable[tenant_id]

    def _is_readable(self, tenant_id: str) -> None:
        if (unreadable := self._unreadable.pop(tenant_id, None)) is not None:
            unreadable.over()
