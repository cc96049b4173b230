"""Errors as RFC 9457 problem documents, wherever they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from backhaul_common.errors import CATALOGUE, BackhaulError, Code, Violation
from backhaul_common.tracing import parse_traceparent
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from backhaul_gateway.admission.auth import CHALLENGE
from backhaul_gateway.admission.limits import retry_after

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "urn:backhaul:problem:"

_BY_STATUS = {
    400: Code.INVALID_ARGUMENT,
    404: Code.NOT_FOUND,
    413: Code.TOO_LARGE,
    422: Code.INVALID_ARGUMENT,
    429: Code.RATE_LIMITED,
    503: Code.UNAVAILABLE,
}
_METHOD_NOT_ALLOWED = "method_not_allowed"
_TIMEOUT = "request_timeout"
_MALFORMED = "malformed_body"


_TIME = "Send a time such as 2026-11-01T00:00:00Z; the + of an offset is written %2B in an address."
_FIXES = {
    "missing": "Add it.",
    "extra_forbidden": "Remove it, or check its spelling.",
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "id string_pattern_mismatch": "Use lower-case letters, digits, - and _, with a letter or a digit at both ends.",
    "queue_path string_pattern_mismatch": "Use letters, digits, - and _.",
}
"""What pydantic's words leave to be guessed, by its kinds of errors, or by the field and the kind."""


def document(
    status: int,
    code: str,
    title: str,
    detail: str,
    errors: Sequence[Violation] = (),
    trace_id: str = "",
) -> bytes:
    """The body of a problem."""
    problem: dict[str, Any] = {
        "type": TYPE_BASE + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [{"field": one.field, "message": one.message, "fix": one.fix} for one in errors],
    }
    if trace_id:
        problem["trace_id"] = trace_id
    # A lone surrogate, which JSON can carry in escaped form, cannot be encoded: it is shown as a question mark.
    try:
        return orjson.dumps(problem)
    except TypeError:
        return orjson.dumps(_encodable(problem))


def of_error(error: BackhaulError, trace_id: str = "") -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Status, body and headers (content type included) of the answer to ``error``."""
    meaning = error.meaning
    body = document(meaning.http_status, error.code.value, meaning.title, error.message, error.violations, trace_id)
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    if error.retry_after_s is not None or meaning.retryable:
        wait_s = error.retry_after_s if error.retry_after_s is not None else 1.0
        headers.append((b"retry-after", str(retry_after(wait_s)).encode()))
    if error.code is Code.UNAUTHENTICATED:
        headers.append((b"www-authenticate", CHALLENGE.encode()))
    return meaning.http_status, body, headers


def nothing_at(path: str) -> BackhaulError:
    """What every path is told that leads nowhere, whatever the reason."""
    return BackhaulError(Code.NOT_FOUND, f"There is nothing at {path}.", fix="GET /openapi.json lists what there is.")


def response(error: BackhaulError, request: Request) -> Response:
    """The answer to ``error``."""
    status, body, headers = of_error(error, trace_id_of(request))
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
    """Handler of what the framework raises: no such route, no such method, a body that is not JSON."""
    assert isinstance(exc, HTTPException)  # noqa: S101  # registered for this type only
    code = _BY_STATUS.get(exc.status_code, Code.INTERNAL if exc.status_code >= 500 else Code.INVALID_ARGUMENT)
    word, title, detail, fix = code.value, CATALOGUE[code].title, str(exc.detail), ""
    if exc.status_code == 404:
        error = nothing_at(request.url.path)
        detail, fix = error.message, error.fix
    elif exc.status_code == 405:
        allowed = (exc.headers or {}).get("Allow", "")
        word, title = _METHOD_NOT_ALLOWED, "The method is not allowed here"
        detail, fix = f"{request.url.path} does not take {request.method}.", f"Use one of: {allowed}."
    elif exc.status_code == 400:
        word, title, detail, fix = _MALFORMED, "The body cannot be read", "The body is not JSON.", "Send a JSON object."
    elif exc.status_code == 408:
        word, title, fix = _TIMEOUT, "The request took too long", "Repeat the request."
    elif exc.status_code == 413:
        fix = "Send less."
    errors = [Violation("body" if exc.status_code in (400, 408, 413) else "", detail, fix)] if fix else []
    body = document(exc.status_code, word, title, detail, errors, trace_id_of(request))
    return Response(body, exc.status_code, headers=dict(exc.headers or {}), media_type=MEDIA_TYPE)


async def on_invalid_request(request: Request, exc: Exception) -> Response:
    """Handler of requests that do not fit the route's model."""
    assert isinstance(exc, RequestValidationError)  # noqa: S101  # registered for this type only
    errors = [field_error(error["loc"], error["type"], error["msg"]) for error in exc.errors()]
    if any(error["type"] == "json_invalid" for error in exc.errors()):
        body = document(
            400, _MALFORMED, "The body cannot be read", "The body is not valid JSON.", errors, trace_id_of(request)
        )
        return Response(body, 400, media_type=MEDIA_TYPE)
    unfit = BackhaulError(Code.INVALID_ARGUMENT, "The request does not fit what is expected here.", violations=errors)
    return response(unfit, request)


async def on_unexpected(request: Request, _: Exception) -> Response:
    """Handler of everything else. The edge logs it; nobody outside is told more than that it happened."""
    return response(BackhaulError(Code.INTERNAL, CATALOGUE[Code.INTERNAL].title), request)


def field_error(location: Sequence[int | str], kind: str, message: str) -> Violation:
    """pydantic's account of one field, with the way to mend it."""
    if kind == "json_invalid":
        return Violation("body", "This is not valid JSON.", "Send a JSON object.")
    parts = [part for part in location if part not in ("body", "query", "path", "header")] or [location[0]]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    message = message.removeprefix("Value error, ")  # pydantic's own words before those of a check of ours
    fix = _FIXES.get(kind) or _FIXES.get(f"{field} {kind}") or "Change it to what the message asks for."
    return Violation(field, message, fix)


def trace_id_of(request: Request) -> str:
    """The trace of the request, as its log line names it."""
    context = parse_traceparent(request.scope.get("backhaul.traceparent", ""))
    return f"{context.trace_id:032x}" if context is not None else ""


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value
