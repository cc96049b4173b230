"""``/admin/v1/tenants/{id}/suppressions``: what the operator has suppressed, which only the operator lifts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from fastapi import APIRouter, Response

from backhaul_gateway.twins.suppressioncalls import (
    SAY_AGAIN,
    OperatorAddIn,
    OperatorLiftIn,
    in_words_of_http,
)
from backhaul_gateway.twins.suppressions import (
    ADDED,
    KINDS,
    LIFTED,
    STANDINGS,
    SUPPRESSIONS,
    ChangedOut,
    SuppressionPage,
)
from backhaul_gateway.twins.writing import Writer
from backhaul_gateway.web.filters import Cursor, Limit, number_of, one_of
from backhaul_gateway.web.idempotency import IdempotencyKey
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import paged

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.suppression.v1.suppression_pb2_grpc import SuppressionServiceAsyncStub

_AUTHOR = "operator"


class OperatorSuppressionRoutes:
    """What the operator says of a tenant's people."""

    def __init__(self, suppression: SuppressionServiceAsyncStub, writer: Writer) -> None:
        self._suppression = suppression
        self._written = writer.written

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        add = router.add_api_route
        path = "/{tenant_id}/suppressions"
        changes: dict[int | str, dict[str, Any]] = problems(400, 404, 409, 413, 501, 504)
        add(
            path,
            self.list_suppressions,
            methods=["GET"],
            response_model=SuppressionPage,
            responses=problems(404, 501, 504),
        )
        add(
            path,
            self.add,
            methods=["POST"],
            status_code=201,
            response_model=ChangedOut,
            responses={200: {"model": ChangedOut, "description": "It was there already."}, **changes},
        )
        add(f"{path}/lift", self.lift, methods=["POST"], response_model=ChangedOut, responses=changes)

    async def list_suppressions(
        self,
        tenant_id: str,
        kind: Annotated[str, one_of(KINDS)] = "legal",
        standing: Annotated[str, one_of(STANDINGS)] = "",
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """The tenant's suppressions of a kind, the latest change first; of all kinds with an empty one."""
        request = pb.ListRequest(
            tenant_id=tenant_id,
            kind=number_of(KINDS, kind, "kind"),
            standing=number_of(STANDINGS, standing, "standing"),
            page_size=limit,
            page_token=cursor,
        )
        with in_words_of_http(query=True):
            answer = await paged(self._suppression.List(request))
        return await self._written(SUPPRESSIONS, answer)

    async def add(self, tenant_id: str, body: OperatorAddIn, idempotency_key: IdempotencyKey = "") -> Response:
        """Suppress an address, for legal reasons unless the kind says otherwise. 201 where it changed something, 200
        where the address was suppressed so already."""
        with in_words_of_http(unanswered=SAY_AGAIN):
            answer = await self._suppression.Add(body.request(tenant_id, idempotency_key, pb.ACTOR_OPERATOR, _AUTHOR))
        return await self._written(ADDED, answer, 201 if answer.changed else 200)

    async def lift(self, tenant_id: str, body: OperatorLiftIn, idempotency_key: IdempotencyKey = "") -> Response:
        """Lift what the operator may lift: ``legal`` and ``manual``. 409 names the rule of any other kind."""
        with in_words_of_http(unanswered=SAY_AGAIN):
            answer = await self._suppression.Lift(body.request(tenant_id, idempotency_key, pb.ACTOR_OPERATOR, _AUTHOR))
        return await self._written(LIFTED, answer)
