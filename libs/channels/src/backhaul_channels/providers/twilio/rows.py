"""Rows of Twilio's API, as far as whoever asks for them must read them: whose each is, and of when.

A row stays the bytes that it came as. https://www.twilio.com/docs/messaging/api/message-resource and
https://www.twilio.com/docs/voice/api/call-resource
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

import msgspec

from backhaul_channels.adapter import MalformedError
from backhaul_channels.engines.times import time_microseconds
from backhaul_channels.jsonparts import decode_object
from backhaul_channels.providers.twilio.mapping import FROM_THE_PERSON
from backhaul_channels.providers.twilio.settings import TwilioReconciling
from backhaul_channels.pull import Response, UnreadableAnswerError, answered

MAX_SAID = 300
"""Characters of what Twilio says of an error."""


class Row(msgspec.Struct, frozen=True):
    """A message or a call."""

    sid: str
    sender: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    direction: str | None = None
    messaging_service_sid: str | None = None
    date_created: str | None = None
    date_sent: str | None = None
    start_time: str | None = None


class Scope:
    """What of an account is one channel's."""

    __slots__ = ("_senders", "_services")

    def __init__(self, settings: TwilioReconciling) -> None:
        self._senders = frozenset(settings.senders)
        self._services = frozenset(settings.messaging_services)

    def holds(self, row: Row) -> bool:
        """Whether ``row`` is the channel's."""
        if not self._senders and not self._services:
            return True
        ours = row.to if row.direction in FROM_THE_PERSON else row.sender
        return ours in self._senders or row.messaging_service_sid in self._services


_decode_row = msgspec.json.Decoder(Row).decode
_decode_error = msgspec.json.Decoder(dict[str, Any]).decode


def row_of(record: bytes | msgspec.Raw) -> Row:
    """``record`` as a row. UnreadableAnswerError for what is none."""
    try:
        return _decode_row(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        # A text may end in half of an emoji, which not every decoder takes.
        return msgspec.convert(decode_object(bytes(record)), Row)
    except (MalformedError, msgspec.ValidationError) as error:
        raise UnreadableAnswerError(
            f"Twilio told of something that is neither a message nor a call: {error}"
        ) from error


@lru_cache(4096)
def moment_us(told: str | None) -> int | None:
    """A date of a row in unix microseconds, whichever way it is written; None where there is none, or nonsense. Dates
    are whole seconds, which many rows of a page share."""
    return time_microseconds(told)


def day_of(at_us: int) -> date:
    """The day (UTC) of a moment."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).date()


def checked(response: Response, passed: Iterable[int] = ()) -> Response:
    """``response`` if it answers what was asked, or its status is one of ``passed``; otherwise raises what it means,
    with Twilio's own words."""
    if response.status in passed:
        return response
    return answered(response, said(response) if response.status >= 400 else "")


def said(response: Response) -> str:
    """What Twilio says of an error, and its code; empty where the answer is not Twilio's."""
    content = _error(response)
    message, code = content.get("message"), content.get("code")
    text = message if isinstance(message, str) else ""
    text = "".join(character if character.isprintable() else " " for character in text[:MAX_SAID]).strip()
    return f"{text} ({code})" if isinstance(code, int) else text


def error_code(response: Response) -> int | None:
    """Twilio's code of an error; None where the answer has none."""
    code = _error(response).get("code")
    return code if isinstance(code, int) else None


def _error(response: Response) -> dict[str, Any]:
    # https://www.twilio.com/docs/usage/twilios-response#response-formats-exceptions
    try:
        return _decode_error(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
