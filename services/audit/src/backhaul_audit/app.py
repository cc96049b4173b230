"""The composition root: what this service is made of. ``Service`` makes the clients, and closes them."""

from __future__ import annotations

import asyncio

from backhaul_common.service import Service

from backhaul_audit.settings import AuditSettings


async def run(settings: AuditSettings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set."""
    async with Service("audit", settings, tenant_secrets=True) as service:
        await service.until(stop)
