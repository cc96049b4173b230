"""``BackhaulError`` as gRPC's richer error model: a google.rpc.Status in the trailing metadata.

Its ErrorInfo carries the code. Its BadRequest carries the fields at fault, one violation each; how to mend the n-th of
them (from 0) stands as ``fix.<n>`` in the ErrorInfo's metadata, since a FieldViolation has no place for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from backhaul_common.errors import CATALOGUE, BackhaulError, Code, Violation

DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "backhaul"

_ENDED_WHILE_SENDING = "Internal error from Core"
"""What grpc.aio puts in place of the status where a request of a stream meets a call that has ended."""

MAX_TEXT_BYTES = 1000
"""UTF-8 bytes of a message that cross. gRPC drops the whole answer when its metadata exceeds 8 KB, and writes a message
twice: once in the status, where a byte takes up to three, and once in the details."""

MAX_FIELD_BYTES = 200
"""UTF-8 bytes of a field's name that cross."""

MAX_VIOLATION_BYTES = 500
"""UTF-8 bytes of what is wrong with a field, and of how to mend it, that cross."""

MAX_VIOLATIONS_BYTES = 2200
"""Bytes of all violations together. Those beyond do not cross; whoever mends the first ones hears of them."""


_AWAY = (Code.UNAVAILABLE, "is away", "Try again later.", 5)
_PASSING: Mapping[grpc.StatusCode, tuple[Code, str, str, float | None]] = {
    grpc.StatusCode.UNAVAILABLE: _AWAY,
    grpc.StatusCode.CANCELLED: _AWAY,
    grpc.StatusCode.DEADLINE_EXCEEDED: (Code.DEADLINE_EXCEEDED, "did not answer in time", "Try again later.", None),
    # While copies are replaced one by one the next try may meet another, and later each of them will do.
    grpc.StatusCode.UNIMPLEMENTED: (
        Code.UNAVAILABLE,
        "is of a version that does not offer this",
        "Try again when all of its copies have been updated.",
        5,
    ),
}
"""What a status says of a service that another try may find otherwise, and after how many seconds."""


def to_details(error: BackhaulError) -> bytes:
    """The serialised google.rpc.Status of ``error``."""
    info = error_details_pb2.ErrorInfo(reason=error.code.value, domain=_DOMAIN)
    if error.retry_after_s is not None:
        info.metadata["retry_after_s"] = str(error.retry_after_s)
    fields = error_details_pb2.BadRequest()
    left = MAX_VIOLATIONS_BYTES
    for number, violation in enumerate(error.violations):
        field = shortened(violation.field, MAX_FIELD_BYTES)
        message = shortened(violation.message, MAX_VIOLATION_BYTES)
        fix = shortened(violation.fix, MAX_VIOLATION_BYTES)
        left -= sum(len(text.encode()) for text in (field, message, fix))
        if left < 0:
            break
        fields.field_violations.add(field=field, description=message)
        info.metadata[f"fix.{number}"] = fix
    status = status_pb2.Status(code=error.meaning.grpc_status.value[0], message=shortened(error.message))
    for detail in (info, fields) if fields.field_violations else (info,):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    serialised: bytes = status.SerializeToString()
    return serialised


def from_rpc(error: grpc.aio.AioRpcError, service: str = "A service") -> BackhaulError:
    """The error that the server raised, or, where it did not come so far, what its status means of ``service``, as
    ``name_of`` has it."""
    for key, value in _pairs(error.trailing_metadata()):
        if key == DETAILS_KEY and isinstance(value, bytes):
            found = _from_details(value)
            if found is not None:
                return found
    return _of_status(error.code(), error.details() or "", service)


def not_offered(error: BackhaulError) -> bool:
    """Whether the server knows no such method: it is of another version than whoever called."""
    cause = error.__cause__
    return isinstance(cause, grpc.aio.AioRpcError) and cause.code() is grpc.StatusCode.UNIMPLEMENTED


def ended_while_sending(error: grpc.aio.AioRpcError) -> bool:
    """Whether the status is not the server's: grpc.aio only says that a request could not be sent any more."""
    return error.code() is grpc.StatusCode.INTERNAL and (error.details() or "").startswith(_ENDED_WHILE_SENDING)


def _of_status(status: grpc.StatusCode, details: str, service: str) -> BackhaulError:
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        # gRPC's own limit on a message's size has the status of a rate limit, yet no later try can succeed.
        return BackhaulError(Code.TOO_LARGE, CATALOGUE[Code.TOO_LARGE].title)
    if status is grpc.StatusCode.INTERNAL and details.startswith(_ENDED_WHILE_SENDING):
        return BackhaulError(Code.UNAVAILABLE, f"{service} ended the call while more was sent to it.", fix="Try again.")
    if (passes := _PASSING.get(status)) is not None:
        code, what, fix, retry_after_s = passes
        return BackhaulError(code, f"{service} {what}.", fix=fix, retry_after_s=retry_after_s)
    for code, meaning in CATALOGUE.items():
        if meaning.grpc_status is status and code is not Code.INTERNAL:
            return BackhaulError(code, details or meaning.title)
    return BackhaulError(Code.INTERNAL, CATALOGUE[Code.INTERNAL].title)


def name_of(method: str) -> str:
    """What an error calls the service of a method: ``Suppression`` of ``/….SuppressionService/Check``."""
    return method.rpartition("/")[0].rpartition(".")[2].removesuffix("Service") or "A service"


def shortened(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """The first ``limit`` bytes of ``text``, whole characters of them; what cannot be UTF-8 is replaced."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - len("…".encode())].decode("utf-8", "ignore") + "…"


def _from_details(value: bytes) -> BackhaulError | None:
    info, fields = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    try:
        status = status_pb2.Status.FromString(value)
        found = any(
            detail.Unpack(info) and info.domain == _DOMAIN and info.reason in tuple(Code) for detail in status.details
        )
        for detail in status.details:
            detail.Unpack(fields)
        retry_after = info.metadata.get("retry_after_s", "")
        retry_after_s = float(retry_after) if retry_after else None
    except (DecodeError, ValueError):
        # Whatever stands between may write this key too; the status still says what happened.
        return None
    if not found:
        return None
    return BackhaulError(
        Code(info.reason),
        status.message,
        retry_after_s=retry_after_s,
        violations=[
            Violation(violation.field, violation.description, info.metadata.get(f"fix.{number}", ""))
            for number, violation in enumerate(fields.field_violations)
        ],
    )


def _pairs(metadata: object) -> Iterable[tuple[str, str | bytes]]:
    return metadata if isinstance(metadata, Iterable) else ()
