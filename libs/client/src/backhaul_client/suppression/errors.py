"""What a call to suppression can raise, beside the errors that every call of this library has.

The service sends a google.rpc.Status in the trailing metadata. Its ErrorInfo carries the code, its BadRequest the
fields at fault; how to mend the n-th of them stands as ``fix.<n>`` in the ErrorInfo's metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from backhaul_client.errors import (
    BackhaulError,
    ConflictError,
    FailedPreconditionError,
    FieldError,
    ForbiddenError,
    InvalidArgumentError,
    NotFoundError,
    ProblemError,
    RateLimitedError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
)

if TYPE_CHECKING:
    from backhaul_client.suppression.models import Answer

_DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "backhaul"
_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: (422, "invalid_argument"),
    grpc.StatusCode.UNAUTHENTICATED: (401, "unauthenticated"),
    grpc.StatusCode.PERMISSION_DENIED: (403, "forbidden"),
    grpc.StatusCode.NOT_FOUND: (404, "not_found"),
    grpc.StatusCode.ALREADY_EXISTS: (409, "conflict"),
    grpc.StatusCode.FAILED_PRECONDITION: (409, "failed_precondition"),
    grpc.StatusCode.OUT_OF_RANGE: (413, "too_large"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (429, "rate_limited"),
    grpc.StatusCode.UNAVAILABLE: (503, "unavailable"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (504, "deadline_exceeded"),
    grpc.StatusCode.INTERNAL: (500, "internal"),
}
"""What each status has over HTTP, which is the ``status`` of a ``ProblemError`` here too."""

_ENDED_WHILE_SENDING = "Internal error from Core"
_CLOSED = ("Socket closed", "Connection reset")
"""What gRPC says where the other side hung up on a greeting that it does not know, or without having read it."""
_PERHAPS_TLS = ". If it asks for TLS or a certificate, pass tls=Tls(…)."
_NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
_WRONG = (
    InvalidArgumentError,
    UnauthenticatedError,
    ForbiddenError,
    NotFoundError,
    ConflictError,
    FailedPreconditionError,
    TooLargeError,
    UnexpectedAnswerError,
)


class SuppressedError(BackhaulError):
    """The person must not be contacted; ``answer.blocking`` says why."""

    def __init__(self, answer: Answer) -> None:
        # Without the address: errors end up in logs.
        why = ", ".join(f"{row.kind} since {row.since.isoformat()}" for row in answer.blocking)
        super().__init__(f"Suppressed: {why or 'no reason is known'}.")
        self.answer = answer


class SuppressionUnavailableError(BackhaulError):
    """Nobody could say whether the person may be contacted: take it for "no". ``__cause__`` is what went wrong."""


def may_pass(error: BackhaulError) -> bool:
    """Whether nobody is to blame who asked: the same question may be answered later."""
    return not isinstance(error, _WRONG)


def repeatable(error: BackhaulError) -> bool:
    """Whether another try, of a call that may be repeated, makes sense within the same deadline."""
    return isinstance(error, UnreachableError | UnavailableError | RateLimitedError)


def invalid(field: str, message: str, fix: str) -> InvalidArgumentError:
    """The error of one item that is wrong."""
    return InvalidArgumentError(
        status=422, code="invalid_argument", detail=message, errors=(FieldError(field, message, fix),)
    )


def error_of(failure: grpc.aio.AioRpcError, method: str, trace_id: str = "") -> BackhaulError:
    """The error that the service sent, or, where none came, what the status means."""
    status, text = failure.code(), failure.details() or ""
    for key, value in failure.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            found = _sent(value, status, trace_id)
            if found is not None:
                return found
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        # gRPC's own limit on a message's size has the status of a rate limit, yet no later try can succeed.
        return TooLargeError(status=413, code="too_large", detail="The request or the answer is too large.")
    # The second is what gRPC says to whoever was sending when the call ended: the reason is lost.
    if status in _NO_ANSWER or text == _ENDED_WHILE_SENDING:
        way_out = _PERHAPS_TLS if any(closed in text for closed in _CLOSED) else ""
        return UnreachableError(f"{method}: {status.name}: {text}{way_out}")
    if status not in _STATUSES:
        return UnexpectedAnswerError(f"{method}: {status.name}: {text}")
    number, code = _STATUSES[status]
    return ProblemError.codes[code](status=number, code=code, detail=text, trace_id=trace_id)


def _sent(value: bytes, status: grpc.StatusCode, trace_id: str) -> ProblemError | None:
    info: Any = error_details_pb2.ErrorInfo()
    fields: Any = error_details_pb2.BadRequest()
    try:
        sent = status_pb2.Status.FromString(value)
        found = any(detail.Unpack(info) and info.domain == _DOMAIN for detail in sent.details)
        for detail in sent.details:
            detail.Unpack(fields)
        retry_after_s = float(info.metadata["retry_after_s"]) if "retry_after_s" in info.metadata else None
    except (DecodeError, ValueError):
        # Whatever stands between may write this key too; the status still says what happened.
        return None
    if not found:
        return None
    return ProblemError.codes.get(info.reason, ProblemError)(
        status=_STATUSES.get(status, (500, ""))[0],
        code=info.reason,
        detail=sent.message,
        errors=tuple(
            FieldError(violation.field, violation.description, info.metadata.get(f"fix.{number}", ""))
            for number, violation in enumerate(fields.field_violations)
        ),
        retry_after_s=retry_after_s,
        trace_id=trace_id,
    )
