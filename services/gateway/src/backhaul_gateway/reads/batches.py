"""Batches of communications, and their members: ``/v1/batches``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from backhaul_common.errors import BackhaulError, Code
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from fastapi import APIRouter, Query, Request, Response

from backhaul_gateway.admission.door import Admission
from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.communicationbodies import SAY_AGAIN, BatchIn, NewId, in_words_of_http
from backhaul_gateway.reads.communicationviews import (
    BATCH_STATUS,
    BATCHES,
    MEMBER,
    ONE_BATCH,
    BatchMembersOut,
    BatchOut,
    BatchPage,
)
from backhaul_gateway.reads.streaming import answers_of, begun
from backhaul_gateway.twins.turns import Steps
from backhaul_gateway.web.filters import Cursor, Filter, Limit, Text, number_of, one_of
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import paged

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceAsyncStub

MAX_PAGE = 1000
"""Members of one page."""

_PAGE = 100
_JSON_LINES = "application/x-ndjson"
_INCLUDE = "includemembers"
_YES_OR_NO = {"": True, "true": True, "false": False}


class BatchRoutes:
    """Batches, with how far they are, and what became of each member."""

    def __init__(self, callers: Callers, admission: Admission, communications: CommunicationServiceAsyncStub) -> None:
        self._written = callers.written
        self._written_by = callers.written_by
        self._run = callers.run
        self._admission = admission
        self._communications = communications

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        get = partial(router.add_api_route, methods=["GET"])
        put = partial(router.add_api_route, methods=["PUT"])
        post = partial(router.add_api_route, methods=["POST"])
        told: dict[int | str, dict[str, Any]] = {
            200: {"model": BatchOut, "description": "It was registered already, and is as it was told."},
            201: {"model": BatchOut, "description": "It is registered now."},
            **problems(400, 404, 409),
        }
        put(
            "/communications/{communication_id:path}/batches/{batch_id:path}",
            self.put_batch,
            response_model=BatchOut,
            responses=told,
        )
        get("/batches", self.list_batches, response_model=BatchPage)
        lines: dict[int | str, dict[str, Any]] = {
            200: {"content": {_JSON_LINES: {"schema": {"type": "string", "format": "binary"}}}},
            **problems(404),
        }
        one = "/batches/{batch_id:path}"
        post(f"{one}/close", self.close_batch, response_model=BatchOut, responses=problems(404, 409))
        get(one, self.get_batch, response_model=BatchMembersOut | BatchOut, responses=lines)

    async def put_batch(self, by: By, communication_id: NewId, batch_id: NewId, body: BatchIn) -> Response:
        """Register a batch of a registered communication, or change its label, deadline or what is expected. 409 where
        another communication has a batch of that id, and where it is closed and more than the label would change.
        Repeated, it changes nothing. Counts as a callback of the tenant's rate."""
        self._admission.callback(by, 0)
        with in_words_of_http(unanswered=SAY_AGAIN):
            answer = await self._communications.PutBatch(body.request(by.tenant.id, communication_id, batch_id))
        return await self._written(ONE_BATCH, answer.batch, 201 if answer.created else 200)

    async def list_batches(
        self,
        by: By,
        communication: Filter = "",
        status: Annotated[str, one_of(BATCH_STATUS)] = "",
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """Batches, newest first."""
        answer = await paged(
            self._communications.ListBatches(
                pb.ListBatchesRequest(
                    tenant_id=by.tenant.id,
                    communication_id=communication,
                    status=number_of(BATCH_STATUS, status, "status"),
                    page_size=limit,
                    page_token=cursor,
                )
            )
        )
        return await self._written(BATCHES, answer)

    async def get_batch(
        self,
        request: Request,
        by: By,
        batch_id: Text,
        includemembers: Annotated[  # noqa: ARG002  # in any case, so it is read from the query as it came
            str, Query(description="With all its members. In any case.", json_schema_extra={"enum": ["true", "false"]})
        ] = "false",
        limit: Annotated[
            int | None, Query(ge=1, le=MAX_PAGE, description="A page of members, in place of all of them.")
        ] = None,
        cursor: Cursor = "",
    ) -> Response:
        """One batch, and how far it is.

        With ``includemembers`` all its members, as they are read: an answer that ends in the middle of a chunk was cut
        off. Who accepts ``application/x-ndjson`` gets the members alone, one a line. ``limit`` and ``cursor`` ask for
        a page of them instead, which is JSON whatever is accepted.
        """
        with_members = _included(request)
        if not with_members and (limit is not None or cursor):
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                "There are pages of members only.",
                field="limit" if limit is not None else "cursor",
                fix="Send includemembers=true with it, or leave it out.",
            )
        with in_words_of_http():
            answer = await self._communications.GetBatch(pb.GetBatchRequest(tenant_id=by.tenant.id, batch_id=batch_id))
        if not with_members:
            return await self._written(ONE_BATCH, answer.batch)
        asked = pb.ListMembersRequest(tenant_id=by.tenant.id, batch_id=batch_id)
        if limit is not None or cursor:
            asked.page_size, asked.page_token = limit or _PAGE, cursor
            page = await paged(self._page(asked))
            return await self._written_by(_page_json(answer.batch, page))
        if _JSON_LINES in request.headers.get("accept", ""):
            return await begun(self._lines(asked), _JSON_LINES, watched=request)
        head = await self._run(_head(answer.batch))
        return await begun(self._whole(head, asked), "application/json", watched=request)

    async def close_batch(self, by: By, batch_id: Text) -> Response:
        """Take no member more: it completes when what completes it is so. Repeated, it changes nothing. 409 where fewer
        members are there than are expected. Counts as a callback of the tenant's rate."""
        self._admission.callback(by, 0)
        with in_words_of_http(unanswered=SAY_AGAIN):
            answer = await self._communications.CloseBatch(
                pb.CloseBatchRequest(tenant_id=by.tenant.id, batch_id=batch_id)
            )
        return await self._written(ONE_BATCH, answer.batch)

    async def _page(self, asked: pb.ListMembersRequest) -> pb.ListMembersResponse:
        async with answers_of(self._communications.ListMembers(asked)) as answers:
            return await anext(answers, pb.ListMembersResponse())

    async def _members(self, asked: pb.ListMembersRequest) -> AsyncGenerator[list[bytes], None]:
        async with answers_of(self._communications.ListMembers(asked)) as answers:
            async for answer in answers:
                yield await self._run(_rows(answer.members))

    async def _lines(self, asked: pb.ListMembersRequest) -> AsyncGenerator[bytes, None]:
        async with answers_of(self._members(asked)) as answers:
            async for rows in answers:
                yield b"".join([row + b"\n" for row in rows])

    async def _whole(self, head: bytes, asked: pb.ListMembersRequest) -> AsyncGenerator[bytes, None]:
        before = head
        async with answers_of(self._members(asked)) as answers:
            async for rows in answers:
                if rows:
                    yield before + b",".join(rows)
                    before = b","
        yield (head if before == head else b"") + b'],"next_cursor":null}'


def _included(request: Request) -> bool:
    """Whether the query asks for members, by a name in any case; INVALID_ARGUMENT where it says neither yes nor no."""
    asked = False
    for name, value in request.query_params.multi_items():
        if name.lower() == _INCLUDE:
            if value.lower() not in _YES_OR_NO:
                raise BackhaulError(
                    Code.INVALID_ARGUMENT,
                    f"{value[:64]!r} is no value of {_INCLUDE}.",
                    field=_INCLUDE,
                    fix="Use true or false.",
                )
            asked = _YES_OR_NO[value.lower()]
    return asked


def _head(batch: pb.Batch) -> Steps[bytes]:
    """The batch's JSON up to its first member."""
    return (yield from ONE_BATCH.json(batch))[:-1] + b',"members":['


def _rows(members: Iterable[pb.Member]) -> Steps[list[bytes]]:
    rows = []
    for member in members:
        rows.append((yield from MEMBER.json(member)))
        yield
    return rows


def _page_json(batch: pb.Batch, page: pb.ListMembersResponse) -> Steps[bytes]:
    """``BatchMembersOut`` of a page."""
    head = yield from _head(batch)
    rows = yield from _rows(page.members)
    cursor = orjson.dumps(page.next_page_token or None)
    return head + b",".join(rows) + b'],"next_cursor":' + cursor + b"}"
