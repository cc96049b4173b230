"""Who changed what: the log of changes, as a tenant and as the platform team read it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from backhaul_client.calls import Call, given, page_of
from backhaul_client.paging import Page


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One request by which somebody changed something, or tried to.

    ``author`` is ``key:<id>``, ``admin:<name>`` or ``service:<id>``. ``outcome`` is ``unknown``, and ``status`` None,
    of one that is under way, or whose process died meanwhile. ``application`` is the id of the entry of an application
    of which this is one change. Secrets, addresses of people and texts are ``***``.
    """

    id: str
    at: datetime
    author: str
    client: str | None
    tenant_id: str | None
    registration: str | None
    action: str
    kind: str
    target: Mapping[str, str]
    outcome: Literal["done", "refused", "failed", "unknown"]
    status: int | None
    trace_id: str
    application: str | None = None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    cut: bool


def listing_changes(
    where: str,
    author: str,
    action: str,
    application: str,
    from_: datetime | None,
    to: datetime | None,
    page_size: int,
    cursor: str,
    **more: str,
) -> Call[Page[Change]]:
    """The call that lists the changes at ``where``."""
    params = given(
        **more,
        author=author,
        action=action,
        application=application,
        from_=from_,
        to=to,
        limit=page_size,
        cursor=cursor,
    )
    return Call(path=where, params=params, answer=page_of("changes", Change))
