"""What a tenant manages of its own: its keys and its channels, by a key that has the scope ``manage``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack

from backhaul_client.adminmodels import Channel, IssuedKey, Key, KeyHolder
from backhaul_client.calls import Call, all_of, call, nothing, of, path, rows
from backhaul_client.changes import Change, listing_changes
from backhaul_client.overviewmodels import TenantOverview
from backhaul_client.paging import Page

Scope = Literal["ingest", "read", "check", "send", "manage"]
"""What an API key opens."""


class ChannelIn(TypedDict, total=False):
    """What is to be set of a channel; what is left out, or None, stays.

    ``secrets`` are all that are valid from now on; one of several parts, such as a name and a password, is a mapping.
    By ``pull_credentials`` the provider's API is asked; ``audit_credentials`` open a bucket of the channel's own for
    audit files; none at all removes either. While ``processing`` is held, callbacks are stored and answered, and
    processed when it is on again.
    """

    provider: str | None
    secrets: Sequence[str | Mapping[str, str]] | None
    pull_credentials: Mapping[str, str] | None
    audit_credentials: Mapping[str, str] | None
    settings: Mapping[str, Any] | None
    verification: Literal["enforce", "observe", "off"] | None
    processing: Literal["on", "held"] | None


def adding_key(where: str, kind: str, scopes: Sequence[Scope] | None, expires_at: datetime | None) -> Call[IssuedKey]:
    """The call that adds a key or token to those at ``where``."""
    body: dict[str, object] = {"kind": kind}
    if scopes is not None:
        body["scopes"] = [*scopes]
    if expires_at is not None:
        body["expires_at"] = expires_at
    return Call(method="POST", path=where, body=body, answer=of(IssuedKey))


def putting_channel(where: str, fields: ChannelIn) -> Call[Channel]:
    """The call that creates the channel at ``where``, or changes it."""
    body = {name: value for name, value in fields.items() if value is not None}
    return Call(method="PUT", path=where, body=body, answer=of(Channel))


class OwnCalls:
    """The calls, once for both clients."""

    @call
    def whoami(self) -> Call[KeyHolder]:
        """Which key this is, what it opens, and how much may be asked with it."""
        return Call(path="/v1/whoami", answer=of(KeyHolder))

    @call
    def overview(self) -> Call[TenantOverview]:
        """All channels at a glance, and what is wrong, the worst first."""
        return Call(path="/v1/overview", answer=of(TenantOverview))

    @call
    def keys(self) -> Call[tuple[Key, ...]]:
        """All API keys and ingest tokens, without their texts."""
        return Call(path="/v1/keys", answer=all_of("keys", Key))

    @call
    def add_key(
        self,
        kind: Literal["api", "ingest"] = "api",
        *,
        scopes: Sequence[Scope] | None = None,
        expires_at: datetime | None = None,
    ) -> Call[IssuedKey]:
        """One more API key or ingest token, whose text is in this answer and nowhere else. It opens no more than the
        key by which it is asked for, and no longer; left out, ``scopes`` and ``expires_at`` are that key's."""
        return adding_key("/v1/keys", kind, scopes, expires_at)

    @call
    def delete_key(self, key_id: str) -> Call[None]:
        """Revoke a key or token. ConflictError for the last key that manages."""
        return Call(method="DELETE", path=path("v1", "keys", key_id), answer=nothing)

    @call
    def channels(self) -> Call[tuple[Channel, ...]]:
        """All channels."""
        return Call(path="/v1/channels", answer=all_of("channels", Channel))

    @call
    def channel(self, label: str) -> Call[Channel]:
        """One channel."""
        return Call(path=path("v1", "channels", label), answer=of(Channel))

    @call
    def put_channel(self, label: str, **fields: Unpack[ChannelIn]) -> Call[Channel]:
        """Create a channel, or change what is given of it. Only the platform team gives it a bucket of its own."""
        return putting_channel(path("v1", "channels", label), fields)

    @call
    def delete_channel(self, label: str) -> Call[None]:
        """Remove a channel. What it brought stays."""
        return Call(method="DELETE", path=path("v1", "channels", label), answer=nothing)

    @rows
    def changes(
        self,
        *,
        author: str = "",
        action: str = "",
        application: str = "",
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = 100,
        cursor: str = "",
    ) -> Call[Page[Change]]:
        """What was changed of the tenant, by its keys and by the platform team, newest first. ``action`` is a route,
        such as ``PUT /v1/channels/{label}``."""
        return listing_changes("/v1/changes", author, action, application, from_, to, page_size, cursor)
