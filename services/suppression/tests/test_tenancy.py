"""Tenants that are deleted and created anew while they are asked about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backhaul_common.tenants import Tenant
from backhaul_suppression.ports import ChangesListener
from backhaul_suppression.tenancy import KnownTenants
from backhaul_testing import make

FIRST = make.tenant("acme")
SECOND = FIRST.model_copy(update={"registration": "acme.2"})


class Directory:
    """A ``Tenants``. This copy has heard of ``known``, and ``stored`` is so. A read that is ``held`` up has what was
    stored when it began, and does not take the place of what a later one has."""

    def __init__(self, known: Tenant | None, stored: Tenant) -> None:
        self.known, self.stored = known, stored
        self.reads = self.believed = 0
        self.reading = asyncio.Event()
        self.held = asyncio.Event()
        self.held.set()

    def get(self, tenant_id: str) -> Tenant | None:
        return self.known

    async def require(self, tenant_id: str) -> Tenant:
        return self.known or await self.reload(tenant_id)

    async def reload(self, tenant_id: str) -> Tenant:
        self.reads += 1
        read, found = self.reads, self.stored
        self.reading.set()
        await self.held.wait()
        if read > self.believed:
            self.believed, self.known = read, found
        return found


class Heard:
    """A ``Changes``."""

    def listen(self, listener: ChangesListener) -> Callable[[], None]:
        self.say = listener
        return lambda: None


async def test_a_change_of_another_registration_has_the_tenant_read_again_once() -> None:
    heard, directory = Heard(), Directory(FIRST, SECOND)
    tenants = KnownTenants(directory, heard)
    heard.say(FIRST.registration)
    assert await tenants.require("acme") is FIRST
    heard.say(SECOND.registration)
    assert await tenants.require("acme") is SECOND
    assert await tenants.require("acme") is SECOND
    assert directory.reads == 1


async def test_what_was_read_before_the_tenant_was_created_anew_answers_nobody() -> None:
    for known in (None, FIRST.model_copy(update={"registration": "acme.0"})):
        heard, directory = Heard(), Directory(known, FIRST)
        tenants = KnownTenants(directory, heard)
        if known is not None:
            heard.say(FIRST.registration)
        directory.held.clear()
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(tenants.require("acme")) for _ in range(2)]
            await directory.reading.wait()
            directory.stored = SECOND
            heard.say(SECOND.registration)
            asking.append(group.create_task(tenants.require("acme")))
            directory.held.set()
        assert [task.result() for task in asking] == [SECOND] * 3
