"""The addresses that people paste at providers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from backhaul_channels.adapter import Adapter
from backhaul_common.tenants import Channel

PLACEHOLDER = "{ingest_token}"
"""Stands in an address for the ingest token, of which only a hash is kept once it was issued."""


class Addresses:
    """What providers call, by channel. An address with a token in it opens the channel: it belongs in no log."""

    def __init__(self, public_base_url: str, adapters: Mapping[str, Adapter[Any]]) -> None:
        self._base_url = public_base_url
        self._adapters = adapters

    def callback(self, channel: Channel, token: str = PLACEHOLDER) -> str:
        """Where the channel's callbacks are posted, with what the provider wants behind it. Custom parameters go in
        front of the ``#``, where there is one."""
        adapter = self._adapters.get(channel.provider)
        return self._of("api/postevents", channel, token) + (adapter.address_fragment if adapter is not None else "")

    def token(self, channel: Channel, token: str = PLACEHOLDER) -> str | None:
        """Where the provider asks for the access tokens that it shows; None for one that asks for none."""
        adapter = self._adapters.get(channel.provider)
        if adapter is None or type(adapter).issue_token is Adapter.issue_token:
            return None
        return self._of("oauth/token", channel, token)

    def _of(self, path: str, channel: Channel, token: str) -> str:
        return f"{self._base_url}/in/{token}/{path}?channelLabel={quote(channel.label, safe='')}"
