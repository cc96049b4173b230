"""Erasing a person, and the receipt of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from backhaul_client.calls import Call, call, of, path


class KeptData(msgspec.Struct, frozen=True, kw_only=True):
    """What stays of a person, and why. ``count`` is None where it is not counted, ``until`` where it does not go by
    itself."""

    kind: str
    count: int | None
    reason: str
    until: datetime | None


class ServiceErasure(msgspec.Struct, frozen=True, kw_only=True):
    """What one service did. One that does not erase (``erases``) keeps what it has."""

    service: str
    erases: bool
    erased_before: datetime | None
    erased: Mapping[str, int]
    kept: tuple[KeptData, ...]


class StreamErasure(msgspec.Struct, frozen=True, kw_only=True):
    """When all of the person is gone from a stream; None where callbacks are held."""

    stream: str
    until: datetime | None


class RecipientErasure(msgspec.Struct, frozen=True, kw_only=True):
    """The receipt of an erasure. ``complete`` is whether every service erases people."""

    complete: bool
    services: tuple[ServiceErasure, ...]
    streams: tuple[StreamErasure, ...]


class PeopleCalls:
    """The calls, once for both clients."""

    @call
    def erase_recipient(self, address: str) -> Call[RecipientErasure]:
        """Erase a person, but for what says that they must not be contacted. UnavailableError where more is left than
        one call erases: the same call again goes on."""
        return Call(
            method="DELETE", path=path("v1", "recipients", address), answer=of(RecipientErasure), repeatable=True
        )
