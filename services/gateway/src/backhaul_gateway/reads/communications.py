"""``/v1/communications``: what tenants send, as they registered it, and what became of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from backhaul_common.errors import BackhaulError
from backhaul_common.names import channel_key
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from fastapi import APIRouter, Query, Response

from backhaul_gateway.admission.door import Admission
from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.communicationbodies import (
    SAY_AGAIN,
    CommunicationIn,
    NewId,
    SwitchIn,
    batches_are_elsewhere,
    in_words_of_http,
)
from backhaul_gateway.reads.communicationviews import (
    COMMUNICATION,
    COMMUNICATIONS,
    ONE_COMMUNICATION,
    STATUS,
    CommunicationOut,
    CommunicationPage,
    CommunicationSummary,
)
from backhaul_gateway.web.filters import Cursor, Filter, From, Limit, Text, To, microseconds, number_of, one_of
from backhaul_gateway.web.guard import Asking
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import paged

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceAsyncStub


class CommunicationRoutes:
    """Communications of a tenant, registered or only named by events. Add them behind ``BatchRoutes``: an id may hold
    slashes, and the longer path is meant where both fit."""

    def __init__(self, callers: Callers, admission: Admission, communications: CommunicationServiceAsyncStub) -> None:
        self._written = callers.written
        self._admission = admission
        self._communications = communications

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        get = partial(router.add_api_route, methods=["GET"])
        put = partial(router.add_api_route, methods=["PUT"])
        post = partial(router.add_api_route, methods=["POST"], responses=problems(400, 404))
        registered: dict[int | str, dict[str, Any]] = {
            200: {"model": CommunicationSummary, "description": "It was registered already, and is as it was told."},
            201: {"model": CommunicationSummary, "description": "It is registered now."},
            **problems(400),
        }
        get("/communications", self.list_communications, response_model=CommunicationPage)
        one = "/communications/{communication_id:path}"
        get(one, self.get_communication, response_model=CommunicationOut, responses=problems(404))
        put(one, self.put_communication, response_model=CommunicationSummary, responses=registered)
        post(f"{one}/disable", self.disable_communication, response_model=CommunicationSummary)
        post(f"{one}/enable", self.enable_communication, response_model=CommunicationSummary)

    async def list_communications(
        self,
        by: By,
        status: Annotated[str, one_of(STATUS)] = "",
        mode: Filter = "",
        channel: Filter = "",
        registered: Annotated[bool, Query(description="Only those that are registered.")] = False,
        from_: From = None,
        to: To = None,
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """Communications, newest first: those that are registered, and those that events alone have named. ``from`` and
        ``to`` bound when it was registered or first named."""
        answer = await paged(
            self._communications.ListCommunications(
                pb.ListCommunicationsRequest(
                    tenant_id=by.tenant.id,
                    status=number_of(STATUS, status, "status"),
                    mode=mode,
                    channel=channel_key(channel),
                    registered=registered,
                    from_us=microseconds(from_),
                    to_us=microseconds(to),
                    page_size=limit,
                    page_token=cursor,
                )
            )
        )
        return await self._written(COMMUNICATIONS, answer)

    async def get_communication(self, by: By, communication_id: Text) -> Response:
        """What is registered of one communication, what became of its messages, and how far its batches are."""
        try:
            with in_words_of_http():
                answer = await self._communications.DescribeCommunication(
                    pb.DescribeCommunicationRequest(tenant_id=by.tenant.id, communication_id=communication_id)
                )
        except BackhaulError as exc:
            raise batches_are_elsewhere(exc, communication_id) from None
        return await self._written(COMMUNICATION, answer)

    async def put_communication(self, by: By, communication_id: NewId, body: CommunicationIn) -> Response:
        """Register a communication, or change what is registered of it; what is left out is as its default says.
        Repeated, it changes nothing. Counts as a callback of the tenant's rate."""
        self._admission.callback(by, 0)
        with in_words_of_http(unanswered=SAY_AGAIN, paths=body.paths()):
            answer = await self._communications.PutCommunication(
                pb.PutCommunicationRequest(
                    tenant_id=by.tenant.id, communication_id=communication_id, settings=body.settings()
                )
            )
        return await self._written(ONE_COMMUNICATION, answer.communication, 201 if answer.created else 200)

    async def disable_communication(
        self, by: By, principal: Asking, communication_id: Text, body: SwitchIn
    ) -> Response:
        """Have nothing called on its behalf any more; callbacks are taken as ever. Counts as a callback of the tenant's
        rate."""
        self._admission.callback(by, 0)
        with in_words_of_http(unanswered=SAY_AGAIN):
            answer = await self._communications.DisableCommunication(
                pb.DisableCommunicationRequest(
                    tenant_id=by.tenant.id,
                    communication_id=communication_id,
                    reason=body.reason,
                    author=body.author or principal.author,
                )
            )
        return await self._written(ONE_COMMUNICATION, answer.communication)

    async def enable_communication(self, by: By, principal: Asking, communication_id: Text, body: SwitchIn) -> Response:
        """Take back that it was disabled. Counts as a callback of the tenant's rate."""
        self._admission.callback(by, 0)
        with in_words_of_http(unanswered=SAY_AGAIN):
            answer = await self._communications.EnableCommunication(
                pb.EnableCommunicationRequest(
                    tenant_id=by.tenant.id,
                    communication_id=communication_id,
                    reason=body.reason,
                    author=body.author or principal.author,
                )
            )
        return await self._written(ONE_COMMUNICATION, answer.communication)
