"""What is said of changes that happen one by one: that an address is suppressed, or that a reason is gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from backhaul_common.fence import Living
from backhaul_common.notices import entry, notice_id
from backhaul_common.outbox import Entry
from backhaul_proto.event.v1.event_pb2 import Attribute
from backhaul_proto.notice.v1.notice_pb2 import About, Notice

from backhaul_suppression.model import Change, Origin

ADDED: Final = "suppression.added"
LIFTED: Final = "suppression.lifted"


def entries_of(turned: Iterable[Change], owners: Mapping[str, Living]) -> list[Entry]:
    """What the outbox gets of changes by which rows began, or ceased, to suppress; ``owners`` are the tenants, by id.

    Nothing of a file's: whoever imports a million rows has their outcome, and does not want a call for each.
    """
    return [
        entry(_notice(change), owners[change.fact.tenant_id].path)
        for change in turned
        if change.fact.origin is not Origin.IMPORT
    ]


def _notice(change: Change) -> Notice:
    row, fact = change.row, change.fact
    registration, family, address = row.key.address
    scope = row.key.scope
    told = {
        "kind": row.key.kind,
        "scope_kind": scope.kind,
        "scope": scope.id,
        "family": family,
        "position": str(change.position),
    }
    if row.active:
        said, text = ADDED, "An address must not be contacted any more."
    else:
        said, text = LIFTED, "A reason not to contact an address is gone."
    return Notice(
        id=notice_id(registration, said, str(change.position)),
        tenant_id=fact.tenant_id,
        registration=registration,
        type=said,
        occurred_at_us=change.at_us,
        about=About(recipient=address, event_id=fact.event_id, reference=row.key.id),
        text=text,
        attributes=[Attribute(name=name, value=value) for name, value in told.items()],
        traceparent=fact.traceparent,
    )
