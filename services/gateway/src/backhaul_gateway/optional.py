"""Services that an installation may do without: where one is not installed, each call to it says so, and at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from backhaul_common.rpc import Channel
from backhaul_common.service import Service

from backhaul_gateway.web.problems import NotInstalledError


def channel_to(service: Service, target: str, name: str) -> Channel:
    """The channel to the service ``name`` at ``target`` (host:port); one to nowhere, where that is empty."""
    if target:
        return service.channel(target)
    shown = name.capitalize() if name in ("suppression", "audit") else f"The {name}"
    return _Nowhere(shown, f"BACKHAUL_GATEWAY_{name.upper()}_TARGET")


class _Nowhere(Channel):
    """A channel as generated stubs take it, each call over which raises NotInstalledError. It has nothing to close."""

    def __init__(self, service: str, setting: str) -> None:
        self._said = service, setting

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        """One request, one answer."""
        return self._raise

    def stream_unary(self, *_: Any, **__: Any) -> Any:
        """Many requests, one answer."""
        return self._raise

    def unary_stream(self, *_: Any, **__: Any) -> Any:
        """One request, many answers."""
        return self._answers

    def stream_stream(self, *_: Any, **__: Any) -> Any:
        """Many requests, many answers."""
        return self._answers

    async def _raise(self, *_: Any, **__: Any) -> Any:
        raise NotInstalledError(*self._said)

    async def _answers(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        none: tuple[Any, ...] = ()
        for answer in none:
            yield answer  # Makes it what a call with many answers is.
        raise NotInstalledError(*self._said)
