"""``/.well-known/backhaul-audit-keys``: the public keys of digests, for everybody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from backhaul_common.errors import BackhaulError
from backhaul_proto.audit.v1 import audit_pb2 as pb
from fastapi import APIRouter, Response

from backhaul_gateway.twins.audits import KEYS, AuditKeysOut
from backhaul_gateway.twins.writing import Writer
from backhaul_gateway.web.openapi import problems

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub

PATH = "/.well-known/backhaul-audit-keys"

KEPT_S = 10.0
"""For how long keys are answered from memory: anybody may ask, as often as they like. So long, at most, a new one that
was made elsewhere is not told of."""

REFUSED_S = 1.0
"""For how long audit is not asked again that did not answer."""


class AuditKeyRoute:
    """Answers with what audit said last. Keys are never taken back, so that what was once said stays true; while audit
    is away it is said on."""

    def __init__(self, audit: AuditServiceAsyncStub, writer: Writer, clock: Callable[[], float]) -> None:
        self._audit = audit
        self._writer = writer
        self._clock = clock
        self._body: bytes | None = None
        self._error: BackhaulError | None = None
        self._ask_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    def router(self) -> APIRouter:
        """The one route."""
        router = APIRouter(tags=["operations"])
        router.add_api_route(
            PATH,
            self.keys,
            methods=["GET"],
            response_model=AuditKeysOut,
            responses=problems(501, 503, 504),
            summary="The public keys of digests",
        )
        return router

    def outdated(self) -> None:
        """There is a key that was not told of yet."""
        self._asking = None
        self._ask_at = 0.0

    async def keys(self) -> Response:
        """Every public key that digests of audit files were ever signed with. Asks for no credential."""
        if self._asking is None and self._clock() >= self._ask_at:
            self._asking = asyncio.create_task(self._ask(), name="audit_keys")
        # Those who come meanwhile share one question.
        if self._asking is not None:
            await asyncio.shield(self._asking)
        if self._body is None:
            assert self._error is not None  # noqa: S101  # audit was asked, and has answered or not
            raise self._error
        headers = {"cache-control": f"public, max-age={KEPT_S:.0f}"}
        return Response(self._body, headers=headers, media_type="application/json")

    async def _ask(self) -> None:
        asking = asyncio.current_task()
        kept_s = KEPT_S
        try:
            answer = await self._audit.ListKeys(pb.ListKeysRequest())
            body = await self._writer.run(KEYS.json(answer))
            # What was asked before a key was made may lack it, and come after what was asked then.
            if self._asking is asking or self._body is None:
                self._body = body
        except BackhaulError as exc:
            self._error, kept_s = exc, REFUSED_S
        finally:
            if self._asking is asking:
                self._asking = None
                self._ask_at = self._clock() + kept_s
