"""What tests of callers share: a server that asks for credentials, and the accounts that it knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from backhaul_common import mongo, rpc
from backhaul_common.accounts import ServiceAccount, ServiceToken
from backhaul_common.directory import ServiceDirectory
from backhaul_common.errors import BackhaulError
from backhaul_common.ids import new_registration
from backhaul_common.revisioned import Documents
from backhaul_common.secrets import new_credential
from backhaul_common.settings import CommonSettings
from pydantic import SecretStr
from rpc_service import SERVICE, Answer, Ask, Stub, handlers
from serving_rig import served
from test_rpc_tls import Authority

INTERNAL = "internal-token-0123456789abcdefghij"
VERBS: dict[str, Any] = {
    f"{SERVICE}.Get": "check",
    f"{SERVICE}.Watch": "watch",
    f"{SERVICE}.Check": "check",
    f"{SERVICE}.Import": "import",
}
EVERYTHING = ("check", "read", "add", "lift", "import", "export", "watch")
METHODS = ["Get", "Watch", "Import", "Check"]


class Servicer:
    """Says who called."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.ended = asyncio.Event()

    def _who(self) -> str:
        caller = rpc.caller()
        self.called.append("internal" if caller.internal else caller.author)
        return self.called[-1]

    async def do_get(self, request: Any, context: Any) -> Any:
        rpc.caller().take_checks(request.number)
        rpc.caller().require_purpose(request.text)
        return Answer(text=self._who())

    async def do_watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            yield Answer(text=self._who())
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def do_import(self, requests: AsyncIterator[Any], context: Any) -> Any:
        return Answer(text=self._who(), number=len([request async for request in requests]))

    async def do_check(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            await rpc.caller().wait_for_checks(request.number)
            yield Answer(text=self._who())

    async def do_keys(self, request: Any, context: Any) -> Any:
        return Answer(text=self._who())


class World:
    """A server that asks for credentials, and the accounts that it knows."""

    def __init__(self, accounts: mongo.Collection, authority: Authority | None) -> None:
        self._accounts = accounts
        self.directory = ServiceDirectory(Documents(accounts), refresh_s=3600)
        self.authority = authority
        self.servicer = Servicer()
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.target = ""
        self.stack = AsyncExitStack()

    def time(self) -> float:
        """The server's clock."""
        return self.now.timestamp()

    async def start(self, **options: Any) -> None:
        """``options`` are others of ``rpc.serve``."""
        server_settings = self.authority.settings("server") if self.authority else CommonSettings()
        server = await served(
            self.stack,
            SERVICE,
            register=partial(handlers, servicer=self.servicer),
            settings=server_settings,
            without_tenant=[f"{SERVICE}.Keys"],
            access=rpc.Access(["older-" + INTERNAL, INTERNAL], self.directory, VERBS, now=self.time),
            **options,
        )
        self.target = f"127.0.0.1:{server.port}"

    def client(self, token: str = "", *, dns: tuple[str, ...] = (), uris: tuple[str, ...] = ()) -> Stub:
        """A caller with a token, or a certificate with these names. Each has a connection of its own."""
        settings = CommonSettings()
        if self.authority is not None:
            settings = self.authority.settings("client", dns=dns, uris=uris)
        # What is shown need not be long enough for a setting.
        channel = rpc.connect(self.target, settings.model_copy(update={"internal_token": SecretStr(token)}))
        self.stack.push_async_callback(channel.close)
        return Stub(channel)

    async def account(self, service_id: str = "crm", **values: Any) -> str:
        """Store an account, and return the text of its token."""
        token_id, text, digest = new_credential("service")
        account = ServiceAccount(
            id=service_id,
            registration=new_registration(service_id),
            name=service_id,
            tokens=(
                ServiceToken(id=token_id, digest=digest, created_at=self.now, expires_at=values.pop("expires", None)),
            ),
            **{
                "tenants": ("acme",),
                "verbs": EVERYTHING,
                "created_at": self.now,
                "updated_at": self.now,
                **values,
            },
        )
        await self._accounts.replace_one({"_id": service_id}, account.to_document(), upsert=True)
        await self.directory.reload(service_id)
        return text

    async def change(self, service_id: str = "crm", **fields: Any) -> None:
        """Change it as another process would; nobody is told."""
        await self._accounts.update_one({"_id": service_id}, {"$set": fields, "$inc": {"revision": 1}})

    async def delete(self, service_id: str = "crm") -> None:
        await self._accounts.delete_one({"_id": service_id})


async def asks(*requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def first(stub: Stub, method: str, tenant: str = "acme") -> str:
    """The first answer of a method."""
    request = Ask(tenant_id=tenant)
    if method in ("Import", "Check"):
        request = asks(request)
    answers = getattr(stub, method)(request)
    answer = await anext(answers) if method in ("Watch", "Check") else await answers
    if method in ("Watch", "Check"):
        await answers.aclose()
    text: str = answer.text
    return text


async def refusal(stub: Stub, method: str = "Get", tenant: str = "acme") -> BackhaulError:
    with pytest.raises(BackhaulError) as caught:
        await first(stub, method, tenant)
    return caught.value
