"""What a provider's ``pull.py`` is: how its API is asked for what its callbacks may have failed to tell.

A puller does no I/O. It is handed a transport, which has the connections, paces requests by account and repeats those
that may be repeated; and it knows no clock, since it is told which span of time to ask for. Each call is one page, so
that whoever asks can store what was found before asking for more, and go on there after a crash.

What it finds are records: bytes that ``Adapter.split`` takes as the body of a callback, and ``Adapter.normalize`` reads
with ``Source.BACKFILL``. So a fact that the API tells goes the same way as one that a callback tells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict

from backhaul_channels.settings import ChannelSettings


class PullError(Exception):
    """The provider's API did not tell. The message is for the tenant and holds no credential."""


class CredentialsRefusedError(PullError):
    """The provider refuses the channel's credentials; asking again is of no use before they are changed."""


class LaterError(PullError):
    """The provider is not able to answer now, or was asked too often. ``retry_after_s`` is when it wants to be asked
    again, None where it does not say."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnreadableAnswerError(PullError):
    """The provider answered something that the puller does not understand."""


class Response(msgspec.Struct, frozen=True):
    """What the provider answered. Names of headers are in lower case; the body is decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Asks the provider. It is bound to one account, and follows no redirect."""

    async def get(self, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        """The answer to a GET, whatever its status. LaterError where there is none."""
        ...


class PullCredentials(BaseModel):
    """By what a channel's API is asked, apart from the secrets that verify callbacks. A provider adds the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any]) -> Self:
        """As ``ChannelSettings.of_stored``: what a newer version wrote besides is ignored."""
        return cls.model_validate({name: value for name, value in stored.items() if name in cls.model_fields})


class Span(msgspec.Struct, frozen=True):
    """A span of time by the provider's clock, unix time in microseconds: ``from_us`` inclusive, ``to_us`` exclusive."""

    from_us: int
    to_us: int


class Page(msgspec.Struct, frozen=True):
    """A part of what was asked for. ``cursor``, handed back, leads to the next part; it is empty on the last page."""

    records: Sequence[bytes]
    cursor: str = ""


C = TypeVar("C", bound=PullCredentials)
S = TypeVar("S", bound=ChannelSettings)


class Ask(msgspec.Struct, Generic[C, S], frozen=True):
    """On whose behalf the provider is asked."""

    credentials: C
    settings: S


class Puller(ABC, Generic[C, S]):
    """How one provider's API is asked. ``C`` are its credentials, ``S`` its channels' settings."""

    credentials_model: ClassVar[type[PullCredentials]]

    reaches_back_days: ClassVar[int]
    """How far back the API tells anything."""

    @abstractmethod
    def account(self, credentials: C) -> str:
        """Whose budget of requests ``credentials`` draw upon: equal for all channels, of whichever tenants, that share
        one. It is logged and stored, so that it must be no secret."""

    @abstractmethod
    async def window(self, transport: Transport, ask: Ask[C, S], span: Span, cursor: str = "") -> Page:
        """What the API tells of messages within ``span``; of no others, however coarsely the API counts. Raises
        PullError."""

    @abstractmethod
    async def message(self, transport: Transport, ask: Ask[C, S], message_id: str) -> Page:
        """What the API tells of one message: no record where it knows none of that id. Raises PullError."""


_REFUSED = frozenset({401, 403})
_LATER = frozenset({408, 425, 429})


def answered(response: Response) -> Response:
    """``response`` if it answers what was asked, as a 404 does; otherwise raises the PullError that it means."""
    status = response.status
    if status in _REFUSED:
        raise CredentialsRefusedError(f"The provider refuses the credentials (status {status}).")
    if status in _LATER or status >= 500:
        told = response.headers.get("retry-after", "")
        raise LaterError(f"The provider cannot answer now (status {status}).", float(told) if told.isdigit() else None)
    if status != 404 and not 200 <= status < 300:
        raise UnreadableAnswerError(f"The provider answered with status {status}.")
    return response
