"""The account after a fault: what was answered 200 against what the system holds, and its sums against a recount.

Written from the documentation of states and counts, and from nothing in the services: an account that asked the
services' own tables would repeat their mistakes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import httpx
from backhaul_client.models import Event
from backhaul_local.stack import Stack
from backhaul_testing import broker, streams
from backhaul_testing.waiting import until
from faults.whereabouts import whereabouts
from simulators.load import Key, Load
from simulators.people import CREDENTIAL, Tenant

# The words of the load, from the first state of a message to the last: the furthest one stands, whenever it came.
_ORDER = {
    "twilio": ("queued", "sent", "failed", "undelivered", "delivered"),
    "sendgrid": ("processed", "deferred", "dropped", "delivered", "bounce", "open", "click"),
}
_KIND = {
    "queued": "queued", "sent": "sent", "failed": "failed", "undelivered": "undelivered", "delivered": "delivered",
    "processed": "queued", "deferred": "deferred", "dropped": "rejected", "bounce": "bounced", "open": "opened",
    "click": "clicked",
}  # fmt: skip
_FULFILMENT = {
    "queued": "Queued", "sent": "Sent", "deferred": "Sent", "failed": "Failed", "rejected": "Failed",
    "undelivered": "Undelivered", "bounced": "Undelivered", "delivered": "Delivered", "opened": "Delivered",
    "clicked": "Delivered",
}  # fmt: skip
_INVALID_NUMBER = "21614"


@dataclass(frozen=True, slots=True)
class Figures:
    """What the account found, for a test to see that there was something to find."""

    events: int
    messages: int
    uncertain: int
    """Events that were sent, never answered 200, and stored all the same; a retry would have been a duplicate."""
    published_again: int
    """Events that are on EVENTS more than once, as an at-least-once stream may hold them."""


async def drained(stack: Stack, *, within_s: float = 60.0) -> None:
    """Return when every callback that was answered has been processed and acknowledged."""
    await unspooled(stack, within_s=within_s)
    connection = await broker.connect(stack.nats_url)
    try:
        await streams.drained(connection, "CALLBACKS", "normalizer", within_s=within_s)
    finally:
        await connection.close()


async def spooled(stack: Stack) -> int:
    """How many callbacks the gateways keep on their disks. A gateway of an older version may have no spool."""
    ports = [service.ports["http"] for service in stack.services if service.spec.module == "backhaul_gateway"]
    kept = 0
    async with httpx.AsyncClient() as http:
        for port in ports:
            text = (await http.get(f"http://127.0.0.1:{port}/metrics", timeout=10)).text
            lines = [line for line in text.splitlines() if line.startswith("backhaul_gateway_spool_callbacks")]
            kept += sum(int(float(line.rpartition(" ")[2])) for line in lines)
    return kept


async def unspooled(stack: Stack, *, within_s: float = 60.0) -> None:
    """Return when JetStream has all that the gateways had kept for it."""

    async def probe() -> bool:
        return await spooled(stack) == 0

    await until("an empty spool", probe, within_s=within_s)


async def settle(stack: Stack, load: Load, *tenants: Tenant) -> Figures:
    """Wait until the load has been processed, then check everything; AssertionError names what is wrong."""
    await drained(stack)
    published = await published_events(stack)
    events = messages = uncertain = 0
    for tenant in tenants:
        stored = await _check_events(stack, tenant, load)
        messages += await _check_messages(tenant, load, set(stored))
        await _check_communications(tenant, load, set(stored))
        missing = {row.id for row in stored.values()} - published[tenant.id].keys()
        assert not missing, f"{len(missing)} of {len(stored)} events are not on EVENTS: {sorted(missing)[:5]}"
        strange = published[tenant.id].keys() - {row.id for row in stored.values()}
        assert not strange, f"{len(strange)} events on EVENTS are not stored: {sorted(strange)[:5]}"
        assert await tenant.dead_letters() == []
        events += len(stored)
        uncertain += len(stored.keys() - load.answered)
    for service in stack.services:
        # Exceptions are logged when processes die around a service, and no credential with them.
        assert not CREDENTIAL.search(service.log_path.read_text("utf-8", "replace")), f"{service.name} logged a key"
    again = sum(count - 1 for tenant in tenants for count in published[tenant.id].values())
    return Figures(events, messages, uncertain, again)


async def published_events(stack: Stack) -> dict[str, Counter[str]]:
    """How often each event id is on EVENTS, by tenant."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    connection = await broker.connect(stack.nats_url)
    try:
        for event in await streams.published(connection):
            found[event.tenant_id][event.id] += 1
    finally:
        await connection.close()
    return found


def key_of(tenant: Tenant, row: Event) -> Key:
    """The provider's own id of a stored event."""
    if row.channel == "sendgrid":
        return tenant.id, "sendgrid", row.data["sg_event_id"]
    return tenant.id, "twilio", f"{row.message_id}:{row.provider_status}"


async def _check_events(stack: Stack, tenant: Tenant, load: Load) -> dict[Key, Event]:
    stored: dict[Key, Event] = {}
    for row in await tenant.events(page_size=500):
        key = key_of(tenant, row)
        assert key not in stored, f"stored twice: {key}"
        stored[key] = row
    own = {key: fact for key, fact in load.attempted.items() if key[0] == tenant.id}
    lost = {key for key in load.answered if key[0] == tenant.id} - stored.keys()
    if lost:
        found = await whereabouts(stack, load, lost)
        letters = await tenant.dead_letters()
        raise AssertionError(
            f"answered 200 and lost: {len(lost)} of {len(own)}, such as {sorted(lost)[:5]}\n"
            f"Dead letters: {len(letters)}\n{found}"
        )
    invented = stored.keys() - own.keys()
    assert not invented, f"stored and never sent: {sorted(invented)[:5]}"
    for key, row in stored.items():
        fact = own[key]
        assert (row.kind, row.message_id, row.communication_id, row.error_code) == (
            _KIND[fact.word], fact.message_id, fact.communication, fact.error,
        ), key  # fmt: skip
    return stored


def _by_message(tenant: Tenant, load: Load, stored: set[Key]) -> dict[tuple[str, str], list[Key]]:
    groups: dict[tuple[str, str], list[Key]] = defaultdict(list)
    for key in stored:
        groups[key[1], load.attempted[key].message_id].append(key)
    return groups


def _state(load: Load, channel: str, keys: list[Key]) -> tuple[str, str]:
    """State and fulfilment state of a message that has the events of ``keys``."""
    facts = [load.attempted[key] for key in keys]
    last = max(facts, key=lambda fact: _ORDER[channel].index(fact.word))
    fulfilment = _FULFILMENT[_KIND[last.word]]
    return _KIND[last.word], "InvalidNumber" if last.error == _INVALID_NUMBER else fulfilment


async def _check_messages(tenant: Tenant, load: Load, stored: set[Key]) -> int:
    groups = _by_message(tenant, load, stored)
    rows = {(row.channel, row.message_id): row for row in await tenant.messages(page_size=500)}
    assert rows.keys() == groups.keys()
    for (channel, message_id), keys in groups.items():
        row = rows[channel, message_id]
        expected = (*_state(load, channel, keys), len(keys))
        assert (row.state, row.fulfilment_state, row.event_count) == expected, (channel, message_id)
    return len(rows)


async def _check_communications(tenant: Tenant, load: Load, stored: set[Key]) -> None:
    events: dict[str, Counter[str]] = defaultdict(Counter)
    fulfilment: dict[str, Counter[str]] = defaultdict(Counter)
    for (channel, _), keys in _by_message(tenant, load, stored).items():
        communication = load.attempted[keys[0]].communication
        fulfilment[communication][_state(load, channel, keys)[1]] += 1
        events[communication].update(_KIND[load.attempted[key].word] for key in keys)
    assert events
    for communication, kinds in events.items():
        counted = await tenant.communication(communication)
        assert counted is not None, communication
        assert counted.events == dict(kinds), communication
        states = {state: count for state, count in counted.fulfilment.items() if count}
        assert states == dict(fulfilment[communication]), communication
        assert counted.messages == fulfilment[communication].total(), communication
