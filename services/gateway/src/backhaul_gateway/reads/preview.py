"""``POST /v1/channels/{label}/preview``: what a callback would be answered, and what would become of it.

The channel's own verifier judges it, and the normalizer reads it as it reads callbacks. Nothing is stored, and nothing
is counted as a callback.
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, unquote_to_bytes

import orjson
from backhaul_channels.adapter import RawCallback, Refusal
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import channel_key
from backhaul_common.sizes import MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_QUERY_BYTES
from backhaul_common.vocabulary import Words
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_OBSERVED_INVALID, Callback, Verification
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from fastapi import APIRouter, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from backhaul_gateway.admission.refusals import no_channel
from backhaul_gateway.admission.state import ChannelState, EncodedAnswer, TenantState, TenantStates
from backhaul_gateway.admission.strangers import Strangers
from backhaul_gateway.reads.bodies import LargeBodies, body_of
from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.previewmodels import PreviewIn, PreviewOut
from backhaul_gateway.reads.views import PREVIEW
from backhaul_gateway.twins.turns import Steps
from backhaul_gateway.web.edge import INGEST_PATH
from backhaul_gateway.web.kept import kept_headers, shown_address
from backhaul_gateway.web.masking import masked_body, masked_bytes
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.problems import of_error
from backhaul_gateway.web.refusals import METHOD, query_too_long, unverified

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceAsyncStub

MAX_ESCAPED = 2
"""How much longer than a body the JSON may be that holds it: base64 takes a third more, escapes of quotes less than
twice."""

MAX_BESIDE_BYTES = 64 << 10
"""What the JSON has beside the body: headers and an address."""

MAX_PREVIEWED_BYTES = 4 * (MAX_ESCAPED * MAX_BODY_BYTES + MAX_BESIDE_BYTES)
"""Bytes of JSON that are held at once. A tenant may hold half of it while no other holds any."""

_WORDS = Words(Verification.DESCRIPTOR)


_DOCUMENTED = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": PreviewIn.model_json_schema()}}}
}


@dataclass(frozen=True, slots=True)
class _Judged:
    """A callback, what its verification found, and the answer; ``callback`` is None of a handshake."""

    verification: dict[str, Any]
    answer: dict[str, Any]
    callback: Callback | None


class PreviewRoutes:
    """Judges callbacks as the ingest does, and has the normalizer read them."""

    def __init__(
        self,
        callers: Callers,
        normalizer: NormalizerServiceAsyncStub,
        *,
        states: TenantStates,
        strangers: Strangers,
        public_base_url: str,
    ) -> None:
        self._written_by = callers.written_by
        self._normalizer = normalizer
        self._states = states
        self._strangers = strangers
        self._base_url = public_base_url
        self._bodies = LargeBodies(MAX_PREVIEWED_BYTES, "Too many large callbacks are being looked at.")

    def add_to(self, router: APIRouter) -> None:
        """Add the one route."""
        router.add_api_route(
            "/channels/{label}/preview",
            self.preview,
            methods=["POST"],
            response_model=PreviewOut,
            responses=problems(400, 404),
            openapi_extra=_DOCUMENTED,
        )

    async def preview(
        self, request: Request, by: By, label: Annotated[str, Path(description="The channel's label, in any case.")]
    ) -> Response:
        """What a callback would be answered, and what would become of it.

        Nothing is stored, published or counted as a callback; it counts as a read. The body may be as large as a
        callback's.
        """
        await self._channel(by, label)
        most = MAX_ESCAPED * by.tenant.limits.max_body_bytes + MAX_BESIDE_BYTES
        with self._bodies.room(request, by, most):
            asked = await _asked(request)
            # The tenant may have changed while the body came in.
            channel = await self._channel(self._states.get(by.tenant.id) or by, label)
            judged = self._judged(by, channel, asked)
            found = pb.PreviewCallbackResponse()
            if judged.callback is not None:
                found = await self._normalizer.PreviewCallback(
                    pb.PreviewCallbackRequest(tenant_id=by.tenant.id, channel=channel.key, callback=judged.callback)
                )
            return await self._written_by(_json(judged, found))

    async def _channel(self, by: TenantState, label: str) -> ChannelState:
        """The tenant's channel of that label; NOT_FOUND."""
        key = channel_key(label)
        if key not in by.tenant.channels:
            await self._strangers.channel(by, key)
            by = self._states.get(by.tenant.id) or by
        channel = by.channel(key)
        if channel is None:
            raise no_channel(by.tenant, label, "label")
        return channel

    def _judged(self, by: TenantState, channel: ChannelState, asked: PreviewIn) -> _Judged:
        """What the ingest would say of the callback. Raises what it raises of an address, headers or a body that are
        too large, and INVALID_ARGUMENT for an address that is not the gateway's."""
        body = asked.content()
        if len(body) > by.tenant.limits.max_body_bytes:
            raise BackhaulError(
                Code.TOO_LARGE,
                f"The callback's body is larger than the tenant's limit of {by.tenant.limits.max_body_bytes} bytes.",
                field="body",
                fix="A callback as large would be answered with 413.",
            )
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in asked.headers.items()]
        url, authorization = self._address(channel, asked)
        if authorization and b"authorization" not in dict(headers):
            headers.append((b"authorization", authorization))
        kept = masked_bytes(kept_headers(headers, channel.not_kept))
        received_at_us = time.time_ns() // 1000
        raw = RawCallback(METHOD, url, headers, body, received_at_us, channel.audience)
        if channel.handshake is not None and (answer := channel.handshake(raw)) is not None:
            shown = _answer(EncodedAnswer(answer))
            return _Judged(_verification(channel, "handshake", None), {**shown, "body": None}, None)
        verification, refusal = channel.judge(raw)
        callback = Callback(
            # Of one that would be refused: what it would be if the channel only observed.
            verification=verification or VERIFICATION_OBSERVED_INVALID,
            method=METHOD,
            url=shown_address(url.encode("latin-1")),
            headers=kept,
            body=masked_body(body),
            received_at_us=received_at_us,
        )
        if refusal is not None and not verification:
            status, text, fields = of_error(unverified(refusal))
            answer_out = {"status": status, "content_type": _type(fields), "body": text.decode()}
            return _Judged(_verification(channel, "refused", refusal), answer_out, callback)
        return _Judged(_verification(channel, _WORDS.word(verification), refusal), _answer(channel.accepted), callback)

    def _address(self, channel: ChannelState, asked: PreviewIn) -> tuple[str, bytes]:
        """The address as a provider would call it, and the Authorization header that the name and the password in it
        would make."""
        url = asked.url.partition("#")[0]
        if not url:
            own = f"{self._base_url}{INGEST_PATH}?channelLabel={quote(channel.channel.label)}"
            url = f"{own}&{asked.query}" if asked.query else own
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        user, at, host = host.rpartition("@")
        plain = f"{scheme}://{host}{slash}{path}"
        if not plain.startswith(f"{self._base_url}/"):
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                f"The address does not begin with {self._base_url}/, by which signatures are checked.",
                field="url",
                fix="Send an address below it, or set BACKHAUL_GATEWAY_PUBLIC_BASE_URL to what providers call.",
            )
        if len(plain.partition("?")[2]) > MAX_QUERY_BYTES:
            raise query_too_long()
        if len(plain) > MAX_HEADER_BYTES:
            raise BackhaulError(Code.TOO_LARGE, "The address is too long.", field="url", fix="Send a shorter one.")
        return plain, b"Basic " + base64.b64encode(unquote_to_bytes(user)) if at else b""


async def _asked(request: Request) -> PreviewIn:
    """What the body asks; RequestValidationError. The edge bounds its size and its time."""
    try:
        return PreviewIn.model_validate_json(await body_of(request))
    except ValidationError as exc:
        errors = [{**error, "loc": error["loc"] or ("body",)} for error in exc.errors(include_url=False)]
        raise RequestValidationError(errors) from None


def _verification(channel: ChannelState, result: str, refusal: Refusal | None) -> dict[str, Any]:
    code, detail = (refusal.code, refusal.detail) if refusal is not None else (None, None)
    return {"mode": channel.mode, "result": result, "code": code, "detail": detail}


def _answer(encoded: EncodedAnswer) -> dict[str, Any]:
    text = encoded.body.decode("utf-8", "replace")
    return {"status": encoded.status, "content_type": _type(encoded.headers), "body": text}


def _type(headers: Any) -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name == b"content-type"), None)


def _json(judged: _Judged, found: pb.PreviewCallbackResponse) -> Steps[bytes]:
    """Both as one object, whose last fields are those of ``found``."""
    parts = yield from PREVIEW.json(found)
    head = orjson.dumps({"verification": judged.verification, "answer": judged.answer})
    return head[:-1] + b"," + parts[1:]
