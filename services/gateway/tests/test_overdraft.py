"""What a tenant sends over its rate, over its share of the log, or while it is suspended, is stored later."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from backhaul_client import LimitsIn
from backhaul_gateway.spool import overdraft
from backhaul_local.nats_server import NatsServer
from backhaul_testing.waiting import until
from cryptography.fernet import Fernet
from gateway_rig import FORM, GatewayFactory, Running
from prometheus_client.parser import text_string_to_metric_families

SLOW = LimitsIn(requests_per_second=0.01, burst=2)
"""So slow that nothing is added while a test runs."""
MANY = {"requests_per_second": 10_000, "burst": 10_000}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(overdraft, "PAUSE_S", 0.05)
    monkeypatch.setattr(overdraft, "LONG_PAUSE_S", 0.1)
    return {
        "gateway_spool_dir": tmp_path / "spool",
        "gateway_overdraft_callbacks": 4,
        "secret_keys": Fernet.generate_key().decode(),
    }


@pytest.fixture
async def gateway(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, settings: dict[str, Any]
) -> AsyncIterator[Running]:
    async with gateway_factory(fresh_nats.uri, **settings) as running:
        yield running


async def post(gateway: Running, tenant: Any, numbers: range) -> list[int]:
    """How messages of those numbers are answered, one after the other."""
    answers = [await gateway.post(tenant, form=FORM | {"MessageSid": f"SM{number}"}) for number in numbers]
    assert all(answer.status_code != 200 or answer.headers["backhaul-callback-id"] for answer in answers)
    return [answer.status_code for answer in answers]


async def held(gateway: Running, tenant: Any) -> Any:
    answer = await gateway.client.get("/api/status?channelLabel=Twilio", headers={"X-Api-Key": tenant.api_key})
    return answer.json()["parts"]["held"]


async def shown(gateway: Running, name: str) -> float:
    """The sum of a metric's values."""
    text = (await gateway.client.get("/metrics")).text
    return sum(
        one.value for family in text_string_to_metric_families(text) for one in family.samples if one.name == name
    )


async def answered(gateway: Running) -> dict[str, int]:
    """How many requests of all tenants had each outcome."""
    text = (await gateway.client.get("/metrics")).text
    counts: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            if one.name == "backhaul_gateway_callbacks_total":
                counts[one.labels["outcome"]] += int(one.value)
    return dict(counts)


async def sids(gateway: Running) -> list[str]:
    """Of all callbacks that JetStream has, in its order."""
    pairs = [callback.body.decode().split("&") for batch in await gateway.stored() for callback in batch]
    return [dict(part.split("=") for part in parts)["MessageSid"] for parts in pairs]


async def stored(gateway: Running, numbers: range) -> None:
    """Return when JetStream has those messages and no other, each once, and nothing is held."""

    async def all_there() -> bool:
        return len(await sids(gateway)) >= len(numbers)

    await until("what was held", all_there)
    assert sorted(await sids(gateway)) == sorted(f"SM{number}" for number in numbers)

    async def empty() -> bool:
        return await shown(gateway, "backhaul_gateway_held_callbacks") == 0

    await until("nothing to be held", empty)


async def change(gateway: Running, **change: Any) -> None:
    answer = await gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json=change)
    assert answer.status_code == 200, answer.text


async def test_what_is_over_the_rate_is_held_within_bounds_and_stored_when_the_rate_allows(gateway: Running) -> None:
    tenant, other = await gateway.tenant(limits=SLOW), await gateway.tenant("other")
    await gateway.channel()
    await gateway.channel("other")
    assert await held(gateway, tenant) == {"state": "OK", "detail": None, "callbacks": 0, "bytes": 0, "since": None}
    assert await post(gateway, tenant, range(8)) == [200] * 6 + [429] * 2
    refused = await gateway.post(tenant)
    assert int(refused.headers["retry-after"]) >= 1
    part = await held(gateway, tenant)
    assert (part["state"], part["callbacks"], part["detail"]) == ("Error", 4, "4 callbacks are held.")
    assert part["bytes"] > 4 * 200
    assert part["since"] is not None
    # It is nobody else's matter.
    assert (await held(gateway, other))["callbacks"] == 0
    assert await post(gateway, other, range(10, 11)) == [200]
    assert await answered(gateway) == {"stored": 3, "held": 4, "rate_limited": 3}
    assert await shown(gateway, "backhaul_gateway_held_total") == 4
    assert 0 < await shown(gateway, "backhaul_gateway_held_age_seconds") < 60
    assert sorted(await sids(gateway)) == ["SM0", "SM1", "SM10"]
    await change(gateway, limits=MANY)

    async def none_left() -> bool:
        return bool((await held(gateway, tenant))["callbacks"] == 0)

    await until("what was held", none_left)
    assert [sid for sid in await sids(gateway) if sid != "SM10"] == [f"SM{number}" for number in range(6)]
    assert await shown(gateway, "backhaul_gateway_held_drained_total") == 4


async def test_what_comes_while_the_tenant_is_suspended_is_stored_when_it_is_active_again(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    assert await post(gateway, tenant, range(1)) == [200]
    await change(gateway, status="suspended")
    # What is not the provider's is no more held than it is stored.
    assert (await gateway.post(tenant, signature="wrong")).status_code == 403
    assert await post(gateway, tenant, range(1, 6)) == [200] * 4 + [403]
    assert await sids(gateway) == ["SM0"]
    # A credential of a suspended tenant opens nothing else.
    status = await gateway.client.get("/api/status?channelLabel=Twilio", headers={"X-Api-Key": tenant.api_key})
    assert status.status_code == 403
    await change(gateway, status="active")
    await stored(gateway, range(5))
    assert await sids(gateway) == [f"SM{number}" for number in range(5)]


async def test_it_outlives_the_gateway_and_a_deleted_tenants_goes_nowhere(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, settings: dict[str, Any]
) -> None:
    async with gateway_factory(fresh_nats.uri, **settings) as gateway:
        tenant, other = await gateway.tenant(), await gateway.tenant("other", limits=SLOW)
        await gateway.channel()
        await gateway.channel("other")
        await change(gateway, status="suspended")
        assert await post(gateway, tenant, range(3)) == [200] * 3
        assert await post(gateway, other, range(5, 10)) == [200] * 5
    async with gateway_factory(fresh_nats.uri, **settings) as gateway:
        # With a new process a rate begins anew: some of the other's may have gone.
        assert await shown(gateway, "backhaul_gateway_held_callbacks") >= 4
        assert await post(gateway, tenant, range(3, 6)) == [200, 403, 403]
        gateway.tenants.update_one({"_id": "acme"}, {"$set": {"status": "deleting"}, "$inc": {"revision": 1}})

        async def gone() -> bool:
            return await shown(gateway, "backhaul_gateway_held_callbacks") <= 3

        await until("what a deleted tenant had held", gone, within_s=60)
        assert (await gateway.post(tenant)).status_code == 403
        assert set(await sids(gateway)) <= {f"SM{number}" for number in range(5, 10)}


async def test_what_is_held_for_too_long_lets_nothing_more_in_and_is_stored_all_the_same(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, settings: dict[str, Any]
) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_overdraft_max_age_s=1e-6, **settings) as gateway:
        tenant = await gateway.tenant(limits=SLOW)
        await gateway.channel()
        assert await post(gateway, tenant, range(4)) == [200, 200, 200, 429]
        await change(gateway, limits=MANY)
        await stored(gateway, range(3))


async def test_what_is_over_the_share_of_the_log_is_held_until_there_is_room(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, settings: dict[str, Any]
) -> None:
    small = {"stream_max_bytes": 1 << 20, "gateway_overdraft_callbacks": 40}
    async with gateway_factory(fresh_nats.uri, **{**settings, **small}) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        form = FORM | {"Body": "x" * 50_000}
        codes: list[int] = []
        while len(codes) < 150:
            codes.append((await gateway.post(tenant, form=form)).status_code)
            if codes[-1] != 200:
                break
        assert codes[-1] == 503, "beyond the overdraft it is told, as ever, by an answer that providers repeat"
        counted = await answered(gateway)
        # Some may have gone already: what is stored later may be smaller than what was refused then.
        assert counted["held"] - await shown(gateway, "backhaul_gateway_held_drained_total") == 40
        assert counted["quota"] == 1


async def test_the_share_of_all_is_bounded_and_nobody_is_refused_for_another(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, settings: dict[str, Any]
) -> None:
    most = {"gateway_spool_max_bytes": 16 << 20, "gateway_overdraft_callbacks": 1_000}
    async with gateway_factory(fresh_nats.uri, **{**settings, **most}) as gateway:
        greedy, other = await gateway.tenant("greedy", limits=SLOW), await gateway.tenant("other", limits=SLOW)
        await gateway.channel("greedy")
        await gateway.channel("other")
        form = FORM | {"Body": "x" * 64_000}
        answers = [await gateway.post(greedy, form=form)]
        while answers[-1].status_code == 200:
            answers.append(await gateway.post(greedy, form=form))
        assert answers[-1].status_code == 429
        assert 0.4 < await shown(gateway, "backhaul_gateway_held_fill") <= 0.5
        assert await post(gateway, other, range(4)) == [200] * 4


async def test_what_is_held_never_keeps_live_callbacks_waiting(gateway: Running) -> None:
    """It goes in what the rate leaves, and what comes meanwhile is stored at once."""
    tenant = await gateway.tenant(limits=LimitsIn(requests_per_second=0.01, burst=6))
    await gateway.channel()
    assert await post(gateway, tenant, range(10)) == [200] * 10
    assert await answered(gateway) == {"stored": 6, "held": 4}
    # 14 more may pass. Of them what is held takes no more than half, so that what comes need not be held.
    await change(gateway, limits={"requests_per_second": 0.01, "burst": 20})
    answers = await asyncio.gather(*(post(gateway, tenant, range(number, number + 1)) for number in range(10, 13)))
    assert answers == [[200]] * 3
    await stored(gateway, range(13))


async def test_a_tenant_may_have_an_overdraft_of_its_own(gateway: Running) -> None:
    small, none = [
        await gateway.tenant(name, limits=LimitsIn(**SLOW, overdraft_callbacks=most))
        for name, most in (("s", 1), ("n", 0))
    ]
    usual = await gateway.tenant("usual", limits=SLOW)
    for tenant in (small, none, usual):
        await gateway.channel(tenant.id)
    # Two are within the burst.
    assert await post(gateway, small, range(6)) == [200] * 3 + [429] * 3
    assert await post(gateway, none, range(6)) == [200] * 2 + [429] * 4
    assert await post(gateway, usual, range(7)) == [200] * 6 + [429]
    assert (await held(gateway, small))["state"] == "Error"
    assert (await held(gateway, none))["state"] == "OK"

    # It is changed without a restart, and null is the installation's again.
    where = f"/admin/v1/tenants/{small.id}"
    for most, more in ((3, [200, 200, 429]), (None, [200, 429])):
        body = {"limits": {"overdraft_callbacks": most}}
        answer = await gateway.client.patch(where, headers=gateway.admin, json=body)
        assert answer.json()["limits"]["overdraft_callbacks"] == most
        assert answer.json()["limits"]["burst"] == 2
        assert await post(gateway, small, range(10, 10 + len(more))) == more
    stays = await gateway.client.patch(where, headers=gateway.admin, json={"limits": {"overdraft_callbacks": 1}})
    assert stays.json()["limits"]["overdraft_callbacks"] == 1
    other = await gateway.client.patch(where, headers=gateway.admin, json={"limits": {"burst": 3}})
    assert other.json()["limits"]["overdraft_callbacks"] == 1
    body = {"limits": {"overdraft_callbacks": -1}}
    gateway.problem(
        await gateway.client.patch(where, headers=gateway.admin, json=body), 422, "limits.overdraft_callbacks"
    )
