"""``BackhaulError`` as gRPC's richer error model: google.rpc.Status with an ErrorInfo in the trailing metadata."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from backhaul_common.errors import CATALOGUE, BackhaulError, Code

DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "backhaul"

LONGEST_TEXT = 1000
"""Characters of a message, field or fix that cross. gRPC drops the whole answer when its metadata exceeds 8 KB."""


def to_details(error: BackhaulError) -> bytes:
    """The serialised google.rpc.Status of ``error``."""
    info = error_details_pb2.ErrorInfo(
        reason=error.code.value,
        domain=_DOMAIN,
        metadata={
            "field": shortened(error.field),
            "fix": shortened(error.fix),
            **({"retry_after_s": str(error.retry_after_s)} if error.retry_after_s is not None else {}),
        },
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    status: bytes = status_pb2.Status(
        code=error.meaning.grpc_status.value[0], message=shortened(error.message), details=[detail]
    ).SerializeToString()
    return status


def from_rpc(error: grpc.aio.AioRpcError) -> BackhaulError:
    """The error that the server raised, or, where it did not come so far, what its status means."""
    for key, value in _pairs(error.trailing_metadata()):
        if key == DETAILS_KEY and isinstance(value, bytes):
            found = _from_details(value)
            if found is not None:
                return found
    status = error.code()
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or ""):
        # gRPC's own limit on a message's size has the status of a rate limit, yet no later try can succeed.
        return BackhaulError(Code.TOO_LARGE, CATALOGUE[Code.TOO_LARGE].title)
    if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return BackhaulError(Code.UNAVAILABLE, "A service is away.", fix="Try again later.", retry_after_s=5)
    for code, meaning in CATALOGUE.items():
        if meaning.grpc_status is status and code is not Code.INTERNAL:
            return BackhaulError(code, error.details() or meaning.title)
    return BackhaulError(Code.INTERNAL, CATALOGUE[Code.INTERNAL].title)


def shortened(text: str) -> str:
    """``text`` as far as it crosses; what cannot be UTF-8 is replaced."""
    clean = text.encode("utf-8", "replace").decode()
    return clean if len(clean) <= LONGEST_TEXT else f"{clean[: LONGEST_TEXT - 1]}…"


def _from_details(value: bytes) -> BackhaulError | None:
    info = error_details_pb2.ErrorInfo()
    try:
        status = status_pb2.Status.FromString(value)
        found = any(
            detail.Unpack(info) and info.domain == _DOMAIN and info.reason in tuple(Code) for detail in status.details
        )
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
        field=info.metadata.get("field", ""),
        fix=info.metadata.get("fix", ""),
        retry_after_s=retry_after_s,
    )


def _pairs(metadata: object) -> Iterable[tuple[str, str | bytes]]:
    return metadata if isinstance(metadata, Iterable) else ()
