"""``/v1/audits/recount``: what a communication counts, beside its events and what of them lies in files."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from backhaul_common.errors import unavailable
from backhaul_proto.audit.v1 import audit_pb2 as pb
from fastapi import APIRouter, Query, Request, Response

from backhaul_gateway.reads.audits import LINES
from backhaul_gateway.reads.callers import By
from backhaul_gateway.reads.streaming import answers_of, begun, unless_gone
from backhaul_gateway.twins.audits import RECOUNT, AuditRecountOut
from backhaul_gateway.twins.turns import finished
from backhaul_gateway.web.filters import Text
from backhaul_gateway.web.openapi import problems

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub


def _recounted() -> dict[int | str, dict[str, Any]]:
    line = AuditRecountOut.model_json_schema(ref_template="#/components/schemas/{model}")
    # The model itself brings them into the document.
    del line["$defs"]
    return {
        200: {
            "description": "Both were compared, and this was found.",
            "model": AuditRecountOut,
            "content": {LINES: {"schema": line}},
        }
    }


class AuditRecountRoutes:
    """Counts that are compared."""

    def __init__(self, audit: AuditServiceAsyncStub) -> None:
        self._audit = audit

    def add_to(self, router: APIRouter) -> None:
        """Add the route."""
        get = partial(router.add_api_route, methods=["GET"], response_class=Response)
        get("/audits/recount", self.recount, responses={**_recounted(), **problems(404)})

    async def recount(
        self,
        request: Request,
        by: By,
        communication_id: Annotated[
            Text, Query(min_length=1, max_length=512, description="The communication, as events name it.")
        ],
        progress: Annotated[bool, Query(description="Answer JSON Lines while it is counted.")] = False,
    ) -> Response:
        """Compare what a communication counts with its events, and look each of them up in the audit files. It reads
        all of them, so it takes its time: ask for ``progress`` where something on the way gives silent answers up."""
        answers = self._recounted(pb.RecountRequest(tenant_id=by.tenant.id, communication_id=communication_id))
        if progress:
            return await begun(_lines(answers), LINES, watched=request)
        # Nobody reads the answer to a question that was given up.
        return await unless_gone(request, _last(answers)) or Response(status_code=204)

    async def _recounted(self, request: pb.RecountRequest) -> AsyncGenerator[pb.RecountResponse, None]:
        done = False
        async with answers_of(self._audit.Recount(request)) as answers:
            async for answer in answers:
                done = answer.done
                yield answer
        if not done:
            raise unavailable("Audit")


async def _lines(answers: AsyncGenerator[pb.RecountResponse, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(answers):
        async for answer in answers:
            yield finished(RECOUNT.json(answer)) + b"\n"


async def _last(answers: AsyncGenerator[pb.RecountResponse, None]) -> Response:
    last = pb.RecountResponse()
    async with aclosing(answers):
        async for answer in answers:
            last = answer
    return Response(finished(RECOUNT.json(last)), media_type="application/json")
