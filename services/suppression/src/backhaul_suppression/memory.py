"""All that lets a copy answer from memory, put together."""

from __future__ import annotations

from backhaul_common import metrics as catalogue
from backhaul_common import mongo
from backhaul_common.metering import Metrics
from backhaul_common.service import Service
from nats.aio.client import Client

from backhaul_suppression.barrier import SharedBarrier
from backhaul_suppression.changes import MongoChanges
from backhaul_suppression.copies import MongoCopies
from backhaul_suppression.following import Follower
from backhaul_suppression.index import Index
from backhaul_suppression.lease import Clock, Lease
from backhaul_suppression.leases import Holder, Renewing
from backhaul_suppression.signals import Signals


class Memory:
    """``index`` is the ``Lookup``, ``barrier`` the ``Barrier``, ``follower`` the ``Changes``."""

    def __init__(self, database: mongo.Database, nats: Client, clock: Clock, metrics: Metrics) -> None:
        self.signals = Signals(nats)
        self.lease = Lease(clock, metrics.counter(catalogue.SUPPRESSION_LEASE_LAPSES).add)
        self.index = Index(self.lease)
        self.follower = Follower(MongoChanges(database), self.index, applied=self._applied, set_back=self._was_set_back)
        copies = MongoCopies(database)
        self._holder = Holder(copies, self.lease, lambda: self.follower.applied, clock)
        self.renewing = Renewing(self._holder, self.lease, said=self.signals.applied)
        self.barrier = SharedBarrier(copies, clock, changed=self.signals.changed)
        self._changes_applied = metrics.counter(catalogue.SUPPRESSION_CHANGES_APPLIED)
        self._counted = -1
        metrics.gauge(catalogue.SUPPRESSION_ADDRESSES, lambda: self.index.addresses)
        metrics.gauge(catalogue.SUPPRESSION_LEASE_HELD, lambda: float(self.lease.held))
        self.signals.on_changed(self.follower.changed)
        self.signals.on_applied(self.barrier.moved)

    def add_to(self, service: Service) -> None:
        """Have ``service`` keep it going. What writes is to be registered later, so that it is stopped before this."""
        service.tenants.listen(self.index.tenant_changed)
        service.on_connected("suppression_signals", self.signals.subscribe)
        service.readiness.add("suppressions", self.renewing.check)
        service.run("suppression_signals", self.signals.run)
        service.run("suppression_follower", self.follower.run, after=service.prepared)
        service.run("suppression_lease", self.renewing.run, after=service.prepared)
        service.stack.push_async_callback(self.barrier.close)

    def _applied(self) -> None:
        applied = self.follower.applied
        # What was loaded is no change.
        if self._counted >= 0:
            self._changes_applied.add(amount=applied - self._counted)
        self._counted = applied
        self.renewing.moved()

    def _was_set_back(self) -> None:
        self._counted = -1
        self.lease.restart()
        self._holder.forget()
        self.barrier.forget()
