"""Which channels ask for audit files, and how they want them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from backhaul_channels import Adapter
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.tenants import Channel, Tenant
from pydantic import ValidationError

from backhaul_audit.model import FileFormat, PileKey, Shape
from backhaul_audit.plans import Ask
from backhaul_audit.ports import Destinations, Tenants

MAX_STRANGERS = 10_000

MISSED_S = 5.0
"""For how long a channel that its tenant was seen not to have is not looked for again: it was removed, and what is left
of it must not cost a reading each."""


class Asking:
    """Worked out once for each revision of a tenant."""

    def __init__(self, tenants: Tenants, adapters: Mapping[str, Adapter[Any]], destinations: Destinations) -> None:
        self._tenants = tenants
        self._adapters = adapters
        self._destinations = destinations
        self._worked_out: dict[str, tuple[str, int, dict[str, Ask | None]]] = {}
        self._gone: set[str] = set()
        self._missed: dict[tuple[str, str], float] = {}
        self._log = get_logger(component="asking")

    def now(self, pile: PileKey) -> Ask | None:
        """What is asked of the pile's channel as far as this copy has heard. None where it asks for no files."""
        tenant = self._tenants.get(pile.registration.rpartition(".")[0])
        if tenant is None or tenant.registration != pile.registration or tenant.status == "deleting":
            return None
        return self._asks(tenant).get(pile.channel)

    def destinations(self, tenant: Tenant) -> Mapping[str, str]:
        """The tenant's channels that ask for files, with the destination of each."""
        return {key: ask.destination for key, ask in self._asks(tenant).items() if ask is not None}

    def gone(self, registration: str) -> bool:
        """Whether the registration is not there any more, as far as this copy has heard."""
        tenant = self._tenants.get(registration.rpartition(".")[0])
        return tenant is None or tenant.registration != registration or tenant.status == "deleting"

    async def of(self, tenant_id: str, registration: str, channel: str) -> Ask | None:
        """What the channel asks for, read now where this copy has not heard of it. UNAVAILABLE."""
        tenant = self._tenants.get(tenant_id)
        if tenant is None or tenant.registration != registration or channel not in tenant.channels:
            if registration in self._gone or self._missed.get((registration, channel), 0.0) > time.monotonic():
                return None
            try:
                tenant = await self._tenants.reload(tenant_id)
            except ValidationError as exc:
                # A newer version may have written the tenant. Waiting for it to be readable loses nothing.
                self._log.error("tenant_unreadable", tenant=tenant_id, errors=exc.error_count())
                raise BackhaulError(Code.UNAVAILABLE, f"The tenant {tenant_id} cannot be read.") from exc
            if tenant is None or tenant.registration != registration:
                # It never comes back, so its events need not be looked up one by one.
                if len(self._gone) >= MAX_STRANGERS:
                    self._gone.clear()
                self._gone.add(registration)
                return None
            if channel not in tenant.channels:
                if len(self._missed) >= MAX_STRANGERS:
                    self._missed.clear()
                self._missed[registration, channel] = time.monotonic() + MISSED_S
        return self._asks(tenant).get(channel)

    def _asks(self, tenant: Tenant) -> Mapping[str, Ask | None]:
        known = self._worked_out.get(tenant.id)
        if known is None or known[0] != tenant.registration or known[1] != tenant.revision:
            asks = {key: self._asks_of(tenant, channel) for key, channel in tenant.channels.items()}
            known = self._worked_out[tenant.id] = tenant.registration, tenant.revision, asks
        return known[2]

    def _asks_of(self, tenant: Tenant, channel: Channel) -> Ask | None:
        adapter = self._adapters.get(channel.provider)
        if adapter is None:
            return None
        try:
            files = adapter.settings_model.of_stored(channel.settings).audit_files()
        except ValidationError as exc:
            # What its callbacks are refused for as well: see the gateway.
            self._log.error("channel_settings_invalid", tenant=tenant.id, channel=channel.key, errors=exc.error_count())
            return None
        if files is None:
            return None
        try:
            bucket = self._destinations.of(tenant, channel).bucket
        except BackhaulError as exc:
            if exc.code is not Code.FAILED_PRECONDITION:
                raise
            bucket = ""
        return Ask(
            tenant_id=tenant.id,
            destination=channel.key if files.bucket is not None else "",
            bucket=bucket,
            shape=Shape(
                folder=files.folder,
                format=FileFormat(files.format),
                gzip=files.gzip,
                with_event=files.with_event,
                flat=files.layout == "flat",
                encrypted=files.encrypt_people,
            ),
        )
