"""What is asked of the door, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final, Literal

import msgspec

MAX_ANSWER_BYTES: Final = 4096
"""How much of an answer's body is read and kept."""

OWN_HEADERS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that say how a request travels. The door alone writes them, so that nobody can smuggle a second request."""

STOOD_STILL: Final = "Backhaul stood still, and another copy of it may have made the attempt meanwhile."

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_UNSEEN: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Failure(StrEnum):
    """Why there is no whole answer."""

    REQUEST_INVALID = "request_invalid"
    """The URL, a header or a certificate cannot be used."""
    URL_REFUSED = "url_refused"
    """Settings allow neither the scheme nor the port, or one of them."""
    DNS_FAILED = "dns_failed"
    ADDRESS_REFUSED = "address_refused"
    CONNECT_FAILED = "connect_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS_FAILED = "tls_failed"
    TIMEOUT = "timeout"
    """Connected, and no whole answer in time."""
    RESET = "reset"
    """The endpoint ended the connection before its answer was whole."""
    PROTOCOL_ERROR = "protocol_error"
    """The answer is no HTTP, or contradicts itself."""
    HEADERS_TOO_LARGE = "headers_too_large"
    PROXY_FAILED = "proxy_failed"
    NO_ROOM = "no_room"
    """This process had no connection to give, or no time."""

    @property
    def endpoints(self) -> bool:
        """Whether it tells something of the endpoint. The others are no reason to think ill of it."""
        return self not in (Failure.PROXY_FAILED, Failure.NO_ROOM)


class DoorError(Exception):
    """An attempt that failed, and how it is told."""

    def __init__(self, failure: Failure, sentence: str) -> None:
        super().__init__(sentence)
        self.failure = failure
        self.sentence = sentence


class RequestError(DoorError):
    """A request cannot be sent as it is; the sentence says why and repeats no value."""

    def __init__(self, sentence: str) -> None:
        super().__init__(Failure.REQUEST_INVALID, sentence)


@dataclass(frozen=True, slots=True)
class Tls:
    """``certificate`` (a chain) and ``key`` are shown to the endpoint, ``authority`` is trusted in place of the usual
    ones. All are PEM; empty: none."""

    certificate: str = ""
    key: str = field(default="", repr=False)
    authority: str = ""


class Request(msgspec.Struct, frozen=True):
    """``timeout_s`` is for all of it, from looking up the name to the answer's last byte."""

    method: Literal["GET", "POST"]
    url: str
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    timeout_s: float = 10.0
    tls: Tls | None = None
    answer_bytes: int = MAX_ANSWER_BYTES
    """How much of the answer's body is wanted."""
    of: str = ""
    """For whom it is sent. Connections are kept for one alone: an endpoint may answer late, or twice, and what comes in
    between is read as the answer to what was sent next."""
    may_send: Callable[[], bool] = lambda: True
    """Asked when there is a connection, right before anything is sent on it: the process may have stood still."""

    def __repr__(self) -> str:
        # The others hold what an endpoint is shown.
        return f"Request(method={self.method!r}, timeout_s={self.timeout_s})"


class Outcome(msgspec.Struct, frozen=True):
    """Either ``failure`` is None, and ``status`` and ``answer`` are what the endpoint answered, or it says what went
    wrong and ``sentence`` says it in words, without anything of the URL but its host. ``status`` is then what had come
    already, if anything."""

    duration_ms: float
    status: int | None = None
    answer: str = ""
    """At most as much as was wanted, in UTF-8, without control characters but line breaks and tabs."""
    retry_after_s: float | None = None
    failure: Failure | None = None
    sentence: str = ""


def require_headers(headers: Mapping[str, str]) -> None:
    """Raises RequestError where a header cannot be sent, or is the door's own to write."""
    for name, value in headers.items():
        _require_name(name)
        if not _VALUE.fullmatch(value) or value != value.strip(" \t"):
            raise RequestError(f"The value of the header {name.lower()} holds what no value may, such as a line break.")


@lru_cache(maxsize=1024)
def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RequestError("A header's name is empty or holds what no name may.")
    if name.lower() in OWN_HEADERS:
        raise RequestError(f"The header {name.lower()} says how a request travels and cannot be chosen.")


def readable(body: bytes, encoding: str, most: int = MAX_ANSWER_BYTES) -> str:
    """What of an answer's body can be shown."""
    if encoding.strip().lower() not in ("", "identity"):
        # Whoever inflates what others send inflates what they like.
        return "(compressed, though not asked for: not shown)"
    text = _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", body.decode("utf-8", "replace"))
    # What stands for a byte that is no text is longer than the byte.
    return text.encode()[:most].decode("utf-8", "ignore")


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """The seconds that a Retry-After header asks to wait, given as such or as a date; None where it says nothing."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:10])
    try:
        at = parsedate_to_datetime(value[:64])
    except (ValueError, OverflowError):
        # The second one is of a year or an offset that no clock has.
        return None
    return max(0.0, at.replace(tzinfo=at.tzinfo or UTC).timestamp() - now_s)
