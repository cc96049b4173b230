"""One typed error for the whole system, and what each code means on every edge.

Services raise ``BackhaulError``; the gRPC and HTTP edges translate it by ``CATALOGUE`` and nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import grpc


class Code(StrEnum):
    """What kind of failure it is; stable, and part of the public contract."""

    INVALID_ARGUMENT = "invalid_argument"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    FAILED_PRECONDITION = "failed_precondition"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Meaning:
    """How a code shows on each edge, and whether the same request may succeed later."""

    grpc_status: grpc.StatusCode
    http_status: int
    retryable: bool
    title: str


CATALOGUE: Mapping[Code, Meaning] = {
    Code.INVALID_ARGUMENT: Meaning(grpc.StatusCode.INVALID_ARGUMENT, 422, False, "The request is not valid"),
    Code.UNAUTHENTICATED: Meaning(grpc.StatusCode.UNAUTHENTICATED, 401, False, "The credential is missing or wrong"),
    Code.FORBIDDEN: Meaning(grpc.StatusCode.PERMISSION_DENIED, 403, False, "The request is refused"),
    Code.NOT_FOUND: Meaning(grpc.StatusCode.NOT_FOUND, 404, False, "There is no such thing"),
    Code.CONFLICT: Meaning(grpc.StatusCode.ALREADY_EXISTS, 409, False, "It is taken already"),
    Code.FAILED_PRECONDITION: Meaning(grpc.StatusCode.FAILED_PRECONDITION, 409, False, "The state does not allow it"),
    Code.TOO_LARGE: Meaning(grpc.StatusCode.OUT_OF_RANGE, 413, False, "The request is too large"),
    Code.RATE_LIMITED: Meaning(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, True, "Too many requests"),
    Code.UNAVAILABLE: Meaning(grpc.StatusCode.UNAVAILABLE, 503, True, "A part of the system is away"),
    Code.DEADLINE_EXCEEDED: Meaning(grpc.StatusCode.DEADLINE_EXCEEDED, 504, True, "It took too long"),
    Code.INTERNAL: Meaning(grpc.StatusCode.INTERNAL, 500, False, "Something unexpected happened"),
}


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with one field of a request.

    ``field`` is a JSON path, a query parameter or a header; empty where none is at fault. ``fix`` says what to do.
    """

    field: str
    message: str
    fix: str = ""


class BackhaulError(Exception):
    """A failure that somebody outside may be told of.

    ``message`` says what is wrong. ``violations`` name each field at fault; where only one is, ``field`` and ``fix``
    stand for it. ``retry_after_s`` is a hint for retryable codes.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        field: str = "",
        fix: str = "",
        retry_after_s: float | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.violations = tuple(violations) or ((Violation(field, message, fix),) if field or fix else ())

    @property
    def field(self) -> str:
        """The first field at fault; empty where none is."""
        return self.violations[0].field if self.violations else ""

    @property
    def fix(self) -> str:
        """What to do about the first field at fault; empty where nothing is known to help."""
        return self.violations[0].fix if self.violations else ""

    @property
    def meaning(self) -> Meaning:
        """The catalogue's entry of this error's code."""
        return CATALOGUE[self.code]

    def __str__(self) -> str:
        return " ".join(
            part for part in (f"{self.code}:", self.field and f"{self.field}:", self.message, self.fix) if part
        )


def unavailable(what: str, *, retry_after_s: float = 5.0) -> BackhaulError:
    """The error for a dependency that is away for now."""
    return BackhaulError(
        Code.UNAVAILABLE, f"{what} is away or too slow.", fix="Try again later.", retry_after_s=retry_after_s
    )


def internal() -> BackhaulError:
    """The error for what was not expected: nobody outside is told more than that it happened."""
    return BackhaulError(Code.INTERNAL, CATALOGUE[Code.INTERNAL].title)
