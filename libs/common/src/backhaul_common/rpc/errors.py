"""``BackhaulError`` as gRPC's richer error model: google.rpc.Status with an ErrorInfo in the trailing metadata."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from backhaul_common.errors import CATALOGUE, BackhaulError, Code

DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "backhaul"


def to_details(error: BackhaulError) -> bytes:
    """The serialised google.rpc.Status of ``error``."""
    info = error_details_pb2.ErrorInfo(
        reason=error.code.value,
        domain=_DOMAIN,
        metadata={
            "field": error.field,
            "fix": error.fix,
            **({"retry_after_s": str(error.retry_after_s)} if error.retry_after_s is not None else {}),
        },
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    status: bytes = status_pb2.Status(
        code=error.meaning.grpc_status.value[0], message=error.message, details=[detail]
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
    if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return BackhaulError(Code.UNAVAILABLE, "A service is away.", fix="Try again later.", retry_after_s=5)
    for code, meaning in CATALOGUE.items():
        if meaning.grpc_status is status and code is not Code.INTERNAL:
            return BackhaulError(code, error.details() or meaning.title)
    return BackhaulError(Code.INTERNAL, CATALOGUE[Code.INTERNAL].title)


def _from_details(value: bytes) -> BackhaulError | None:
    status = status_pb2.Status.FromString(value)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == _DOMAIN and info.reason in tuple(Code):
            retry_after = info.metadata.get("retry_after_s", "")
            return BackhaulError(
                Code(info.reason),
                status.message,
                field=info.metadata.get("field", ""),
                fix=info.metadata.get("fix", ""),
                retry_after_s=float(retry_after) if retry_after else None,
            )
    return None


def _pairs(metadata: object) -> Iterable[tuple[str, str | bytes]]:
    return metadata if isinstance(metadata, Iterable) else ()
