"""Declared parameters through the whole system: the ``id`` and ``category`` of a Twilio status callback's address."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import TYPE_CHECKING

from backhaul_client.models import Event, Pair
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from simulators.people import Tenant, Town

if TYPE_CHECKING:
    from backhaul_local.stack import Stack

SETTINGS = {
    "parameters": [{"name": "id", "required": True}, {"name": "category", "default": "transactional"}],
    "communication_keys": ["category"],
}


async def _event(tenant: Tenant, sid: str, *, revision: int = 0) -> Event:
    async def probe() -> Event | None:
        found = await tenant.events(message_id=sid, channel="twilio")
        return found[0] if found and found[0].revision >= revision else None

    return await until(f"revision {revision} of the event of {sid}", probe)


def _lacking(stack: Stack, tenant: Tenant) -> float:
    port = stack.port("normalizer", "metrics")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    name = "backhaul_normalizer_events_lacking_parameters_total"
    return sum(float(one.split()[-1]) for one in lines if one.startswith(name) and f'tenant="{tenant.id}"' in one)


async def test_a_callback_without_a_declared_parameter_is_kept_flagged_and_counted(
    town: Town, installation: Stack
) -> None:
    tenant = await town.platform.register()
    await town.platform.client.put_channel(tenant.id, "Twilio", settings=SETTINGS)
    sids = [new_sid() for _ in range(3)]
    given = {"id": "order-17", "category": "news"}
    for sid, parameters in zip(sids, (given, {"category": "news"}, {}), strict=True):
        post = tenant.twilio.status(tenant.address("Twilio", **parameters), sid, "delivered")
        assert (await tenant.send(post)).status_code == 200
    whole, flagged, empty = [await _event(tenant, sid) for sid in sids]
    assert (whole.missing_parameters, flagged.missing_parameters, empty.missing_parameters) == ((), ("id",), ("id",))
    assert (whole.vars, flagged.vars) == (
        (Pair("id", "order-17"), Pair("category", "news")),
        (Pair("category", "news"),),
    )
    assert (empty.vars, empty.default_parameters) == ((Pair("category", "transactional"),), ("category",))
    assert [one.communication_id for one in (whole, flagged, empty)] == ["news", "news", "transactional"]

    async def counted() -> bool:
        return await asyncio.to_thread(_lacking, installation, tenant) == 2

    await until("two events that are counted", counted)

    # A duplicate that has them completes the event, and what was there by default goes.
    post = tenant.twilio.status(tenant.address("Twilio", **given), sids[2], "delivered")
    assert (await tenant.send(post)).status_code == 200
    completed = await _event(tenant, sids[2], revision=1)
    assert (completed.missing_parameters, completed.default_parameters) == ((), ())
    assert sorted((pair.name, pair.value) for pair in completed.vars) == sorted(given.items())
    assert completed.communication_id == "news"
    message = await tenant.message("twilio", sids[2])
    assert message is not None
    assert message.communication_id == "news"
