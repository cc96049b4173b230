"""Tenants' endpoints and their subscriptions, as the notifier's figures need them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Any
from urllib.parse import urlencode

import httpx
from backhaul_client import AsyncTenantClient
from backhaul_common.ids import derived_id
from backhaul_common.names import (
    DELIVERIES_COLLECTION,
    ENDPOINTS_COLLECTION,
    EVENTS_STREAM,
    NOTICES_STREAM,
    NOTIFIER_OUTBOX,
    NOTIFIER_POSITIONS_COLLECTION,
    SUBSCRIPTIONS_COLLECTION,
    events_subject,
)
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from backhaul_testing.twilio import new_sid
from generators import LoadError
from installation import Document, Installation

HERE = Path(__file__).parent
SERVICE = "notifier"
_CHANNEL = "twilio"
_IN_FLIGHT = 16
_LOOK_S = 0.05
_COPIED_AT_ONCE = 5_000
_PATIENCE_S = 120.0


class Receiver:
    """A receiver.py that runs."""

    def __init__(self, port: int, http: httpx.AsyncClient) -> None:
        self.port = port
        self._http = http

    def url(self, path: str) -> str:
        """The address of its ``path``."""
        return f"http://127.0.0.1:{self.port}{path}"

    async def asked(self, path: str) -> Any:
        """What it says."""
        return (await self._http.get(self.url(path))).json()

    async def calls(self) -> int:
        """How many have come since it started."""
        return int((await self.asked("/count"))["calls"])

    async def hanging(self) -> int:
        """How many hang."""
        return int((await self.asked("/count"))["hanging"])

    async def arrived(self) -> dict[str, float]:
        """When each message's state was told, of those since this was asked last."""
        return dict((await self.asked("/take"))["arrived"])

    async def latest(self) -> bytes:
        """The last call, as it came."""
        return str((await self.asked("/take"))["latest"]).encode("latin-1")


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """One in a process of its own, which has ended afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "receiver.py"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        async with httpx.AsyncClient(trust_env=False, timeout=30.0) as http:
            yield Receiver(port, http)
    finally:
        process.kill()
        await process.wait()


class Subscribed:
    """A tenant with one subscription, whose calls go to ``url``."""

    def __init__(self, site: Installation, tenant: str, key: str, registration: str, client: AsyncTenantClient) -> None:
        self.tenant = tenant
        self.key = key
        self.id = ""
        self._site = site
        self._registration = registration
        self._client = client

    async def subscribe(self, url: str, **more: Any) -> None:
        """Have all that becomes of messages be told."""
        self.id = (await self._client.subscriptions.create(["message.*"], http={"url": url}, **more)).id

    async def pause(self) -> None:
        """See ``subscriptions.pause``."""
        await self._client.subscriptions.pause(self.id)

    async def resume(self) -> None:
        """See ``subscriptions.resume``."""
        await self._client.subscriptions.resume(self.id)

    def events(self, count: int) -> list[Event]:
        """Of so many messages, as the normalizer makes them of Twilio's callbacks."""
        now_us = time.time_ns() // 1000
        made = []
        for n in range(count):
            sid = new_sid()
            form = self._site.traffic.twilio_body(sid, "delivered")
            made.append(
                Event(
                    id=derived_id(self._registration, sid),
                    tenant_id=self.tenant,
                    registration=self._registration,
                    channel=_CHANNEL,
                    provider="twilio",
                    kind=event_pb2.EVENT_KIND_DELIVERED,
                    provider_status="delivered",
                    message_id=sid,
                    recipient=form["To"],
                    recipient_family=event_pb2.ADDRESS_FAMILY_PHONE,
                    sender=form["From"],
                    communication_id=f"offer-{n % 10}",
                    received_at_us=now_us + n,
                    source=callback_pb2.SOURCE_CALLBACK,
                    verification=callback_pb2.VERIFICATION_VERIFIED,
                    references=[form["MessagingServiceSid"]],
                    raw=urlencode(form).encode(),
                )
            )
        return made

    async def publish(self, events: Sequence[Event]) -> None:
        """One message of EVENTS."""
        subject = events_subject(self.tenant, _CHANNEL, "delivered")
        await self._site.js.publish(subject, EventBatch(events=events).SerializeToString())

    async def publish_all(self, events: Sequence[Event], together: int) -> None:
        """So many to a message."""
        messages = [events[at : at + together] for at in range(0, len(events), together)]
        for at in range(0, len(messages), _IN_FLIGHT):
            await asyncio.gather(*map(self.publish, messages[at : at + _IN_FLIGHT]))

    async def waiting(self) -> int:
        """How many deliveries wait."""
        query = {"subscription": self.id, "state": "waiting"}
        return await self._site.database[DELIVERIES_COLLECTION].count_documents(query)

    async def until_waiting(self, count: int) -> None:
        """Return when exactly so many wait."""

        async def there() -> bool:
            return await self.waiting() == count

        await until(self._site, f"{count} deliveries of {self.tenant} to wait", there)


@asynccontextmanager
async def subscribed(site: Installation, tenant: str, url: str, **more: Any) -> AsyncIterator[Subscribed]:
    """A new tenant with one subscription."""
    key = await site.register(tenant)
    async with AsyncTenantClient(site.stack.gateway_url, key) as client:
        made = Subscribed(site, tenant, key, await site.registration(tenant), client)
        await made.subscribe(url, **more)
        yield made


async def until(site: Installation, what: str, done: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Return when it is ``done``. LoadError, which says ``what`` was waited for, when the notifier has ended or it
    takes minutes."""
    service = site.stack.service(SERVICE)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while not await done():
                if not service.running:
                    raise LoadError(f"{service.name} has ended:\n{service.log_tail()}")
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as exc:
        raise LoadError(f"It took minutes for {what}.") from exc


async def until_called(site: Installation, at: Receiver, count: int) -> None:
    """Return when so many calls have come."""

    async def there() -> bool:
        return await at.calls() >= count

    await until(site, f"{count} calls", there)


@asynccontextmanager
async def telling(site: Installation) -> AsyncIterator[None]:
    """The notifier runs, calls this machine by plain HTTP, and has nobody to tell anything; nor afterwards."""
    site.stack.service(SERVICE).env.update(
        {"BACKHAUL_NOTIFIER_PLAIN_HTTP": "true", "BACKHAUL_NOTIFIER_ALLOWED_NETWORKS": "127.0.0.0/8"}
    )
    await site.stop(SERVICE, "normalizer")
    await site.forget()
    await _forget(site)
    await site.ensure("gateway", "normalizer", SERVICE)
    try:
        yield
    finally:
        await site.stop(SERVICE, "normalizer")
        await _forget(site)
        await site.purge_callbacks()
        await site.forget()


async def _forget(site: Installation) -> None:
    for name in (SUBSCRIPTIONS_COLLECTION, ENDPOINTS_COLLECTION, DELIVERIES_COLLECTION, NOTIFIER_OUTBOX):
        await site.database.drop_collection(name)
    # Their streams begin anew.
    await site.database[NOTIFIER_POSITIONS_COLLECTION].delete_many({"_id": {"$in": [EVENTS_STREAM, NOTICES_STREAM]}})


async def copy_waiting(site: Installation, of: Subscribed, count: int) -> None:
    """Have ``count`` deliveries wait, by copies of one that waits, of other messages and recipients. The notifier must
    not run."""
    rows, endpoints = site.database[DELIVERIES_COLLECTION], site.database[ENDPOINTS_COLLECTION]
    last = await rows.find_one({"subscription": of.id, "state": "waiting"}, sort=[("order", -1)])
    assert last is not None
    row: Document = last

    def copied(n: int) -> Document:
        # A tenth of them is of somebody of whom another one waits before.
        key = {"key": bytes.fromhex(derived_id("key", f"{n - n % 10 // 9:08d}"))} if "key" in row else {}
        own = {"_id": token_bytes(16), "event_id": token_hex(16), "message_id": new_sid(), "order": row["order"] + n}
        return {**row, **own, **key}

    missing = range(1, count - await of.waiting() + 1)
    for at in range(0, len(missing), _COPIED_AT_ONCE):
        await rows.insert_many(map(copied, missing[at : at + _COPIED_AT_ONCE]), ordered=False)
    await endpoints.update_one({"_id": of.id}, {"$inc": {"told": 1}, "$min": {"due_at_us": row["due_at_us"]}})
