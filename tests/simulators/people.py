"""The two kinds of people who call Backhaul: the platform team, and the tenants' own applications."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import urlencode

import httpx
from backhaul_client import AsyncAdminClient, AsyncTenantClient, LimitsIn, NotFoundError, SuppressionIn
from backhaul_client.models import Communication, DeadLetterSummary, Event, Message, MessageSummary
from backhaul_testing.posts import Post, send
from backhaul_testing.sendgrid import SendGridSimulator
from backhaul_testing.twilio import TwilioSimulator, new_sid
from backhaul_testing.waiting import until

Json = dict[str, Any]

CREDENTIAL = re.compile(r"\bbh[kis]_[0-9a-f]{12}_[0-9a-f]{16,}")
"""The form of API keys, ingest tokens and services' tokens, whose first half is public; the whole of one may stand in
no log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One tenant as its own application knows it, with the providers that it has contracts with."""

    http: httpx.AsyncClient
    base_url: str
    id: str
    registration: str
    queue_path: str
    api_key: str
    ingest_token: str
    twilio: TwilioSimulator
    sendgrid: SendGridSimulator

    @property
    def client(self) -> AsyncTenantClient:
        """The API, typed."""
        return AsyncTenantClient(self.base_url, self.api_key, http=self.http)

    def address(self, channel: str, *, fragment: str = "", **custom: str) -> str:
        """The callback URL that this tenant gives to a provider: by its ingest token, with custom parameters."""
        query = urlencode({"channelLabel": channel, **custom})
        return f"{self.base_url}/in/{self.ingest_token}/api/postevents?{query}" + (f"#{fragment}" if fragment else "")

    async def send(self, post: Post) -> httpx.Response:
        """One try of one of the providers."""
        return await send(self.http, post)

    async def receive(self, *posts: Post) -> None:
        """Each is taken, in this order."""
        for post in posts:
            assert (await self.send(post)).status_code == 200

    def reply(self, person: str, text: str, sid: str = "", **fields: str) -> Post:
        """A text message that ``person`` writes to the tenant's number at Twilio."""
        return self.twilio.inbound(self.address("Twilio"), sid or new_sid(), text, sender=person, **fields)

    async def get(self, path: str, **params: Any) -> httpx.Response:
        """GET with the API key, whatever is answered."""
        return await self.http.get(self.base_url + path, params=params, headers={"X-Api-Key": self.api_key})

    async def post(self, path: str, **params: Any) -> httpx.Response:
        """POST without a body, with the API key, whatever is answered."""
        return await self.http.post(self.base_url + path, params=params, headers={"X-Api-Key": self.api_key})

    async def read(self, path: str, **params: Any) -> Json:
        """The JSON of a GET that must succeed."""
        answer = await self.get(path, **params)
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    async def events(self, **filters: Any) -> list[Event]:
        """All events, those that the client's filters let through."""
        return [event async for event in self.client.events(**filters)]

    async def event_of(self, channel: str, message_id: str) -> Event:
        """The first event of a message, as soon as it can be read."""

        async def probe() -> Event | None:
            return next(iter(await self.events(channel=channel, message_id=message_id)), None)

        return await until(f"an event of {channel} message {message_id}", probe)

    async def messages(self, **filters: Any) -> list[MessageSummary]:
        """All messages, likewise."""
        return [message async for message in self.client.messages(**filters)]

    async def dead_letters(self, **filters: Any) -> list[DeadLetterSummary]:
        """All dead letters, likewise."""
        return [letter async for letter in self.client.dead_letters(**filters)]

    async def message(self, channel: str, message_id: str) -> Message | None:
        """A message with its timeline; None while nothing has named it."""
        try:
            return await self.client.message(channel, message_id)
        except NotFoundError:
            return None

    async def message_with(self, channel: str, message_id: str, events: int, *, within_s: float = 15.0) -> Message:
        """A message as soon as it has ``events`` events."""

        async def probe() -> Message | None:
            message = await self.message(channel, message_id)
            return message if message is not None and message.event_count >= events else None

        return await until(f"{events} events of {channel} message {message_id}", probe, within_s=within_s)

    async def communication(self, communication_id: str) -> Communication | None:
        """A communication's counts; None while nothing has named it."""
        try:
            return await self.client.communication(communication_id)
        except NotFoundError:
            return None


class PlatformTeam:
    """Whoever holds the admin token of an installation. ``client`` is the API, typed."""

    def __init__(self, http: httpx.AsyncClient, base_url: str, admin_token: str) -> None:
        self._http = http
        self.base_url = base_url
        self.client = AsyncAdminClient(base_url, admin_token, http=http)
        self._headers = {"Authorization": f"Bearer {admin_token}"}
        self._registered: list[str] = []

    async def call(self, method: str, path: str, body: Json | None = None, **params: Any) -> httpx.Response:
        """One call under ``/admin/v1/tenants``, whatever is answered."""
        return await self._http.request(
            method, f"{self.base_url}/admin/v1/tenants{path}", json=body, params=params, headers=self._headers
        )

    async def register(
        self,
        *,
        tenant_id: str | None = None,
        queue_path: str | None = None,
        verification: Literal["enforce", "observe", "off"] = "enforce",
        limits: LimitsIn | None = None,
        suppression: SuppressionIn | None = None,
    ) -> Tenant:
        """A tenant with a Twilio and a SendGrid channel, whose secrets are those of its own simulators."""
        unique = secrets.token_hex(4)
        made = await self.client.create_tenant(
            tenant_id or f"tenant-{unique}",
            name=f"Tenant {unique}",
            queue_path=queue_path or f"Path-{unique}",
            limits=limits,
            suppression=suppression,
        )
        self._registered.append(made.id)
        tenant = Tenant(
            http=self._http,
            base_url=self.base_url,
            id=made.id,
            registration=made.registration,
            queue_path=made.queue_path,
            api_key=made.api_key,
            ingest_token=made.ingest_token,
            twilio=TwilioSimulator(),
            sendgrid=SendGridSimulator(),
        )
        for label, secret in (("Twilio", tenant.twilio.auth_token), ("SendGrid", tenant.sendgrid.public_key)):
            await self.client.put_channel(tenant.id, label, secrets=[secret], verification=verification)
        return tenant

    async def delete(self, tenant: Tenant, *, within_s: float = 60.0) -> None:
        """Delete a tenant with all its data; returns when it is gone, and its id and queue path are free."""
        left = await self.client.delete_tenant(tenant.id, purge=True)
        assert left is not None
        assert left.status == "deleting"

        async def gone() -> bool:
            try:
                await self.client.tenant(tenant.id)
            except NotFoundError:
                return True
            return False

        await until(f"the end of {tenant.id}", gone, within_s=within_s)

    async def let_go(self) -> None:
        """Begin to delete every tenant that was registered here. What is done for each, whatever happens, would go on
        for as long as the installation runs."""
        for tenant_id in self._registered:
            with suppress(NotFoundError):
                await self.client.delete_tenant(tenant_id, purge=True)
        self._registered.clear()


class Town:
    """The people of one installation, with the connections that they share."""

    def __init__(self, base_url: str, admin_token: str, *, connections: int = 100) -> None:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self.http = httpx.AsyncClient(timeout=15.0, limits=limits)
        self.platform = PlatformTeam(self.http, base_url, admin_token)

    async def __aenter__(self) -> Self:
        await self.http.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self.http.__aexit__(*exc_info)
