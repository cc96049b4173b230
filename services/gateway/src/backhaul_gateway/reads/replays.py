"""``/v1/replays``, and dead letters by filter: what is stored already, through the pipeline again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from fastapi import APIRouter, Response

from backhaul_gateway.admission.door import Admission
from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.twins.replays import (
    BEGUN,
    REPLAY,
    REPLAYS,
    DeadLettersIn,
    ReplayId,
    ReplayIn,
    ReplayOut,
    ReplayPage,
    in_words_of_http,
)
from backhaul_gateway.web.filters import Cursor, Limit
from backhaul_gateway.web.guard import Asking
from backhaul_gateway.web.idempotency import IdempotencyKey
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import paged

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.normalizer.v1.replays_pb2_grpc import ReplayServiceAsyncStub


class ReplayRoutes:
    """Replays of a tenant. Whatever begins or ends one counts as a callback of the tenant's rate."""

    def __init__(self, callers: Callers, admission: Admission, replays: ReplayServiceAsyncStub) -> None:
        self._written = callers.written
        self._admission = admission
        self._replays = replays

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        get = partial(router.add_api_route, methods=["GET"])
        post = partial(router.add_api_route, methods=["POST"])
        begin = partial(post, status_code=202, response_class=Response, responses={**BEGUN, **problems(400, 404, 409)})
        get("/replays", self.list_replays, response_model=ReplayPage)
        begin("/replays", self.replay)
        one = "/replays/{replay_id}"
        get(one, self.get_replay, response_model=ReplayOut, responses=problems(404))
        post(f"{one}/cancel", self.cancel_replay, response_model=ReplayOut, responses=problems(404))
        begin("/dead-letters/replay", self.replay_dead_letters)
        begin("/dead-letters/discard", self.discard_dead_letters)

    async def list_replays(self, by: By, limit: Limit = 50, cursor: Cursor = "") -> Response:
        """Replays, newest first, without examples. They are kept for 30 days after their end."""
        request = pb.ListReplaysRequest(tenant_id=by.tenant.id, page_size=limit, page_token=cursor)
        return await self._written(REPLAYS, await paged(self._replays.ListReplays(request)))

    async def get_replay(self, by: By, replay_id: ReplayId) -> Response:
        """One replay, as far as it is."""
        with in_words_of_http():
            answer = await self._replays.GetReplay(pb.GetReplayRequest(tenant_id=by.tenant.id, id=replay_id))
        return await self._written(REPLAY, answer.replay)

    async def replay(self, by: By, principal: Asking, body: ReplayIn, idempotency_key: IdempotencyKey = "") -> Response:
        """Read a channel's callbacks once more, with its settings of today. What is known stays, and what is new is
        added, as if it had been read so at first. 409 where ten are not over."""
        return await self._begun(by, body.request(by.tenant.id, idempotency_key, principal.author))

    async def replay_dead_letters(
        self, by: By, principal: Asking, body: DeadLettersIn, idempotency_key: IdempotencyKey = ""
    ) -> Response:
        """Send the open dead letters that fit through once more, each as by a call for it alone. 409 where ten replays
        are not over."""
        request = body.request(by.tenant.id, pb.REPLAY_KIND_DEAD_LETTERS, idempotency_key, principal.author)
        return await self._begun(by, request)

    async def discard_dead_letters(
        self, by: By, principal: Asking, body: DeadLettersIn, idempotency_key: IdempotencyKey = ""
    ) -> Response:
        """Close the open dead letters that fit without processing them. 409 where ten replays are not over."""
        request = body.request(by.tenant.id, pb.REPLAY_KIND_DISCARD, idempotency_key, principal.author)
        return await self._begun(by, request)

    async def cancel_replay(self, by: By, replay_id: ReplayId) -> Response:
        """End a replay; it as it is then. What it did stays, and the page that is under way, some hundred callbacks,
        comes to its end."""
        self._admission.callback(by, 0)
        with in_words_of_http():
            answer = await self._replays.CancelReplay(pb.CancelReplayRequest(tenant_id=by.tenant.id, id=replay_id))
        return await self._written(REPLAY, answer.replay)

    async def _begun(self, by: By, request: pb.BeginReplayRequest) -> Response:
        self._admission.callback(by, 0)
        with in_words_of_http():
            answer = await self._replays.BeginReplay(request)
        return await self._written(REPLAY, answer.replay, 202)
