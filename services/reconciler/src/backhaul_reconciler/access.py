"""Which methods other systems may call, and what they need for each."""

from __future__ import annotations

from collections.abc import Mapping

from backhaul_common.accounts import Verb
from backhaul_common.changelog import Logged, logged
from backhaul_proto.reconciler.v1 import reconciler_pb2

SERVICE = reconciler_pb2.DESCRIPTOR.services_by_name["ReconcilerService"].full_name

_METHODS: Mapping[Verb, tuple[str, ...]] = {
    "reports": ("GetReport", "ListReports", "ListDifferences", "GetDay", "ListChannels"),
    # It spends what the provider allows the account, and backfills: whoever reads reports need not have it.
    "reconcile": ("Run",),
}

VERBS: Mapping[str, Verb] = {f"{SERVICE}.{method}": verb for verb, methods in _METHODS.items() for method in methods}
"""By full name."""

LOGGED: Mapping[str, Logged | None] = {f"{SERVICE}.Run": logged("reconciliation", "channel from_us to_us dry_run")}
"""What the log of changes keeps of each by which something is changed."""
