"""The OpenAPI document: what FastAPI reads from the routes, and what it cannot know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from backhaul_gateway.admission.access import ROUTES, Rule
from backhaul_gateway.web.problems import MEDIA_TYPE

_MEANINGS = {
    400: "The body is not JSON",
    401: "The credential is missing or wrong",
    403: "Refused: no scope or role for it, the tenant is not active, or the signature is not the provider's",
    404: "There is no such thing",
    405: "The method is not allowed here",
    408: "The body did not arrive in time",
    409: "Taken already, or the state does not allow it",
    413: "The body, the headers or the address are too large",
    422: "The request is not valid",
    429: "Over the tenant's rate limit; see Retry-After",
    500: "Something unexpected happened",
    501: "The service is not installed",
    503: "A part of the system is away, or others change the same thing; see Retry-After",
    504: "A part of the system took too long",
}

_PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "errors"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message", "fix"],
                "properties": {
                    "field": {"type": "string"},
                    "message": {"type": "string"},
                    "fix": {"type": "string"},
                },
            },
        },
        "trace_id": {"type": "string"},
    },
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with these statuses."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in statuses}


def openapi_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """A function that makes the document of ``app`` when it is first called, and returns the same one later."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes, tags=_TAGS
            )
            components = schema.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            schemas["Problem"] = _PROBLEM
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schema["paths"] |= _ingest_paths()
            for path, operations in schema["paths"].items():
                for method, operation in operations.items():
                    _mend(operation, ROUTES.get(f"{method.upper()} {path}"))
            app.openapi_schema = schema
        return app.openapi_schema

    return build


_TAGS = [
    {"name": "ingest", "description": "For providers. Path, parameter name and label in any case."},
    {"name": "tenant", "description": "For tenants: what happened to their messages."},
    {"name": "admin", "description": "For the platform team."},
    {"name": "operations", "description": "For whoever runs it."},
]


_BY_SERVER: dict[str, Any] = {
    "description": "The request's head is too large, or has too many headers. The connection is closed.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


def _mend(operation: dict[str, Any], rule: Rule | None) -> None:
    """Describe the answers to failures as they are: as problem documents, and not in FastAPI's own shape.

    The failures of requests that do not reach their route are added, and what opens it is told.
    """
    if rule is not None and rule.words:
        operation["description"] = f"{operation.get('description', '')}\n\n{rule.words}".strip()
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422", "")):
        responses["422"] = problems(422)[422]
    statuses = (408, 413, 500) if "requestBody" in operation else (413, 500)
    more: dict[str, Any] = {str(status): value for status, value in problems(*statuses).items()}
    more["431"] = _BY_SERVER
    operation["responses"] = dict(sorted({**more, **responses}.items()))


def _ingest_paths() -> dict[str, Any]:
    label = {
        "name": "channelLabel",
        "in": "query",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
        "description": "The channel's label, in any case. Every other parameter is kept with the events as vars.",
    }
    token = {"name": "token", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    body = {"required": False, "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
    stored = {
        "description": "Stored durably. The body is what the provider asks for; of most there is none.",
        "headers": {
            "Backhaul-Callback-Id": {
                "description": "The callback's id, which its events and log lines carry.",
                "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            }
        },
    }
    responses = {
        "200": stored,
        **{str(status): value for status, value in problems(401, 403, 404, 408, 413, 422, 429, 500, 503).items()},
    }
    common = {
        "tags": ["ingest"],
        "description": "Answered with 200 only when the callback is stored. Any body is taken, none is parsed.",
        "requestBody": body,
        "responses": responses,
    }
    return {
        "/api/postevents": {
            "post": {
                **common,
                "summary": "Take a provider's callback",
                "operationId": "post_events",
                "parameters": [label],
                "security": TENANT_SECURITY,
            }
        },
        "/in/{token}/api/postevents": {
            "post": {
                **common,
                "summary": "Take a callback of a provider that can send no credential",
                "operationId": "post_events_by_token",
                "parameters": [token, label],
            }
        },
    }


TENANT_SECURITY: list[dict[str, list[str]]] = [{"ApiKey": []}, {"Bearer": []}, {"Basic": []}]
