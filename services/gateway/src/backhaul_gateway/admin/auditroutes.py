"""``/admin/v1/audit-keys``: the keys that digests of audit files are signed with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backhaul_proto.audit.v1 import audit_pb2 as pb
from fastapi import APIRouter, Response

from backhaul_gateway.twins.audits import KEY, AuditKeyOut
from backhaul_gateway.twins.writing import Writer
from backhaul_gateway.web.openapi import problems

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub


class AuditKeyRoutes:
    """The platform team's side of keys."""

    def __init__(self, audit: AuditServiceAsyncStub, writer: Writer, made: Callable[[], None]) -> None:
        """``made`` is called when there is a new key."""
        self._audit = audit
        self._made = made
        self._written = writer.written

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        router.add_api_route(
            "/rotate",
            self.rotate,
            methods=["POST"],
            status_code=201,
            response_model=AuditKeyOut,
            responses=problems(501, 504),
        )

    async def rotate(self) -> Response:
        """Make a new key, which signs digests from now on. The old ones are published for ever. Where no answer comes,
        ask again: one key too many does no harm."""
        answer = await self._audit.RotateKey(pb.RotateKeyRequest())
        self._made()
        return await self._written(KEY, answer.key, 201)
