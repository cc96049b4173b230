"""What comes over gRPC is checked here for what the contract itself says."""

from __future__ import annotations

import re
from datetime import date

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import channel_key
from backhaul_common.pages import span_of
from backhaul_common.tenants import Tenant

from backhaul_reconciler.model import DAY_US

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def run_span_of(from_us: int, to_us: int, now_us: int) -> tuple[int, int]:
    """The span that a run asks about: the last 24 hours where neither end is given, and until now where the end is not
    or lies ahead. INVALID_ARGUMENT names ``from_us`` or ``to_us``."""
    span_of(from_us, to_us)
    if to_us and not from_us:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "A span that ends begins, too.",
            field="from_us",
            fix="Say from when on the provider is to be asked.",
        )
    end_us = min(to_us or now_us, now_us)
    begin_us = from_us or end_us - DAY_US
    if begin_us >= end_us:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "The span has no time that has passed.",
            field="from_us",
            fix="Begin before the end, and before now.",
        )
    return begin_us, end_us


def channel_of(tenant: Tenant, label: str) -> str:
    """The key of a channel of the tenant's. INVALID_ARGUMENT and NOT_FOUND name ``channel``."""
    key = channel_key(label)
    if not key:
        raise BackhaulError(
            Code.INVALID_ARGUMENT, "The channel is missing.", field="channel", fix="Name one of the tenant's channels."
        )
    if key not in tenant.channels:
        known = ", ".join(sorted(tenant.channels)) or "none"
        raise BackhaulError(
            Code.NOT_FOUND,
            f"The tenant has no channel {key[:64]!r}.",
            field="channel",
            fix=f"Its channels are: {known}.",
        )
    return key


def day_of(text: str) -> str:
    """A day. INVALID_ARGUMENT names ``day``."""
    try:
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        raise BackhaulError(
            Code.INVALID_ARGUMENT, "The day is none.", field="day", fix="Pass a day of UTC, such as 2026-11-25."
        )
    return day.isoformat()
