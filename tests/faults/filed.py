"""The account of audit files: what is on EVENTS against what lies in the bucket, and in the digests there."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backhaul_local.service import ServiceSpec, default_services, service_spec
from backhaul_testing import broker, streams
from backhaul_testing.waiting import until
from faults.account import drained
from simulators.archive import Archive, ask_for_files, filed, files_of, in_digests, lines_of, signed, verified

if TYPE_CHECKING:
    from backhaul_client.auditmodels import AuditFile
    from backhaul_local.stack import Stack
    from simulators.people import Tenant, Town

Json = dict[str, Any]
Pair = tuple[str, int]
"""An event's id and revision."""

FIRST, SECOND = "audit", "second"
"""The copies' names in the stack."""

ENV = {
    # So small and so young that a kill hits a file at any step of its life.
    "BACKHAUL_AUDIT_MAX_FILE_EVENTS": "25",
    "BACKHAUL_AUDIT_MAX_FILE_AGE_S": "0.3",
    "BACKHAUL_AUDIT_DIGEST_EVERY_S": "2",
    # What a dead normalizer had in hand comes back after this time; production waits longer.
    "BACKHAUL_NORMALIZER_ACK_WAIT_S": "3",
}

SETTLED_S = 90.0


@dataclass(frozen=True)
class Filing:
    """A stack with two copies of audit, which tests break in turn, and the people around it."""

    stack: Stack
    town: Town

    async def two_tenants(self) -> tuple[Tenant, Tenant]:
        """New ones: one with plain files, one with compressed ones."""
        tenants = await self.town.platform.register(), await self.town.platform.register()
        for tenant, gzip in zip(tenants, (False, True), strict=True):
            await ask_for_files(self.town.platform, tenant, with_event=True, gzip=gzip)
        return tenants


def two_copies() -> tuple[ServiceSpec, ...]:
    """All services, and audit once more."""
    return (*default_services(), replace(service_spec(FIRST), name=SECOND))


async def settle(stack: Stack, *tenants: Tenant) -> int:
    """Wait until everything is filed and signed, then check it; how many events lie in files. AssertionError names what
    is wrong. The channels of ``tenants`` asked for JSON Lines with events, from the beginning."""
    assert stack.object_store is not None
    archive = Archive(stack.object_store)
    await drained(stack)
    published = await _published(stack)
    total = 0
    for tenant in tenants:
        await filed(tenant, len(published[tenant.id]), within_s=SETTLED_S)
        files = await in_digests(tenant, await files_of(tenant), within_s=SETTLED_S)
        lie = await _check_files(archive, tenant, files)
        assert lie == published[tenant.id], (len(lie), len(published[tenant.id]))
        await _check_digests(archive, tenant, files)
        found = await verified(tenant)
        assert (found.files, found.invalid) == (len(files), [])
        total += len(lie)
    return total


async def _published(stack: Stack) -> dict[str, set[Pair]]:
    """What EVENTS has, by tenant: each once, however often it was published."""
    connection = await broker.connect(stack.nats_url)
    try:
        told = await streams.published(connection)
    finally:
        await connection.close()
    found: dict[str, set[Pair]] = defaultdict(set)
    for event in told:
        found[event.tenant_id].add((event.id, event.revision))
    return found


async def _check_files(archive: Archive, tenant: Tenant, files: list[AuditFile]) -> set[Pair]:
    """The events that lie in the tenant's objects, each in one; and these are the files that Backhaul tells of."""
    keys = await archive.keys(f"tenants/{tenant.registration}/")
    assert sorted(keys) == sorted(one.key for one in files)
    lie: Counter[Pair] = Counter()
    for one in files:
        events = [json.loads(line)["event"] for line in lines_of(one.key, await archive.get(one.key))]
        assert len(events) == one.events, one.key
        assert {event["channel"] for event in events} == {one.channel}
        lie.update((event["id"], event["revision"]) for event in events)
    twice = {pair: count for pair, count in lie.items() if count > 1}
    assert not twice, f"{len(twice)} of {len(lie)} lie in several places: {list(twice.items())[:5]}"
    return set(lie)


async def _check_digests(archive: Archive, tenant: Tenant, files: list[AuditFile]) -> None:
    """Each file stands in one digest; digests and files of a chain are numbered without gaps."""
    digests = [signed(await archive.get(key)) for key in await archive.keys(f"digests/{tenant.registration}/")]
    for chain in {one.chain for one in files}:
        by_number = sorted((one for one in digests if one["chain"] == chain), key=lambda one: one["digestNumber"])
        assert [one["digestNumber"] for one in by_number] == list(range(1, len(by_number) + 1))
        listed = [file for one in by_number for file in one["files"]]
        own = [one for one in files if one.chain == chain]
        # A digest that was made since may list nothing that was not there.
        assert [file["number"] for file in listed] == list(range(1, len(own) + 1))
        assert sorted(file["object"] for file in listed) == sorted(one.key for one in own)


async def more_files(stack: Stack, tenant: Tenant, count: int = 1) -> None:
    """Return when there are so many more files in the bucket than now. Audit itself may be unable to tell."""
    assert stack.object_store is not None
    archive, prefix = Archive(stack.object_store), f"tenants/{tenant.registration}/"
    wanted = len(await archive.keys(prefix)) + count

    async def probe() -> bool:
        return len(await archive.keys(prefix)) >= wanted

    await until(f"{count} more files", probe, within_s=SETTLED_S)
