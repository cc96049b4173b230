"""A configuration that is taken away."""

from __future__ import annotations

from typing import Any, cast

import httpx
import msgspec
import pytest
from backhaul_console.pages.configuration import ROUTES
from backhaul_console.rendering import environment
from backhaul_console.sessions import Access, Admin, Session
from backhaul_console.visits import Visit
from starlette.requests import Request

(EXPORT,) = (page.handler for page in ROUTES if page.path == "/configuration/export")


def visit_of(pages: int) -> Visit:
    """A visit to an API whose export has so many pages."""

    def answer(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params.get("cursor", "0"))
        tenants = [{"id": f"tenant-{number}"}] if pages else []
        more = str(number + 1) if number + 1 < pages else None
        return httpx.Response(200, json={"version": 1, "tenants": tenants, "next_cursor": more})

    scope = {"type": "http", "method": "GET", "path": "/console/admin", "query_string": b"", "headers": []}
    access = Access(began_at=0.0, admin=Admin(name="a", role="operator", token="t" * 16))
    transport = httpx.MockTransport(answer)
    return Visit(
        request=Request(scope),
        session=Session("token", access, "a", 0.0),
        sessions=cast("Any", None),
        templates=environment(),
        http=httpx.AsyncClient(transport=transport),
        transport=transport,
    )


@pytest.mark.parametrize("pages", [0, 1, 101])
async def test_an_export_has_every_page(pages: int) -> None:
    answer: Any = await EXPORT(visit_of(pages))
    content = b"".join([piece async for piece in answer.body_iterator])
    document = msgspec.json.decode(content)
    assert document == {"version": 1, "tenants": [{"id": f"tenant-{number}"} for number in range(pages)]}
