"""``/admin/v1/tenants/{id}/dead-letters`` by filter, and how far that is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from fastapi import APIRouter, Response

from backhaul_gateway.twins.replays import BEGUN, REPLAY, DeadLettersIn, ReplayId, ReplayOut, in_words_of_http
from backhaul_gateway.twins.writing import Writer
from backhaul_gateway.web.guard import Asking
from backhaul_gateway.web.idempotency import IdempotencyKey
from backhaul_gateway.web.openapi import problems

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.normalizer.v1.replays_pb2_grpc import ReplayServiceAsyncStub


class OperatorReplayRoutes:
    """What the platform team does with a tenant's dead letters."""

    def __init__(self, replays: ReplayServiceAsyncStub, writer: Writer) -> None:
        self._replays = replays
        self._written = writer.written

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        refusals = problems(404, 504)
        begin = partial(
            router.add_api_route,
            methods=["POST"],
            status_code=202,
            response_class=Response,
            responses={**BEGUN, **problems(400, 404, 409, 504)},
        )
        begin("/{tenant_id}/dead-letters/replay", self.replay_dead_letters)
        begin("/{tenant_id}/dead-letters/discard", self.discard_dead_letters)
        add = partial(router.add_api_route, response_model=ReplayOut, responses=refusals)
        add("/{tenant_id}/replays/{replay_id}", self.get_replay, methods=["GET"])
        add("/{tenant_id}/replays/{replay_id}/cancel", self.cancel_replay, methods=["POST"])

    async def replay_dead_letters(
        self, tenant_id: str, principal: Asking, body: DeadLettersIn, idempotency_key: IdempotencyKey = ""
    ) -> Response:
        """Send the tenant's open dead letters that fit through once more. 409 where ten replays are not over."""
        request = body.request(tenant_id, pb.REPLAY_KIND_DEAD_LETTERS, idempotency_key, principal.author)
        return await self._begun(request)

    async def discard_dead_letters(
        self, tenant_id: str, principal: Asking, body: DeadLettersIn, idempotency_key: IdempotencyKey = ""
    ) -> Response:
        """Close the tenant's open dead letters that fit without processing them. 409 where ten replays are not over."""
        return await self._begun(body.request(tenant_id, pb.REPLAY_KIND_DISCARD, idempotency_key, principal.author))

    async def get_replay(self, tenant_id: str, replay_id: ReplayId) -> Response:
        """A replay of the tenant's, whoever began it, as far as it is."""
        with in_words_of_http():
            answer = await self._replays.GetReplay(pb.GetReplayRequest(tenant_id=tenant_id, id=replay_id))
        return await self._written(REPLAY, answer.replay)

    async def cancel_replay(self, tenant_id: str, replay_id: ReplayId) -> Response:
        """End a replay of the tenant's, whoever began it; it as it is then."""
        with in_words_of_http():
            answer = await self._replays.CancelReplay(pb.CancelReplayRequest(tenant_id=tenant_id, id=replay_id))
        return await self._written(REPLAY, answer.replay)

    async def _begun(self, request: pb.BeginReplayRequest) -> Response:
        with in_words_of_http():
            answer = await self._replays.BeginReplay(request)
        return await self._written(REPLAY, answer.replay, 202)
