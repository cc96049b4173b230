"""What a provider's ``pull.py`` is: how its API is asked for what its callbacks may have failed to tell.

A puller does no I/O. It is handed a transport, which has the connections and paces requests by account; and it knows no
clock, since it is told which span of time to ask for. Each call is one page, so that whoever asks can store what was
found before asking for more, and go on there after a crash.

What it finds are records: bytes that ``Adapter.split`` takes as the body of a callback, and ``Adapter.normalize`` reads
with ``Source.BACKFILL``. So a fact that the API tells goes the same way as one that a callback tells.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar
from urllib.parse import urlsplit

import msgspec
from pydantic import BaseModel, ConfigDict

from backhaul_channels.settings import ChannelSettings


class PullError(Exception):
    """The provider's API did not tell. The message is for the tenant and holds no credential."""


class CredentialsRefusedError(PullError):
    """The provider refuses the channel's credentials; asking again is of no use before they are changed."""


class LaterError(PullError):
    """The provider is not able to answer now. ``retry_after_s`` is when it wants to be asked again, None where it does
    not say."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooOftenError(LaterError):
    """The provider was asked too often, or for too much at once (429): nothing was done, and less is asked from now
    on."""


class NeverError(PullError):
    """The provider will not tell, whoever asks and whenever: the span is further back than it reaches, or the account
    lacks what it takes. The message says what, and what the tenant can do about it."""


class UnreadableAnswerError(PullError):
    """The provider answered something that the puller does not understand."""


class Response(msgspec.Struct, frozen=True):
    """What the provider answered. Names of headers are in lower case; the body is decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Asks the provider. It is bound to one account and one of its budgets, and follows no redirect."""

    async def get(self, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        """The answer to a GET, whatever its status. LaterError where there is none; UnreadableAnswerError where it is
        larger than any answer should be."""
        ...

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        """The answer to a POST of a form, as ``get``. It is not repeated."""
        ...

    async def lines(self, url: str, headers: Mapping[str, str], skip: int, most: int) -> tuple[Sequence[bytes], bool]:
        """Lines of a file that is compressed with gzip: ``most`` at most, fewer where they are long, without the first
        ``skip``; and whether there are more. It is read as a stream. LaterError, UnreadableAnswerError; any status but
        200 as ``answered``, and UnreadableAnswerError for a 404, which here answers nothing."""
        ...


class PullCredentials(BaseModel):
    """By what a channel's API is asked, apart from the secrets that verify callbacks. A provider adds the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    public: ClassVar[frozenset[str]] = frozenset()
    """Fields that are no secrets, such as the account's id, and may stand in addresses and logs."""

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any]) -> Self:
        """As ``ChannelSettings.of_stored``: what a newer version wrote besides is ignored."""
        return cls.model_validate({name: value for name, value in stored.items() if name in cls.model_fields})


class Span(msgspec.Struct, frozen=True):
    """A span of time by the provider's clock, unix time in microseconds: ``from_us`` inclusive, ``to_us`` exclusive."""

    from_us: int
    to_us: int


class Page(msgspec.Struct, frozen=True):
    """A part of what was asked for. ``cursor``, handed back, leads to the next part; it is empty on the last page.

    The cursor is stored, and is no secret. ``wait_s`` is how long the provider needs before the next part is there.
    """

    records: Sequence[bytes]
    cursor: str = ""
    wait_s: float = 0.0


class Budget(msgspec.Struct, frozen=True):
    """How much one account may be asked: so many requests in any minute, None for any number, and so many at once.

    Where answers tell by a header how many requests of the account are under way, those of whoever else uses it
    included, ``busy_header`` is its name, in lower case. ``at_once`` then fills that number up to ``busy_at`` and no
    further, but is one at least: what the tenant's own programs ask comes first.
    """

    per_minute: int | None = None
    at_once: int = 1
    busy_header: str = ""
    busy_at: int = 0


class Listing(msgspec.Struct, frozen=True):
    """One of the lists that an API has, as one channel is asked for it.

    ``budget`` names the budget that its pages draw upon. A ``whole`` list has one record for each message of a span,
    with its state, so that a day can be held against it: days are, unless another whole list is better for that
    (``closes``). ``rows`` is how many a page has at most. What happened may be told up to ``settles_s`` later, so that
    much of a span is asked for once more. ``waits_s`` is how old its records must be before they are believed to be
    missing: a list whose rows carry no message's id would otherwise say again what a callback is about to say. One that
    does not discover anything (``discovers``) is asked for the days that are to be closed only, since it is made when a
    day is over; of a day that stays open it is asked for once a day at most.
    """

    name: str
    budget: str
    whole: bool = False
    rows: int = 1_000
    settles_s: int = 900
    waits_s: int = 0
    discovers: bool = True
    closes: bool = True


C = TypeVar("C", bound=PullCredentials)
S = TypeVar("S", bound=ChannelSettings)


class Ask(msgspec.Struct, Generic[C, S], frozen=True):
    """On whose behalf the provider is asked."""

    credentials: C
    settings: S


class Puller(ABC, Generic[C, S]):
    """How one provider's API is asked. ``C`` are its credentials, ``S`` its channels' settings."""

    credentials_model: ClassVar[type[PullCredentials]]

    origins: ClassVar[frozenset[str]]
    """Scheme and host of every address that it asks ("https://api.twilio.com"). Others are not connected to. The first
    label of a host may be ``*``, for any one label: ``is_among`` compares."""

    budgets: ClassVar[Mapping[str, Budget]]
    """What an account allows, by names that ``Listing.budget`` and ``message_budget`` use."""

    message_budget: ClassVar[str]
    """On which ``message`` draws."""

    reaches_back_days: ClassVar[int]
    """How far back the API tells anything."""

    @abstractmethod
    def account(self, credentials: C) -> str:
        """Whose budgets ``credentials`` draw upon: equal for all channels, of whichever tenants, that share one. It is
        logged and stored, so that it must be no secret."""

    @abstractmethod
    def listings(self, settings: S) -> Sequence[Listing]:
        """The lists that a channel with these settings is asked for; those whose records matter most come first."""

    @abstractmethod
    async def window(self, transport: Transport, ask: Ask[C, S], listing: str, span: Span, cursor: str = "") -> Page:
        """What ``listing`` tells of messages within ``span``; of no others, however coarsely the API counts, and of no
        sender that the channel does not name. Raises PullError."""

    @abstractmethod
    async def message(self, transport: Transport, ask: Ask[C, S], message_id: str) -> Page:
        """What the API tells of one message: no record where it knows none of that id. Raises PullError."""


_REFUSED = frozenset({401, 403})
_LATER = frozenset({408, 425, 429})
_MAX_TOLD = 64
_LABEL = re.compile(r"[a-z0-9-]+")


def answered(response: Response, said: str = "") -> Response:
    """``response`` if it answers what was asked, as a 404 does; otherwise raises the PullError that it means, with what
    the provider ``said`` of it."""
    status = response.status
    words = f" It says: {said}" if said else ""
    if status in _REFUSED:
        raise CredentialsRefusedError(f"The provider refuses the credentials (status {status}).{words}")
    if status in _LATER or status >= 500:
        error = TooOftenError if status == 429 else LaterError
        raise error(f"The provider cannot answer now (status {status}).{words}", _retry_after_s(response.headers))
    if status != 404 and not 200 <= status < 300:
        raise UnreadableAnswerError(f"The provider answered with status {status}.{words}")
    return response


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """When the provider wants to be asked again: in so many seconds, or at a time by its own clock."""
    told = headers.get("retry-after", "").strip()[:_MAX_TOLD]
    if told.isascii() and told.isdecimal():
        return float(told)
    try:
        rest = parsedate_to_datetime(told) - parsedate_to_datetime(headers.get("date", "")[:_MAX_TOLD])
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return max(0.0, rest.total_seconds())


def is_among(url: str, origins: Set[str]) -> bool:
    """Whether ``url`` is of one of ``origins``, as ``Puller.origins`` has them. One that names a user is of none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    place = parts.netloc.lower()
    label, _, rest = place.partition(".")
    if _LABEL.fullmatch(label) is None:
        return False
    return not origins.isdisjoint({f"{parts.scheme}://{place}", f"{parts.scheme}://*.{rest}"})
