"""How the console asks the API within the process: what it is answered, and what becomes of who no longer listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from backhaul_client import AsyncAdminClient
from backhaul_console import Person
from backhaul_gateway.admission.principal import PRINCIPAL
from backhaul_gateway.console import inprocess
from backhaul_gateway.console.inprocess import InProcess
from gateway_rig import ADMIN_TOKEN, Running
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

App = Callable[[Scope, Receive, Send], Awaitable[None]]
HEAD: Message = {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]}


def piece(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def visitor(**headers: str) -> Request:
    return Request(
        {
            "type": "http",
            "asgi": {"version": "3.0"},
            "scheme": "https",
            "method": "GET",
            "path": "/console",
            "raw_path": b"/console",
            "query_string": b"",
            "server": ("gateway", 8443),
            "client": ("10.0.0.9", 5000),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
    )


def asking(app: ASGIApp, person: Person | None = None, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=InProcess(app, visitor(**headers), person), base_url="http://backhaul", trust_env=False
    )


@pytest.fixture(autouse=True)
async def _nothing_runs_on() -> AsyncIterator[None]:
    """Whatever a test did, no request of it is left."""
    yield
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "console_asks"]


async def test_a_request_comes_as_from_the_visitor() -> None:
    seen: list[Scope] = []
    body = bytearray()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        while True:
            message = await receive()
            body.extend(message["body"])
            if not message["more_body"]:
                break
        await send(HEAD)
        await send(piece(b"whole", more=False))

    async def sent() -> AsyncIterator[bytes]:
        yield b"in "
        yield b"pieces"

    async with asking(app, x_forwarded_for="192.0.2.1", cookie="secret=1", authorization="Bearer x") as client:
        answer = await client.post("/v1/a%2Fb/%E2%98%83?x=%2F", content=sent(), headers={"X-Api-Key": "k"})
    assert (answer.status_code, answer.text, answer.headers["x-a"]) == (200, "whole", "1")
    assert body == b"in pieces"
    (scope,) = seen
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (
        "/v1/a/b/\N{SNOWMAN}",
        b"/v1/a%2Fb/%E2%98%83",
        b"x=%2F",
    )
    assert (scope["client"], scope["scheme"], scope["server"]) == (("10.0.0.9", 5000), "https", ("gateway", 8443))
    headers = dict(scope["headers"])
    assert (headers[b"x-forwarded-for"], headers[b"x-api-key"]) == (b"192.0.2.1", b"k")
    # What the visitor showed the console is not shown to the API.
    assert b"cookie" not in headers
    assert b"authorization" not in headers
    assert PRINCIPAL not in scope


@pytest.mark.parametrize(
    ("visits", "asks", "comes"), [("http", "http", "http"), ("http", "https", "https"), ("https", "http", "https")]
)
async def test_what_is_asked_by_https_comes_so_whoever_visits(visits: str, asks: str, comes: str) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send(HEAD)
        await send(piece(b"", more=False))

    request = visitor()
    request.scope["scheme"] = visits
    async with httpx.AsyncClient(transport=InProcess(app, request, None), trust_env=False) as client:
        await client.post(f"{asks}://backhaul/api/postevents")
    assert [one["scheme"] for one in seen] == [comes]


async def test_an_answer_comes_piece_by_piece_and_only_as_fast_as_it_is_read() -> None:
    given = 0

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal given
        await send(HEAD)
        for number in range(100):
            await send(piece(b"%d," % number))
            given += 1
        await send(piece(b"", more=False))

    async with asking(app) as client, client.stream("GET", "/") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"0,"
        for _ in range(100):  # turns of the loop in which it could have run ahead
            await asyncio.sleep(0)
        assert given <= inprocess._AHEAD + 2
        assert [one async for one in pieces][-1] == b"99,"


async def test_the_application_learns_that_nobody_reads_on() -> None:
    """Its work behind the answer is done before the console goes on, as is its line in the log."""
    done = asyncio.Event()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        await send(HEAD)
        await send(piece(b"first"))
        assert (await receive())["type"] == "http.disconnect"
        for _ in range(100):
            await send(piece(b"of no use to anybody"))
        done.set()

    async with asking(app) as client, client.stream("GET", "/") as answer:
        assert await anext(answer.aiter_raw()) == b"first"
    assert done.is_set()


async def test_an_application_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inprocess, "_ENDS_S", 0.01)
    ended = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(HEAD)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with asking(app) as client, client.stream("GET", "/"):
        pass
    assert ended.is_set()


async def test_an_answer_that_breaks_off_is_an_error() -> None:
    async def silent(_scope: Scope, _receive: Receive, _send: Send) -> None:
        return

    async def broken(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(HEAD)
        await send(piece(b"half"))
        raise RuntimeError("of the application")

    async def failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("of the application")

    for app in (silent, broken, failing):
        async with asking(app) as client:
            with pytest.raises(httpx.ReadError, match="broke off"):
                await client.get("/")


async def test_an_application_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inprocess, "_ENDS_S", 0.01)

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    async with asking(app) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/", timeout=0.05)


async def test_a_visitor_who_goes_takes_the_request_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's task is cancelled when its visitor goes; nothing of it runs on."""
    monkeypatch.setattr(inprocess, "_ENDS_S", 0.01)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def page() -> None:
        async with asking(app) as client:
            await client.get("/")

    task = asyncio.create_task(page())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_what_a_person_changes_is_logged_under_their_name(gateway: Running) -> None:
    """And an auditor may change nothing, whatever the request says."""
    edge: Any = gateway.server.config.app
    for role, status in (("operator", 201), ("support", 403), ("auditor", 403)):
        async with asking(edge, Person(name=f"oidc:{role}@example.com", role=role)) as client:
            body = {"id": f"of-{role}", "name": "x", "queue_path": f"q-{role}"}
            answer = await client.post("/admin/v1/tenants", json=body, headers={"authorization": "Bearer person"})
            assert answer.status_code == status, answer.text
    # A person is nobody to a tenant's routes.
    async with asking(edge, Person(name="oidc:x", role="operator")) as client:
        assert (await client.get("/v1/whoami")).status_code == 401
    platform = AsyncAdminClient(gateway.url, ADMIN_TOKEN, http=gateway.client)
    logged = {(change.author, change.outcome, change.client) async for change in platform.changes()}
    assert logged == {
        ("admin:oidc:operator@example.com", "done", "10.0.0.9"),
        ("admin:oidc:support@example.com", "refused", "10.0.0.9"),
        ("admin:oidc:auditor@example.com", "refused", "10.0.0.9"),
    }
