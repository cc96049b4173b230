"""``POST /in/{token}/oauth/token``: where providers fetch the access tokens that they show with their callbacks.

The adapter judges the credentials and makes the token; what is decided here is whose channel it is for. Nothing is
stored of a token, so any copy of the gateway can issue one, and any other can verify it.
"""

from __future__ import annotations

import time

from backhaul_channels.adapter import Answer, RawCallback
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import channel_key
from fastapi import APIRouter, Request, Response
from msgspec.structs import replace
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from backhaul_gateway.admission.auth import CHALLENGE, CredentialIndex, sent_twice, unauthenticated
from backhaul_gateway.admission.door import Admission
from backhaul_gateway.admission.refusals import no_channel, not_active
from backhaul_gateway.admission.state import ChannelState, TenantState, TenantStates
from backhaul_gateway.admission.strangers import Strangers
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import label_of

MAX_TOKEN_REQUEST_BYTES = 8 << 10

_ISSUED, _UNAUTHORIZED = 200, 401
_TYPE = "application/json"
_SEVERAL = (
    b'{"error":"invalid_request","error_description":"Several channels have this client: '
    b'add ?channelLabel=<label of the channel> to the address."}'
)
# What RFC 6749 wants of every answer that may hold a token.
_HEADERS = {"cache-control": "no-store", "pragma": "no-cache"}


class TokenOut(BaseModel):
    """An access token, good for one channel."""

    access_token: str
    token_type: str = Field(examples=["Bearer"])
    expires_in: int = Field(description="In seconds.")


class TokenErrorOut(BaseModel):
    """Why there is none: RFC 6749, section 5.2."""

    error: str = Field(examples=["invalid_client", "invalid_request", "unsupported_grant_type"])
    error_description: str


_PARAMETERS = {"grant_type": "client_credentials", "client_id": "", "client_secret": ""}
_FORM = {
    "type": "object",
    "required": ["grant_type"],
    "properties": {
        name: {"type": "string", **({"enum": [only]} if only else {})} for name, only in _PARAMETERS.items()
    },
}
_DOCUMENTED = {
    "requestBody": {
        "required": True,
        "description": "Client id and secret, unless an Authorization header of the scheme Basic has them.",
        "content": {kind: {"schema": _FORM} for kind in ("application/x-www-form-urlencoded", _TYPE)},
    },
    "parameters": [
        {
            "name": "channelLabel",
            "in": "query",
            "required": False,
            "schema": {"type": "string"},
            "description": "The channel's label, in any case; only needed where several channels have the same client.",
        }
    ],
}


class TokenRoute:
    """Issues access tokens to providers. Whoever gets here knows a tenant's ingest token already."""

    def __init__(
        self,
        *,
        states: TenantStates,
        credentials: CredentialIndex,
        strangers: Strangers,
        admission: Admission,
        public_base_url: str,
    ) -> None:
        self._states = states
        self._credentials = credentials
        self._strangers = strangers
        self._admission = admission
        self._base_url = public_base_url

    def router(self) -> APIRouter:
        """The one route."""
        router = APIRouter(tags=["ingest"])
        refused = problems(403, 404, 408, 413, 429, 503)
        unknown = problems(_UNAUTHORIZED)[_UNAUTHORIZED]
        unknown["description"] = "The client is wrong, or the ingest token is."
        unknown["content"][_TYPE] = {"schema": {"$ref": "#/components/schemas/TokenErrorOut"}}
        router.add_api_route(
            "/in/{token}/oauth/token",
            self.issue,
            methods=["POST"],
            response_class=Response,
            response_model=None,
            summary="Issue an access token",
            responses={200: {"model": TokenOut}, 400: {"model": TokenErrorOut}, 401: unknown, **refused},
            openapi_extra=_DOCUMENTED,
        )
        return router

    async def issue(self, token: str, request: Request) -> Response:
        """OAuth 2.0 with client credentials (RFC 6749, section 4.4). The token is good for one channel, and ends with
        the channel's secret. Under ``/in/`` an Authorization header is the provider's, and never an API key."""
        headers = request.scope["headers"]
        if sent_twice(headers):
            raise unauthenticated("A header that carries a credential was sent twice.", "Send it once.")
        state = await self._active(token)
        request.scope["backhaul.tenant"] = state.tenant.id
        self._admission.token(state)
        body = await _body(request)
        query: bytes = request.scope["query_string"]
        url = self._base_url + (request.scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1")
        callback = RawCallback("POST", url, headers, body, time.time_ns() // 1000)
        # The tenant may have changed while the body came in.
        answer = await self._answer(await self._active(token), label_of(query), callback)
        challenge = {"www-authenticate": CHALLENGE} if answer.status == _UNAUTHORIZED else {}
        return Response(answer.body, answer.status, _HEADERS | challenge, answer.content_type)

    async def _active(self, token: str) -> TenantState:
        """The tenant of the ingest token; UNAUTHENTICATED, UNAVAILABLE or FORBIDDEN."""
        state = self._known(token)
        if state is None:
            await self._strangers.credential(token, None, None)
            state = self._known(token)
        if state is None:
            raise self._credentials.token_refusal()
        if state.tenant.status != "active":
            raise not_active(state.tenant)
        return state

    def _known(self, token: str) -> TenantState | None:
        principal = self._credentials.from_token(token)
        return self._states.get(principal.tenant_id) if principal is not None else None

    async def _answer(self, state: TenantState, label: str, callback: RawCallback) -> Answer:
        """What the tenant's channels say to ``callback``: the one of that label, or else whichever knows the client.
        NOT_FOUND where none of them issues tokens."""
        answers = _asked(state, label, callback)
        if all(answer.status == _UNAUTHORIZED for answer in answers):
            # Another copy of the gateway may have configured the channel, or its secrets, a moment ago.
            await self._strangers.channel(state, channel_key(label))
            answers = _asked(self._states.get(state.tenant.id) or state, label, callback)
        if not answers:
            raise _issues_none(state, label)
        if sum(answer.status == _ISSUED for answer in answers) > 1:
            return Answer(400, _TYPE, _SEVERAL)
        return min(answers, key=lambda answer: (answer.status != _ISSUED, answer.status == _UNAUTHORIZED))


def _asked(state: TenantState, label: str, callback: RawCallback) -> list[Answer]:
    """The answers of those channels that issue tokens."""
    channels = [state.channel(channel_key(label))] if label else state.channels()
    answers = (_asked_one(channel, callback) for channel in channels if channel is not None)
    return [answer for answer in answers if answer is not None]


def _asked_one(channel: ChannelState, callback: RawCallback) -> Answer | None:
    if channel.issue_token is None:
        return None
    return channel.issue_token(replace(callback, audience=channel.audience))


def _issues_none(state: TenantState, label: str) -> BackhaulError:
    if label and channel_key(label) not in state.tenant.channels:
        return no_channel(state.tenant, label)
    which = f"The channel {label[:100]!r} issues" if label else "The tenant's channels issue"
    return BackhaulError(
        Code.NOT_FOUND,
        f"{which} no access tokens.",
        field="channelLabel",
        fix="PUT the channel of a provider that fetches tokens with a secret that has a client_id and a client_secret.",
    )


async def _body(request: Request) -> bytes:
    """The body; TOO_LARGE. The edge looks after the time that it takes."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > MAX_TOKEN_REQUEST_BYTES:
                raise BackhaulError(
                    Code.TOO_LARGE,
                    f"The body is larger than {MAX_TOKEN_REQUEST_BYTES} bytes.",
                    field="body",
                    fix="Send grant_type, client_id and client_secret alone.",
                )
            parts.append(part)
    except ClientDisconnect:
        raise BackhaulError(Code.INVALID_ARGUMENT, "The body is not whole.", field="body") from None
    return b"".join(parts)
