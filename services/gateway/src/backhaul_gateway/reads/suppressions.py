"""``/v1/suppressions`` over suppression: who must not be contacted, and why."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from fastapi import APIRouter, Query, Request, Response

from backhaul_gateway.reads.bodies import LargeBodies, body_of
from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.changes import MAX_WAIT_S, ChangesOut, changes_json, page_of
from backhaul_gateway.reads.checkbatch import BATCH_DOCUMENTED, MAX_BATCH_BYTES, MAX_BATCHES_BYTES, batch_of
from backhaul_gateway.reads.streaming import answers_of, unless_gone
from backhaul_gateway.twins.suppressioncalls import (
    DO_NOT_SEND,
    SAY_AGAIN,
    AddIn,
    CheckIn,
    LiftIn,
    ReactivateIn,
    in_words_of_http,
)
from backhaul_gateway.twins.suppressions import (
    ADDED,
    ADDRESS,
    BATCH_CHECKED,
    CHECKED,
    FAMILIES,
    KINDS,
    LIFTED,
    ORIGINS,
    REACTIVATED,
    SCOPES,
    STANDINGS,
    SUPPRESSIONS,
    AddressOut,
    ChangedOut,
    CheckBatchOut,
    CheckOut,
    ReactivatedOut,
    SuppressionPage,
)
from backhaul_gateway.web.filters import (
    Address,
    Cursor,
    Filter,
    From,
    Limit,
    To,
    microseconds,
    number_of,
    one_of,
)
from backhaul_gateway.web.guard import Asking
from backhaul_gateway.web.idempotency import IdempotencyKey
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import paged

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.suppression.v1.suppression_pb2_grpc import SuppressionServiceAsyncStub


class SuppressionRoutes:
    """What suppression keeps of a tenant's people, and what a tenant says of them."""

    def __init__(self, callers: Callers, suppression: SuppressionServiceAsyncStub) -> None:
        self._written = callers.written
        self._written_by = callers.written_by
        self._run = callers.run
        self._suppression = suppression
        self._bodies = LargeBodies(MAX_BATCHES_BYTES, "Too many batches are being looked at.")

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        get = partial(router.add_api_route, methods=["GET"])
        post = partial(router.add_api_route, methods=["POST"])
        changes: dict[int | str, dict[str, Any]] = problems(400, 404, 409)
        added: dict[int | str, dict[str, Any]] = {
            200: {"model": ChangedOut, "description": "It was there already."},
            201: {"model": ChangedOut, "description": "It is suppressed now."},
        }
        get("/suppressions", self.list_suppressions, response_model=SuppressionPage)
        get("/suppressions/address", self.get_address, response_model=AddressOut)
        get("/suppressions/changes", self.get_changes, response_model=ChangesOut)
        post("/suppressions", self.add, status_code=201, response_model=ChangedOut, responses={**added, **changes})
        post("/suppressions/lift", self.lift, response_model=ChangedOut, responses=changes)
        post("/suppressions/reactivate", self.reactivate, response_model=ReactivatedOut, responses=changes)
        post("/suppressions/check", self.check, response_model=CheckOut, responses=problems(400))
        post(
            "/suppressions/check-batch",
            self.check_batch,
            response_model=CheckBatchOut,
            responses=problems(400),
            openapi_extra=BATCH_DOCUMENTED,
        )

    async def list_suppressions(
        self,
        by: By,
        family: Annotated[str, one_of(FAMILIES)] = "",
        kind: Annotated[str, one_of(KINDS)] = "",
        origin: Annotated[str, one_of(ORIGINS)] = "",
        scope_kind: Annotated[str, one_of(SCOPES)] = "",
        scope_id: Filter = "",
        standing: Annotated[str, one_of(STANDINGS)] = "",
        from_: From = None,
        to: To = None,
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """Who is suppressed, the latest change first; with ``standing`` those who were. ``from`` and ``to`` bound when
        it was recorded.

        A row that changes between two pages may be on none of them. The whole is ``/export``; ``/changes`` keeps up
        with it.
        """
        request = pb.ListRequest(
            tenant_id=by.tenant.id,
            family=number_of(FAMILIES, family, "family"),
            kind=number_of(KINDS, kind, "kind"),
            origin=number_of(ORIGINS, origin, "origin"),
            standing=number_of(STANDINGS, standing, "standing"),
            from_us=microseconds(from_),
            to_us=microseconds(to),
            page_size=limit,
            page_token=cursor,
        )
        if scope_kind or scope_id:
            request.scope.kind = number_of(SCOPES, scope_kind, "scope_kind")
            request.scope.id = scope_id
        with in_words_of_http(query=True):
            answer = await paged(self._suppression.List(request))
        return await self._written(SUPPRESSIONS, answer)

    async def get_address(
        self,
        by: By,
        address: Address,
        family: Annotated[str, one_of(FAMILIES)] = "",
        limit: Annotated[Limit, Query(description="Of the history.")] = 50,
        cursor: Cursor = "",
    ) -> Response:
        """All that is known of an address: every row, lifted ones too, and what was changed, the latest first."""
        with in_words_of_http():
            answer = await paged(
                self._suppression.Get(
                    pb.GetRequest(
                        tenant_id=by.tenant.id,
                        address=address,
                        family=number_of(FAMILIES, family, "family"),
                        page_size=limit,
                        page_token=cursor,
                    )
                )
            )
        return await self._written(ADDRESS, answer)

    async def get_changes(
        self,
        request: Request,
        by: By,
        after: Annotated[
            int | None, Query(ge=0, le=2**63 - 1, description="Changes behind this position; left out, from now on.")
        ] = None,
        wait: Annotated[
            float, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for a change where there is none yet.")
        ] = 0,
        family: Annotated[str, one_of(FAMILIES)] = "",
        kinds: Annotated[Filter, Query(description="Of these kinds alone, separated by commas.")] = "",
        limit: Limit = 50,
    ) -> Response:
        """What has changed behind a position, in order; ``next_position`` is the next ``after``.

        With ``wait`` the answer comes with the first change. Meanwhile it counts as one of the tenant's reads at once.
        """
        words = [word.strip() for word in kinds.split(",") if word.strip()]
        watch = pb.WatchRequest(
            tenant_id=by.tenant.id,
            family=number_of(FAMILIES, family, "family"),
            kinds=[number_of(KINDS, word, "kinds") for word in words],
            after_position=after,
        )

        async def page() -> Response:
            async with answers_of(self._suppression.Watch(watch)) as answers:
                with in_words_of_http():
                    changes, position = await page_of(answers, after, limit, wait)
            return await self._written_by(changes_json(changes, position))

        # Nobody reads the answer to a question that was given up.
        return await unless_gone(request, page()) or Response(status_code=204)

    async def add(self, by: By, principal: Asking, body: AddIn, idempotency_key: IdempotencyKey = "") -> Response:
        """Record that a person must not be contacted, whoever said so and wherever. No check that begins after the
        answer overlooks it. 201 where it changed something, 200 where the address was suppressed so already."""
        with in_words_of_http(unanswered=SAY_AGAIN):
            answer = await self._suppression.Add(
                body.request(by.tenant.id, idempotency_key, pb.ACTOR_TENANT, principal.author)
            )
        return await self._written(ADDED, answer, 201 if answer.changed else 200)

    async def lift(self, by: By, principal: Asking, body: LiftIn, idempotency_key: IdempotencyKey = "") -> Response:
        """Lift what you may lift. 409 names the rule where you may not, and 404 says that nothing is there."""
        with in_words_of_http(unanswered=SAY_AGAIN):
            answer = await self._suppression.Lift(
                body.request(by.tenant.id, idempotency_key, pb.ACTOR_TENANT, principal.author)
            )
        return await self._written(LIFTED, answer)

    async def reactivate(
        self, by: By, principal: Asking, body: ReactivateIn, idempotency_key: IdempotencyKey = ""
    ) -> Response:
        """Say that an address works again: lifts ``hard_bounce`` and ``invalid_address``, and nothing else."""
        with in_words_of_http(unanswered=SAY_AGAIN):
            answer = await self._suppression.Reactivate(body.request(by.tenant.id, idempotency_key, principal.author))
        return await self._written(REACTIVATED, answer)

    async def check(self, by: By, body: CheckIn) -> Response:
        """Whether an address may be contacted, and the rows that say no. 503 where nobody can tell for sure: take
        that for *no*."""
        with in_words_of_http(unanswered=DO_NOT_SEND):
            answer = await self._suppression.Check(body.request(by.tenant.id))
        return await self._written(CHECKED, answer)

    async def check_batch(self, request: Request, by: By) -> Response:
        """The same of up to 10,000 addresses, in their order. What is wrong with one of them is told in its result."""
        with self._bodies.room(request, by, MAX_BATCH_BYTES):
            batch = await self._run(batch_of(await body_of(request), by.tenant.id))
            with in_words_of_http(unanswered=DO_NOT_SEND):
                answer = await self._suppression.CheckBatch(batch)
            return await self._written(BATCH_CHECKED, answer)
