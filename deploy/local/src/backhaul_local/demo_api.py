"""The gateway's HTTP API as the demo calls it: the admin's side, a tenant's side, a provider's side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from backhaul_local.demo_traffic import Post
from backhaul_local.errors import LocalStackError

T = TypeVar("T")

# States appear by themselves and send no event to who waits for them: they are asked for, this many seconds apart.
_POLL_INTERVAL = 0.005


class DemoError(LocalStackError):
    """The demo cannot go on: a call that everything else rests on was answered otherwise than it must be."""


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """A registered tenant with its credentials."""

    id: str
    name: str
    queue_path: str
    api_key: str = field(repr=False)
    ingest_token: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer: status, and the JSON body (a problem document where the request was refused)."""

    status: int
    body: Mapping[str, Any]

    @property
    def detail(self) -> str:
        return str(self.body.get("detail", ""))


class Api:
    """Calls of one gateway."""

    def __init__(self, client: httpx.AsyncClient, admin_token: str) -> None:
        self._client = client
        self._admin = {"Authorization": f"Bearer {admin_token}"}

    async def register(self, tenant_id: str, name: str, queue_path: str) -> Answer:
        body = {"id": tenant_id, "name": name, "queue_path": queue_path}
        return _answer(await self._client.post("/admin/v1/tenants", headers=self._admin, json=body))

    async def new_tenant(self, tenant_id: str, name: str, queue_path: str) -> Tenant:
        answer = _expect(201, f"registering {name}", await self.register(tenant_id, name, queue_path))
        return Tenant(
            id=tenant_id,
            name=name,
            queue_path=queue_path,
            api_key=answer.body["api_key"],
            ingest_token=answer.body["ingest_token"],
        )

    async def tenant_ids(self) -> list[str]:
        answer = _answer(await self._client.get("/admin/v1/tenants", headers=self._admin))
        return [tenant["id"] for tenant in _expect(200, "listing the tenants", answer).body["tenants"]]

    async def open_channel(self, tenant: Tenant, label: str, provider: str, secret: str) -> None:
        """A channel that refuses everything that ``secret`` does not prove authentic."""
        body = {"provider": provider, "secrets": [secret], "verification": "enforce"}
        path = f"/admin/v1/tenants/{tenant.id}/channels/{label}"
        answer = _answer(await self._client.put(path, headers=self._admin, json=body))
        _expect(201, f"opening {tenant.name}'s channel {label}", answer)

    async def post(self, post: Post, *, api_key: str | None = None, basic: tuple[str, str] | None = None) -> Answer:
        """A provider's request, with a credential in a header, as user and password of the URL, or in its path."""
        headers = {**post.headers, **({"X-Api-Key": api_key} if api_key is not None else {})}
        auth = httpx.BasicAuth(*basic) if basic is not None else httpx.USE_CLIENT_DEFAULT
        return _answer(await self._client.post(post.path, headers=headers, content=post.body, auth=auth))

    async def get(self, tenant: Tenant, path: str) -> Answer:
        return _answer(await self._client.get(path, headers={"X-Api-Key": tenant.api_key}))

    async def message(self, tenant: Tenant, channel: str, message_id: str) -> Answer:
        return await self.get(tenant, f"/v1/messages/{quote(channel)}/{quote(message_id, safe='')}")

    async def communication(self, tenant: Tenant, communication_id: str) -> Answer:
        return await self.get(tenant, f"/v1/communications/{quote(communication_id, safe='')}")

    async def listed(self, tenant: Tenant, what: str) -> Sequence[Mapping[str, Any]]:
        """The first page of ``messages``, ``events`` or ``dead-letters``."""
        answer = _expect(200, f"listing {tenant.name}'s {what}", await self.get(tenant, f"/v1/{what}?limit=500"))
        rows: Sequence[Mapping[str, Any]] = answer.body[what.replace("-", "_")]
        return rows

    async def refused(self, tenant: Tenant, channel: str) -> int:
        """How many requests of a channel the gateway has refused for their signature."""
        answer = _expect(200, "the channel's status", await self.get(tenant, f"/api/status?channelLabel={channel}"))
        return int(answer.body["parts"]["verification"]["refused"])


async def poll(ask: Callable[[], Awaitable[T]], until: Callable[[T], bool], *, seconds: float) -> T:
    """Ask until the answer is as wanted, or the time is over; returns the last answer, right or wrong."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        answer = await ask()
        if until(answer) or asyncio.get_running_loop().time() >= deadline:
            return answer
        await asyncio.sleep(_POLL_INTERVAL)


def _answer(response: httpx.Response) -> Answer:
    try:
        body = response.json()
    except ValueError:
        body = {"detail": response.text[:500]}
    return Answer(status=response.status_code, body=body if isinstance(body, dict) else {"detail": str(body)[:500]})


def _expect(status: int, doing: str, answer: Answer) -> Answer:
    if answer.status != status:
        raise DemoError(f"{doing}: {answer.status} where {status} was due. {answer.detail or dict(answer.body)}")
    return answer
