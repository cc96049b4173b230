"""What leads from page to page: the sections of a tenant's pages, and of the platform team's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from backhaul_console.saying import SAID
from backhaul_console.texts import _
from backhaul_console.visits import Side, Visit


@dataclass(frozen=True)
class Section:
    """One entry: its page's path, as ``Page`` has it; and which scopes, or one of which roles, see it."""

    path: str
    name: str
    seen_by: tuple[str, ...] = ()


_TENANT = (
    (
        Section("", _("Overview")),
        Section("/messages", _("Messages")),
        Section("/events", _("Events")),
        Section("/communications", _("Communications")),
        Section("/statistics", _("Statistics")),
        Section("/errors", _("Errors")),
    ),
    (
        Section("/dead-letters", _("Dead letters")),
        Section("/replays", _("Replays")),
        Section("/reconciliation", _("Reconciliation")),
        Section("/audits", _("Audit")),
    ),
    (
        Section("/suppressions", _("Suppressions")),
        Section("/replies", _("Replies")),
    ),
    (
        Section("/subscriptions", _("Subscriptions")),
        Section("/deliveries", _("Deliveries")),
    ),
    (
        Section("/channels", _("Channels")),
        Section("/keys", _("Keys"), ("manage",)),
        Section("/changes", _("Changes"), ("manage",)),
    ),
)
_ADMIN = (
    (Section("", _("Overview"), ("operator", "support")), Section("/tenants", _("Tenants"))),
    (Section("/services", _("Services")), Section("/changes", _("Changes"))),
    (Section("/configuration", _("Configuration"), ("operator", "support")),),
)


def sections_of(pages: Collection[tuple[Side, str]]) -> Callable[[Visit], Sequence[Sequence[Section]]]:
    """What of all this is among ``pages``, and seen by a visitor."""

    def sections(visit: Visit) -> Sequence[Sequence[Section]]:
        side: Side = "tenant" if visit.tenant_id else "admin"
        groups = _TENANT if side == "tenant" else _ADMIN
        return [[one for one in group if (side, one.path) in pages and _sees(visit, one.seen_by)] for group in groups]

    return sections


def current(visit: Visit, section: Section) -> bool:
    """Whether a page is one of the section's."""
    own = visit.request.url.path.removeprefix(visit.at())
    return own == section.path or (section.path != "" and own.startswith(section.path + "/"))


def said(visit: Visit) -> str:
    """What was just done, as ``Visit.to`` has it in the address; empty for anything else."""
    return SAID.get(visit.query.get("said", ""), "")


def _sees(visit: Visit, needed: tuple[str, ...]) -> bool:
    if visit.tenant_id:
        return visit.may(*needed)
    return not needed or visit.may(*needed)
