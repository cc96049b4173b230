"""What is measured about opt-outs: how many hold, and how old they were when they did."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from backhaul_common import metrics as catalogue
from backhaul_common.metering import Metrics

from backhaul_suppression.model import Change


class Enforcement:
    """Counts changes that every copy has applied. ``now_us`` is unix time in microseconds."""

    def __init__(self, metrics: Metrics, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._enforced = metrics.counter(catalogue.SUPPRESSIONS_ENFORCED)
        self._lifted = metrics.counter(catalogue.SUPPRESSIONS_LIFTED)
        self._age = metrics.histogram(catalogue.SUPPRESSION_AGE_SECONDS)

    def enforced(self, changes: Iterable[Change]) -> None:
        """``changes`` hold on every copy since a moment ago."""
        now_us = self._now_us()
        for change in changes:
            row, tenant = change.row, change.fact.tenant_id
            if not row.active:
                self._lifted.add(tenant, row.key.kind)
                continue
            self._enforced.add(tenant, row.key.kind)
            # How long the person's word has waited, wherever it did: at the provider, in a backfill, at the tenant's.
            self._age.record(max(0.0, (now_us - row.since_us) / 1e6))
