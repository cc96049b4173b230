"""Errors as RFC 9457 problem documents, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson
from backhaul_common.errors import BackhaulError, Code, Violation, internal
from backhaul_common.tracing import trace_id_of
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from backhaul_gateway.admission.auth import CHALLENGE
from backhaul_gateway.admission.door import RefusedError
from backhaul_gateway.admission.limits import retry_after
from backhaul_gateway.admission.refusals import field_error
from backhaul_gateway.admission.unfit import violations

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "urn:backhaul:problem:"

TRACEPARENT = "backhaul.traceparent"
"""Where ``Edge`` keeps a request's traceparent in its scope."""

REPEAT = "Repeat the request."


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of failure that only HTTP has a status for. No service raises it, so no code of the catalogue means it."""

    status: int
    code: str
    title: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Of every answer of this kind."""


METHOD_NOT_ALLOWED = Kind(405, "method_not_allowed", "The method is not allowed here")
MALFORMED_BODY = Kind(400, "malformed_body", "The body cannot be read")
# Closed, since what still comes on the connection belongs to a request that is over.
REQUEST_TIMEOUT = Kind(408, "request_timeout", "The request took too long", ((b"connection", b"close"),))

NOT_INSTALLED = Kind(501, "not_installed", "The service is not part of this installation")

_SEND_JSON = "Send a JSON object."


class HttpError(RefusedError):
    """A failure of a ``Kind``. ``headers`` are those of this answer, beside the kind's own."""

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        field: str = "",
        fix: str = "",
        outcome: str = "",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(outcome or kind.code, Code.INVALID_ARGUMENT, message, field=field, fix=fix)
        self.kind = kind
        self.headers = kind.headers + headers


class NotInstalledError(HttpError):
    """What is asked for is a service's that this installation does without. Nobody need ask again."""

    def __init__(self, service: str, setting: str) -> None:
        super().__init__(
            NOT_INSTALLED,
            f"{service} is not installed: this installation does without it.",
            fix=f"Ask the platform team, who may install it, and say in {setting} where it is.",
        )


class PartlyDoneError(BackhaulError):
    """A refusal of a part: what became of all of it is told beside the problem, as ``done``."""

    def __init__(self, message: str, violations: Sequence[Violation], done: Mapping[str, Any]) -> None:
        super().__init__(Code.INVALID_ARGUMENT, message, violations=violations)
        self.done = done


def not_allowed(message: str, allowed: str) -> HttpError:
    """The refusal of a method. ``allowed`` is the value of the Allow header, such as ``GET, PUT``."""
    return HttpError(
        METHOD_NOT_ALLOWED,
        message,
        fix=f"Use {allowed.replace(', ', ' or ')}.",
        headers=((b"allow", allowed.encode("latin-1")),),
    )


Answer = tuple[int, bytes, Sequence[tuple[bytes, bytes]]]
"""Status, body and headers of an answer. Status 0: nobody is there to be answered."""


def document(
    status: int,
    code: str,
    title: str,
    detail: str,
    errors: Sequence[Violation] = (),
    trace_id: str = "",
    more: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """The body of a problem, with ``more`` members than every problem has."""
    problem: dict[str, Any] = {
        "type": TYPE_BASE + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [{"field": one.field, "message": one.message, "fix": one.fix} for one in errors],
        **more,
    }
    if trace_id:
        problem["trace_id"] = trace_id
    # A lone surrogate, which JSON can carry in escaped form, cannot be encoded: it is shown as a question mark.
    try:
        return orjson.dumps(problem)
    except TypeError:
        return orjson.dumps(_encodable(problem))


def of_error(error: BackhaulError, trace_id: str = "") -> Answer:
    """The answer to ``error``, with every header that it needs."""
    meaning = error.meaning
    status, code, title = meaning.http_status, error.code.value, meaning.title
    headers: list[tuple[bytes, bytes]] = [(b"content-type", MEDIA_TYPE.encode())]
    if isinstance(error, HttpError):
        status, code, title = error.kind.status, error.kind.code, error.kind.title
        headers += error.headers
    elif error.retry_after_s is not None or meaning.retryable:
        wait_s = error.retry_after_s if error.retry_after_s is not None else 1.0
        headers.append((b"retry-after", str(retry_after(wait_s)).encode()))
    if error.code is Code.UNAUTHENTICATED:
        headers.append((b"www-authenticate", CHALLENGE.encode()))
    more = error.done if isinstance(error, PartlyDoneError) else {}
    body = document(status, code, title, error.message, error.violations, trace_id, more)
    headers.append((b"content-length", b"%d" % len(body)))
    return status, body, headers


def nothing_at(path: str) -> BackhaulError:
    """The refusal of a path that leads nowhere. It is the same for a path that only another port answers."""
    return BackhaulError(Code.NOT_FOUND, f"There is nothing at {path}.", fix="GET /openapi.json lists what there is.")


def response(error: BackhaulError, request: Request) -> Response:
    """The answer to ``error``."""
    status, body, headers = of_error(error, trace_id_of(request.scope.get(TRACEPARENT, "")))
    return Response(body, status, headers={name.decode(): value.decode() for name, value in headers})


def answer_errors_of(app: FastAPI) -> None:
    """Make ``app`` answer with problems, whatever goes wrong in it."""
    app.add_exception_handler(BackhaulError, on_backhaul_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, on_unexpected)
    app.add_exception_handler(RequestValidationError, on_invalid_request)


async def on_backhaul_error(request: Request, exc: Exception) -> Response:
    """Handler of what the use cases raise."""
    assert isinstance(exc, BackhaulError)  # noqa: S101  # registered for this type only
    return response(exc, request)


async def on_http_exception(request: Request, exc: Exception) -> Response:
    """Handler of what the framework raises: no such route, no such method, a body that cannot be read."""
    assert isinstance(exc, HTTPException)  # noqa: S101  # registered for this type only
    return response(_of_framework(request, exc), request)


def _of_framework(request: Request, exc: HTTPException) -> BackhaulError:
    detail = str(exc.detail)
    match exc.status_code:
        case 400:
            return HttpError(MALFORMED_BODY, "The body is not JSON.", field="body", fix=_SEND_JSON)
        case 404:
            return nothing_at(request.url.path)
        case 405:
            return not_allowed(f"{request.url.path} does not take {request.method}.", _allowed(request))
        case 408:
            return HttpError(REQUEST_TIMEOUT, detail, field="body", fix=REPEAT)
        case 413:
            return BackhaulError(Code.TOO_LARGE, detail, field="body", fix="Send less.")
    return BackhaulError(Code.INVALID_ARGUMENT, detail) if exc.status_code < 500 else internal()


def _allowed(request: Request) -> str:
    """The methods that the request's path takes, by any route. The framework names those of the first one only."""
    asked = {name: request.scope[name] for name in ("type", "path", "root_path", "headers") if name in request.scope}
    routes = request.app.routes
    takes = [
        method
        for method in _METHODS
        if any(route.matches({**asked, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ", ".join(takes)


_METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE")


async def on_invalid_request(request: Request, exc: Exception) -> Response:
    """Handler of requests that do not fit the route's model."""
    assert isinstance(exc, RequestValidationError)  # noqa: S101  # registered for this type only
    if any(error["type"] == "json_invalid" for error in exc.errors()):
        return response(HttpError(MALFORMED_BODY, "The body is not valid JSON.", field="body", fix=_SEND_JSON), request)
    errors = []
    for error in exc.errors():
        place, *location = error["loc"]
        if place == "body":
            errors += violations([{**error, "loc": tuple(location)}], _body_model(request), exc.body, place)
        else:
            errors.append(field_error(error["loc"], error["type"], error["msg"]))
    unfit = BackhaulError(Code.INVALID_ARGUMENT, "The request does not fit what is expected here.", violations=errors)
    return response(unfit, request)


def _body_model(request: Request) -> type[BaseModel] | None:
    """What the route reads its body as; None where the route reads it by itself."""
    field = getattr(request.scope.get("route"), "body_field", None)
    model = field.field_info.annotation if field is not None else None
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


async def on_unexpected(request: Request, _: Exception) -> Response:
    """Handler of everything else. ``Edge`` logs the exception, which Starlette raises again after this answer."""
    return response(internal(), request)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value
