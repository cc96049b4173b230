"""NATS beyond publishing: streams, a tenant's part of them, and news about tenants."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from backhaul_common import jetstream
from backhaul_common.directory import TenantDirectory
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.jetstream import AWAY, require_connected, translated
from backhaul_common.logs import get_logger
from backhaul_common.names import (
    CALLBACKS_STREAM,
    NORMALIZER_CONSUMER,
    SERVICE_CHANGED_SUBJECT,
    STREAMS,
    TENANT_CHANGED_SUBJECT,
    callbacks_subject,
    held_subject,
    streams_of,
)
from backhaul_common.sizes import BESIDE_BODY_BYTES
from backhaul_common.tenants import Limits, Tenant
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamInfo
from nats.js.errors import NotFoundError

_TIMEOUT_S = 2.0


class Broker:
    """An ``Announcer``, a ``ServiceAnnouncer`` and ``TenantStreams``. Usable before NATS is: everything is UNAVAILABLE
    until then."""

    def __init__(self, client: Client, directory: TenantDirectory) -> None:
        self._client = client
        self._directory = directory
        self._log = get_logger(component="broker")

    async def check(self) -> None:
        """See ``TenantStreams``. A full log is no reason not to be ready: small callbacks, reads and the administration
        that mends it would be cut off as well, everywhere at once."""
        require_connected(self._client)
        await self._info()

    async def check_room(self) -> None:
        """See ``TenantStreams``."""
        info = await self._info()
        limits = [tenant.limits for tenant in self._directory.tenants.values()] or [Limits()]
        size = max(limit.max_body_bytes for limit in limits) + BESIDE_BODY_BYTES
        if lacking := jetstream.lacks_room(info, size):
            raise BackhaulError(
                Code.UNAVAILABLE,
                # Tenants are shown this, and the rest is for the platform team alone.
                "The callback log is full.",
                fix=f"It holds {lacking}, and a callback may need {size}: raise BACKHAUL_STREAM_MAX_BYTES, or "
                "lower BACKHAUL_STREAM_MAX_AGE_S.",
                retry_after_s=5,
            )

    async def _info(self) -> StreamInfo:
        js = self._js()
        async with translated():
            try:
                return await js.stream_info(CALLBACKS_STREAM)
            except NotFoundError:
                raise unavailable("The callback log") from None

    async def tenant_changed(self, tenant_id: str) -> None:
        """See ``Announcer``. A service that is not reached finds out by its next full read."""
        try:
            await self._directory.reload(tenant_id)
        except BackhaulError as exc:
            self._log.warning("tenant_reload_failed", tenant=tenant_id, error=str(exc))
        try:
            await self.connected().publish(TENANT_CHANGED_SUBJECT, tenant_id.encode())
        except (BackhaulError, *AWAY) as exc:
            self._log.warning("tenant_change_not_announced", tenant=tenant_id, error=repr(exc))

    async def service_changed(self, service_id: str) -> None:
        """See ``ServiceAnnouncer``. A service that is not reached finds out by its next look at all accounts."""
        try:
            await self.connected().publish(SERVICE_CHANGED_SUBJECT, service_id.encode())
        except (BackhaulError, *AWAY) as exc:
            self._log.warning("service_change_not_announced", service=service_id, error=repr(exc))

    async def holds_messages(self, tenant: Tenant) -> bool:
        """See ``TenantStreams``."""
        async with translated():
            return await jetstream.holds_messages(self._js(), streams_of(tenant.queue_path))

    async def ends(self) -> Mapping[str, int]:
        """See ``TenantStreams``. A stream that is not there ends at 0."""
        async with translated():
            return await jetstream.ends(self._js(), STREAMS)

    async def purge(self, tenant: Tenant, ends: Mapping[str, int]) -> None:
        """See ``TenantStreams``."""
        async with translated():
            await jetstream.purge(self._js(), streams_of(tenant.queue_path), ends)

    async def last_callback_at(self, tenant: Tenant, channel: str) -> datetime | None:
        """See ``TenantStreams``. Asked of the log, so that it is true across restarts and copies of the gateway."""
        js = self._js()
        path, found = tenant.queue_path, []
        async with translated():
            # What is held has left the place where it was stored first.
            for subject in (callbacks_subject(path, channel), held_subject(path, channel)):
                with suppress(NotFoundError):
                    found.append((await js.get_last_msg(CALLBACKS_STREAM, subject)).time)
        return max((time for time in found if time is not None), default=None)

    async def held(self, tenant: Tenant, channel: str) -> int:
        """See ``TenantStreams``."""
        subject = held_subject(tenant.queue_path, channel)
        async with translated():
            return (await jetstream.subjects(self._js(), CALLBACKS_STREAM, subject)).get(subject, 0)

    async def callbacks_waiting(self) -> int:
        """How many messages of the callback log, of all tenants, are not processed yet. UNAVAILABLE."""
        js = self._js()
        async with translated():
            try:
                info = await js.consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
            except NotFoundError:
                raise unavailable("The normalizer's consumer") from None
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    def connected(self) -> Client:
        """The connection; UNAVAILABLE while there is none."""
        if not self._client.is_connected:
            raise unavailable("NATS")
        return self._client

    def _js(self) -> JetStreamContext:
        return self.connected().jetstream(timeout=_TIMEOUT_S)
