"""Replays over HTTP: spans of callbacks, and dead letters by filter, through the pipeline again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict, Unpack
from uuid import uuid4

from backhaul_client.calls import Call, call, given, of, page_of, path, rows
from backhaul_client.paging import Page
from backhaul_client.replaymodels import Replay
from backhaul_client.transport import AsyncPart, Part

_PAGE = 100
_TENANTS = ("admin", "v1", "tenants")


class DeadLettersIn(TypedDict, total=False):
    """Which open dead letters are meant: those of ``channel``, whose reason contains ``reason``, that were first seen
    from ``from_`` to ``to``. One of these has to be said. ``dry_run`` only counts them."""

    channel: str
    reason: str
    from_: datetime
    to: datetime
    dry_run: bool
    idempotency_key: str


class ReplayCalls:
    """The calls, once for both clients. What begins something is done once under an ``idempotency_key``, however often
    it is sent."""

    @call
    def begin(
        self,
        channel: str,
        *,
        from_: datetime,
        to: datetime | None = None,
        dry_run: bool = False,
        rate_per_s: int = 0,
        idempotency_key: str = "",
    ) -> Call[Replay]:
        """Read the callbacks of a channel that arrived from ``from_`` to ``to``, or until now, once more, so many a
        second, or half of the time. The replay as it begins: ``get`` tells later what it found."""
        said = {"channel": channel, "from_": from_, "to": to}
        return _begin("/v1/replays", said, dry_run=dry_run, rate_per_s=rate_per_s, key=idempotency_key)

    @call
    def replay_dead_letters(self, **said: Unpack[DeadLettersIn]) -> Call[Replay]:
        """Send the open dead letters that fit through once more."""
        return _fitting("/v1/dead-letters/replay", said)

    @call
    def discard_dead_letters(self, **said: Unpack[DeadLettersIn]) -> Call[Replay]:
        """Close the open dead letters that fit without processing them."""
        return _fitting("/v1/dead-letters/discard", said)

    @call
    def get(self, replay_id: str) -> Call[Replay]:
        """One replay, as far as it is."""
        return Call(path=path("v1", "replays", replay_id), answer=of(Replay))

    @call
    def cancel(self, replay_id: str) -> Call[Replay]:
        """End it; it as it is then. What it did stays."""
        return _cancel(path("v1", "replays", replay_id, "cancel"))

    @rows
    def list(self, *, page_size: int = _PAGE, cursor: str = "") -> Call[Page[Replay]]:
        """Replays, newest first, without examples."""
        params = given(limit=page_size, cursor=cursor)
        return Call(path="/v1/replays", params=params, answer=page_of("replays", Replay))


class OperatorReplayCalls:
    """What the platform team does with a tenant's dead letters; once for both clients."""

    @call
    def replay_dead_letters(self, tenant_id: str, **said: Unpack[DeadLettersIn]) -> Call[Replay]:
        """Send a tenant's open dead letters that fit through once more."""
        return _fitting(path(*_TENANTS, tenant_id, "dead-letters", "replay"), said)

    @call
    def discard_dead_letters(self, tenant_id: str, **said: Unpack[DeadLettersIn]) -> Call[Replay]:
        """Close a tenant's open dead letters that fit without processing them."""
        return _fitting(path(*_TENANTS, tenant_id, "dead-letters", "discard"), said)

    @call
    def replay(self, tenant_id: str, replay_id: str) -> Call[Replay]:
        """A replay of a tenant's, whoever began it, as far as it is."""
        return Call(path=path(*_TENANTS, tenant_id, "replays", replay_id), answer=of(Replay))

    @call
    def cancel_replay(self, tenant_id: str, replay_id: str) -> Call[Replay]:
        """End it; it as it is then. What it did stays."""
        return _cancel(path(*_TENANTS, tenant_id, "replays", replay_id, "cancel"))


def _fitting(to: str, said: Mapping[str, object]) -> Call[Replay]:
    rest: dict[str, Any] = dict(said)
    key, dry_run = rest.pop("idempotency_key", ""), rest.pop("dry_run", False)
    return _begin(to, rest, dry_run=dry_run, key=key)


def _begin(to: str, said: Mapping[str, Any], *, dry_run: bool, key: str, rate_per_s: int = 0) -> Call[Replay]:
    """Sent again, it begins nothing more: it always has a key."""
    more = {name: value for name, value in (("dry_run", dry_run), ("rate_per_s", rate_per_s)) if value}
    return Call(
        method="POST",
        path=to,
        body={**given(**said), **more},
        headers={"Idempotency-Key": key or str(uuid4())},
        answer=of(Replay),
        repeatable=True,
    )


def _cancel(to: str) -> Call[Replay]:
    return Call(method="POST", path=to, answer=of(Replay), repeatable=True)


class Replays(ReplayCalls, Part):
    """``TenantClient.replays``."""


class AsyncReplays(ReplayCalls, AsyncPart):
    """``AsyncTenantClient.replays``."""
