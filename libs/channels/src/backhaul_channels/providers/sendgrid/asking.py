"""How SendGrid's API is asked, and what its answers mean where they are none. Shared by both parts of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final

import msgspec
from pydantic import Field

from backhaul_channels.adapter import MalformedError
from backhaul_channels.jsonparts import decode_object, split_json
from backhaul_channels.providers.sendgrid.settings import SendGridSettings
from backhaul_channels.pull import (
    Ask,
    CredentialsRefusedError,
    LaterError,
    PullCredentials,
    PullError,
    Response,
    TooOftenError,
    Transport,
    UnreadableAnswerError,
    answered,
)
from backhaul_channels.values import text_of

# https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api
ORIGINS: Final[Mapping[str, str]] = {"global": "https://api.sendgrid.com", "eu": "https://api.eu.sendgrid.com"}

_MAX_TOLD = 200
_MAX_WAIT_S = 3_600.0


class SendGridCredentials(PullCredentials):
    """An API key that may read suppressions, and Email Activity where the account has it."""

    api_key: str = Field(min_length=20, max_length=200, pattern="^[!-~]+$")
    subuser: str = Field(
        default="",
        max_length=128,
        pattern="^([!-~]([ -~]*[!-~])?)?$",
        description="The subuser that the key's account is asked on behalf of.",
    )

    public: ClassVar[frozenset[str]] = frozenset({"subuser"})


SendGridAsk = Ask[SendGridCredentials, SendGridSettings]


async def asked(transport: Transport, ask: SendGridAsk, path: str, params: Mapping[str, str]) -> Response:
    """The answer to a GET of ``path``, whatever its status."""
    # The list of bounces demands to be told which format is wanted.
    headers = {"authorization": f"Bearer {ask.credentials.api_key}", "accept": "application/json"}
    if ask.credentials.subuser:
        headers["on-behalf-of"] = ask.credentials.subuser
    return await transport.get(f"{ORIGINS[ask.settings.region]}/v3/{path}", params, headers)


def checked(response: Response, ask: SendGridAsk) -> Response:
    """``answered``, with what SendGrid says of it, and with the time that it wants to be left alone for."""
    try:
        return answered(response)
    except PullError as error:
        told = f"{error}{said(response, ask)}"
        if isinstance(error, LaterError):
            wait_s = error.retry_after_s
            if wait_s is None and isinstance(error, TooOftenError):
                wait_s = _until_reset_s(response.headers)
            raise type(error)(told, wait_s) from None
        if isinstance(error, CredentialsRefusedError) and response.status == 403:
            told += " The API key must be allowed to read suppressions, and a subuser must be the account's."
        raise type(error)(told) from None


def errors(response: Response) -> list[str]:
    """The messages of SendGrid's errors in an answer; none where it is not SendGrid's."""
    try:
        told = decode_object(response.body).get("errors")
    except MalformedError:
        return []
    return [text_of(one.get("message")) for one in told if isinstance(one, dict)] if isinstance(told, list) else []


def said(response: Response, ask: SendGridAsk) -> str:
    """What SendGrid says in an answer that is an error, for people; empty where it says nothing."""
    text = "; ".join(filter(None, errors(response))).replace(ask.credentials.api_key, "…")[:_MAX_TOLD]
    return f' It says: "{text}".' if text else ""


def rows_of(body: bytes) -> list[bytes]:
    """The rows of an answer that is an array, each verbatim. Raises UnreadableAnswerError."""
    try:
        raws: Sequence[bytes] = [bytes(raw) for raw in _decode_raws(body)]
    except (msgspec.DecodeError, RecursionError):
        raws = _cut(body)
    return list(raws)


def object_of(body: bytes) -> dict[str, Any]:
    """An answer, or a row of one, that is an object. Raises UnreadableAnswerError."""
    try:
        return decode_object(body)
    except MalformedError as error:
        raise UnreadableAnswerError(f"SendGrid answered what cannot be read: {error}") from None


def _cut(body: bytes) -> list[bytes]:
    try:
        if body.lstrip()[:1] == b"[":
            return split_json(body)
    except MalformedError:
        pass
    raise UnreadableAnswerError("SendGrid answered what is no JSON array.")


def _until_reset_s(headers: Mapping[str, str]) -> float | None:
    """For how long the period goes on in which nothing more is answered, by SendGrid's own clock."""
    reset = headers.get("x-ratelimit-reset", "").strip()
    if not (reset.isascii() and reset.isdigit()):
        return None
    try:
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(int(reset[:18]) - now, 0.0), _MAX_WAIT_S)


_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
