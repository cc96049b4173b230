"""``/api/test``, ``/api/status`` and ``/v1``: what tenants ask. Every answer is about the credential's tenant only."""

# No postponed annotations here: FastAPI reads those of functions that are made inside of a function.
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from backhaul_common.names import channel_key
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.openapi.models import APIKey, HTTPBase
from fastapi.openapi.models import SecurityBase as SecurityScheme
from fastapi.security.base import SecurityBase
from pydantic import BaseModel

from backhaul_gateway.admission.auth import CredentialIndex
from backhaul_gateway.admission.door import Admission
from backhaul_gateway.admission.state import TenantState, TenantStates
from backhaul_gateway.admission.strangers import Strangers
from backhaul_gateway.reads.parameters import (
    Address,
    Cursor,
    Filter,
    From,
    Limit,
    Text,
    To,
    microseconds,
    number_of,
    one_of,
)
from backhaul_gateway.reads.status import ChannelStatus, StatusOut
from backhaul_gateway.reads.turns import Turns
from backhaul_gateway.reads.twin import Row, Twin
from backhaul_gateway.reads.views import (
    COMMUNICATION,
    DEAD_LETTER,
    DEAD_LETTERS,
    EVENTS,
    FULFILMENT,
    KINDS,
    MESSAGE,
    MESSAGES,
    ONE_DEAD_LETTER,
    CommunicationOut,
    DeadLetterOut,
    DeadLetterPage,
    EventPage,
    MessageOut,
    MessagePage,
)
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import known_parameters, label_of, paged
from backhaul_gateway.web.refusals import no_channel, not_active

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceAsyncStub


class _Documented(SecurityBase):
    """A way to authenticate, for the OpenAPI document only. FastAPI's own classes also read the request, and refuse an
    Authorization that they cannot read even where it is not what counts."""

    def __init__(self, scheme_name: str, model: SecurityScheme) -> None:
        self.scheme_name = scheme_name
        self.model = model

    async def __call__(self) -> None:
        """Ask for nothing: ``CredentialIndex`` reads the headers."""


_SCHEMES = (
    Security(_Documented("ApiKey", APIKey.model_validate({"in": "header", "name": "X-Api-Key"}))),
    Security(_Documented("Bearer", HTTPBase(scheme="bearer", description="The API key."))),
    Security(_Documented("Basic", HTTPBase(scheme="basic", description="Tenant id and API key."))),
)
_REPLAY_BYTES = 1024
"""What a dead letter takes in the callback log when it is sent again, at least; how much it is shows afterwards."""


class AccessOut(BaseModel):
    """The service is accessible."""

    status: str = "ok"
    version: str


def tenant_router(  # noqa: C901, PLR0915  # a list of routes, each of them flat
    *,
    credentials: CredentialIndex,
    strangers: Strangers,
    states: TenantStates,
    admission: Admission,
    status: ChannelStatus,
    normalizer: "NormalizerServiceAsyncStub",
    version: str,
) -> APIRouter:
    """The routes over the normalizer and the status."""
    turns = Turns()

    def known(request: Request) -> TenantState | None:
        tenant_id = credentials.from_headers(request.scope["headers"])
        return states.get(tenant_id) if tenant_id is not None else None

    async def authenticated(request: Request) -> TenantState:
        state = known(request)
        if state is None:
            headers = dict(request.scope["headers"])
            await strangers.credential(None, headers.get(b"x-api-key"), headers.get(b"authorization"))
            state = known(request)
        if state is None:
            raise credentials.refusal()
        if state.tenant.status != "active":
            raise not_active(state.tenant)
        request.scope["backhaul.tenant"] = state.tenant.id
        return state

    async def admitted(
        request: Request, state: Annotated[TenantState, Depends(authenticated)]
    ) -> AsyncIterator[TenantState]:
        with admission.reading(state):
            known_parameters(request)
            yield state

    async def written(twin: Twin[Row], answer: Row) -> Response:
        return Response(await turns.run(twin.json(answer)), media_type="application/json")

    caller = Annotated[TenantState, Depends(admitted)]
    common: dict[str, Any] = {"tags": ["tenant"], "dependencies": list(_SCHEMES)}
    api = APIRouter(prefix="/api", **common, responses=problems(401, 403, 429, 503))
    v1 = APIRouter(prefix="/v1", **common, responses=problems(401, 403, 422, 429, 503, 504))
    top = APIRouter()

    @top.get("/api/test", tags=["operations"])
    async def test() -> AccessOut:
        """Whether the service is accessible; asks for no credential."""
        return AccessOut(version=version)

    @api.get("/status", responses=problems(404, 422))
    async def channel_status(
        request: Request,
        by: caller,
        channelLabel: Annotated[str | None, Query(description="The channel's label, in any case. Required.")] = None,  # noqa: ARG001, N803  # the parameter's public name, in any case; read from the raw query
    ) -> StatusOut:
        """The channel's overall state with each part of it. Error without object storage, whatever else works."""
        label = label_of(request.scope["query_string"])
        state: TenantState | None = by
        if label and channel_key(label) not in by.tenant.channels:
            await strangers.channel(by, channel_key(label))
            state = states.get(by.tenant.id)
        tenant = (state or by).tenant
        channel = tenant.channels.get(channel_key(label)) if label else None
        if channel is None:
            raise no_channel(tenant, label)
        return await status.of(tenant, channel)

    @v1.get("/messages", name="list_messages", response_model=MessagePage)
    async def list_messages(
        by: caller,
        channel: Filter = "",
        message_id: Annotated[Filter, Query(description="The id, or one of the references, of a message.")] = "",
        state: Annotated[str, one_of(KINDS)] = "",
        fulfilment_state: Annotated[str, one_of(FULFILMENT)] = "",
        recipient: Address = "",
        communication: Filter = "",
        error_code: Filter = "",
        from_: From = None,
        to: To = None,
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """Messages by the arrival of their first callback, newest first. ``from`` and ``to`` bound that arrival."""
        answer = await paged(
            normalizer.ListMessages(
                pb.ListMessagesRequest(
                    tenant_id=by.tenant.id,
                    channel=channel_key(channel),
                    state=number_of(KINDS, state, "state"),
                    fulfilment_state=number_of(FULFILMENT, fulfilment_state, "fulfilment_state"),
                    recipient=recipient,
                    communication_id=communication,
                    error_code=error_code,
                    from_us=microseconds(from_),
                    to_us=microseconds(to),
                    page_size=limit,
                    page_token=cursor,
                    message_id=message_id,
                )
            )
        )
        return await written(MESSAGES, answer)

    @v1.get("/messages/{channel}/{message_id:path}", responses=problems(404, 409), response_model=MessageOut)
    async def get_message(by: caller, channel: Text, message_id: Text) -> Response:
        """State and timeline of one message.

        ``message_id`` may also be a reference of it: 409 where several messages have that.
        """
        answer = await normalizer.GetMessage(
            pb.GetMessageRequest(tenant_id=by.tenant.id, channel=channel_key(channel), message_id=message_id)
        )
        return await written(MESSAGE, answer)

    @v1.get("/events", responses=problems(409), response_model=EventPage)
    async def list_events(
        by: caller,
        channel: Filter = "",
        kind: Annotated[str, one_of(KINDS)] = "",
        message_id: Annotated[
            Filter,
            Query(
                description="The id of one message, or a reference that it alone has (409 where others have it too); "
                "needs channel too."
            ),
        ] = "",
        recipient: Address = "",
        communication: Filter = "",
        error_code: Filter = "",
        from_: From = None,
        to: To = None,
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """Events by arrival, newest first. ``from`` and ``to`` bound the arrival."""
        answer = await paged(
            normalizer.ListEvents(
                pb.ListEventsRequest(
                    tenant_id=by.tenant.id,
                    channel=channel_key(channel),
                    kind=number_of(KINDS, kind, "kind"),
                    message_id=message_id,
                    recipient=recipient,
                    communication_id=communication,
                    error_code=error_code,
                    from_us=microseconds(from_),
                    to_us=microseconds(to),
                    page_size=limit,
                    page_token=cursor,
                )
            )
        )
        return await written(EVENTS, answer)

    @v1.get("/communications/{communication_id:path}", responses=problems(404), response_model=CommunicationOut)
    async def get_communication(by: caller, communication_id: Text) -> Response:
        """Counts of one communication."""
        answer = await normalizer.GetCommunication(
            pb.GetCommunicationRequest(tenant_id=by.tenant.id, communication_id=communication_id)
        )
        return await written(COMMUNICATION, answer)

    @v1.get("/dead-letters", response_model=DeadLetterPage)
    async def list_dead_letters(
        by: caller,
        channel: Filter = "",
        state: Literal["", "open", "replayed", "discarded"] = "",
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """What could not be read, newest first."""
        answer = await paged(
            normalizer.ListDeadLetters(
                pb.ListDeadLettersRequest(
                    tenant_id=by.tenant.id,
                    channel=channel_key(channel),
                    state=number_of(DEAD_LETTER, state, "state"),
                    page_size=limit,
                    page_token=cursor,
                )
            )
        )
        return await written(DEAD_LETTERS, answer)

    @v1.get("/dead-letters/{dead_letter_id}", responses=problems(404), response_model=DeadLetterOut)
    async def get_dead_letter(by: caller, dead_letter_id: Text) -> Response:
        """One dead letter with its callback."""
        answer = await normalizer.GetDeadLetter(pb.GetDeadLetterRequest(tenant_id=by.tenant.id, id=dead_letter_id))
        return await written(ONE_DEAD_LETTER, answer.dead_letter)

    @v1.post("/dead-letters/{dead_letter_id}/replay", responses=problems(404, 409), response_model=DeadLetterOut)
    async def replay_dead_letter(by: caller, dead_letter_id: Text) -> Response:
        """Send it through once more. Counts as a callback of the tenant's rate."""
        admission.callback(by, _REPLAY_BYTES)
        answer = await normalizer.ReplayDeadLetter(
            pb.ReplayDeadLetterRequest(tenant_id=by.tenant.id, id=dead_letter_id)
        )
        return await written(ONE_DEAD_LETTER, answer.dead_letter)

    @v1.post("/dead-letters/{dead_letter_id}/discard", responses=problems(404, 409), response_model=DeadLetterOut)
    async def discard_dead_letter(by: caller, dead_letter_id: Text) -> Response:
        """Close it without processing it. Counts as a callback of the tenant's rate."""
        admission.callback(by, 0)
        answer = await normalizer.DiscardDeadLetter(
            pb.DiscardDeadLetterRequest(tenant_id=by.tenant.id, id=dead_letter_id)
        )
        return await written(ONE_DEAD_LETTER, answer.dead_letter)

    top.include_router(api)
    top.include_router(v1)
    return top
