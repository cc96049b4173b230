"""Where an overview's problems are mended: the page of each ``part`` of a tenant, or of the platform team."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from backhaul_client.overviewmodels import Problem
from starlette.routing import compile_path

from backhaul_console.rendering import segment
from backhaul_console.texts import _
from backhaul_console.visits import Side, Visit

_OF_TENANT = {
    "dead_letters": ("/dead-letters?state=open", _("Dead letters")),
    "subscriptions": ("/subscriptions", _("Subscriptions")),
    "deliveries": ("/deliveries?state=failed", _("Deliveries that failed")),
    "audit": ("/audits", _("Audit")),
    "silence": ("/reconciliation", _("Reconciliation")),
    "reconciliation": ("/reconciliation", _("Reconciliation")),
}
_OF_CHANNEL = ("verification", "processing")


@dataclass(frozen=True)
class Lead:
    """A page's address, and its name."""

    address: str
    name: str


def leads_of(pages: Collection[tuple[Side, str]]) -> Callable[..., Lead | None]:
    """``lead(visit, problem)`` is where a problem is mended, on pages of a tenant; on those of the platform team say
    whose it is. None where no page of ``pages`` mends it, as where the fix lies outside Backhaul."""
    patterns = [(side, compile_path(path)[0]) for side, path in pages]

    def exists(side: Side, path: str) -> bool:
        return any(side == one and pattern.match(path.partition("?")[0]) for one, pattern in patterns)

    def lead(visit: Visit, problem: Problem | None, tenant: str = "") -> Lead | None:
        if not visit.tenant_id:
            path = f"/tenants/{segment(tenant)}"
            return Lead(visit.at(path), _("The tenant")) if tenant and exists("admin", path) else None
        assert problem is not None  # noqa: S101  # a tenant's own page is the one that it is on
        for path, name in _candidates(problem):
            if exists("tenant", path):
                return Lead(visit.at(path), name)
        return None

    return lead


def _candidates(problem: Problem) -> list[tuple[str, str]]:
    found = [_OF_TENANT[problem.part]] if problem.part in _OF_TENANT else []
    if problem.channel is not None and problem.part in _OF_CHANNEL:
        found += [(f"/channels/{segment(problem.channel)}", _("The channel")), ("/channels", _("Channels"))]
    return found
