"""What a call can raise. Every error is a ``BackhaulError``; none of them holds a credential."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

import httpx
import msgspec

_SHOWN_CHARACTERS = 200


class BackhaulError(Exception):
    """Whatever went wrong with a call."""


class UnreachableError(BackhaulError):
    """No answer came: no connection, or none in time. Whether the request was carried out is not known."""


class BrokenOffError(UnreachableError):
    """The answer began, and ended before its end. A file of which this comes again and again may be shorter than it
    was."""


class UnexpectedAnswerError(BackhaulError):
    """The answer is not one of this API. Something else may be listening at the address."""


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request, and how to mend it. ``field`` is empty where it is about none."""

    field: str = ""
    message: str = ""
    fix: str = ""


class _Document(msgspec.Struct):
    """A problem document (RFC 9457)."""

    code: str
    title: str = ""
    detail: str = ""
    errors: tuple[FieldError, ...] = ()
    trace_id: str = ""


class ProblemError(BackhaulError):
    """The request was refused or failed.

    ``code`` is stable, and decides the class. ``errors`` name each field at fault; ``field`` and ``fix`` are those of
    the first. ``retry_after_s`` is set where the same request may succeed later. ``trace_id`` finds the request in the
    service's logs and traces.
    """

    codes: ClassVar[Mapping[str, type[ProblemError]]] = {}
    statuses: ClassVar[Mapping[int, type[ProblemError]]] = {}

    def __init__(
        self,
        *,
        status: int,
        code: str,
        detail: str,
        errors: tuple[FieldError, ...] = (),
        retry_after_s: float | None = None,
        trace_id: str = "",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s
        self.trace_id = trace_id

    @property
    def field(self) -> str:
        """The first field at fault; empty where it is about none."""
        return self.errors[0].field if self.errors else ""

    @property
    def fix(self) -> str:
        """How to mend the first field at fault."""
        return self.errors[0].fix if self.errors else ""

    def __str__(self) -> str:
        about = f" ({self.field})" if self.field else ""
        traced = f" [trace {self.trace_id}]" if self.trace_id else ""
        # The detail may speak of the request as a whole, and the fix of what the field's message says.
        message = self.errors[0].message if self.errors else ""
        if message == self.detail:
            message = ""
        said = (f"{self.status} {self.code}{about}:", self.detail, message, self.fix)
        return " ".join(part for part in said if part) + traced


class InvalidArgumentError(ProblemError):
    """The request is not valid; ``errors`` say where."""


class UnauthenticatedError(ProblemError):
    """The credential is missing or wrong."""


class ForbiddenError(ProblemError):
    """The request is refused; the tenant may be suspended."""


class NotFoundError(ProblemError):
    """There is no such thing, or not yet: a callback is readable some milliseconds after its 200."""


class ConflictError(ProblemError):
    """It is taken already."""


class FailedPreconditionError(ProblemError):
    """The state does not allow it, or an id leads to several messages."""


class TooLargeError(ProblemError):
    """The request is too large."""


class RateLimitedError(ProblemError):
    """Too many requests; nothing was done."""


class UnavailableError(ProblemError):
    """A part of the system is away."""


class DeadlineExceededError(ProblemError):
    """It took too long."""


class InternalError(ProblemError):
    """Something unexpected happened; tell the platform team the ``trace_id``."""


# The code decides. Where there is none, something before the gateway (a proxy) has answered, and the status decides.
ProblemError.codes = {
    "invalid_argument": InvalidArgumentError,
    "unauthenticated": UnauthenticatedError,
    "forbidden": ForbiddenError,
    "not_found": NotFoundError,
    "conflict": ConflictError,
    "failed_precondition": FailedPreconditionError,
    "too_large": TooLargeError,
    "rate_limited": RateLimitedError,
    "unavailable": UnavailableError,
    "deadline_exceeded": DeadlineExceededError,
    "internal": InternalError,
}
ProblemError.statuses = {
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    413: TooLargeError,
    429: RateLimitedError,
    502: UnavailableError,
    503: UnavailableError,
    504: DeadlineExceededError,
}


def problem_of(response: httpx.Response) -> ProblemError:
    """The error that an answer of 400 or more stands for."""
    known: dict[str, Any] = {"status": response.status_code, "retry_after_s": _retry_after_s(response)}
    try:
        document = msgspec.json.decode(response.content, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError):
        kind = ProblemError.statuses.get(response.status_code, ProblemError)
        return kind(**known, code="", detail=response.text[:_SHOWN_CHARACTERS])
    return ProblemError.codes.get(document.code, ProblemError)(
        **known,
        code=document.code,
        detail=document.detail or document.title,
        errors=document.errors,
        trace_id=document.trace_id,
    )


def problem_named(code: str, detail: str) -> ProblemError:
    """The error that a service names in the middle of an answer."""
    return ProblemError.codes.get(code, ProblemError)(status=200, code=code, detail=detail)


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds of Retry-After, which is a number or a date; None without one that can be read."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())
