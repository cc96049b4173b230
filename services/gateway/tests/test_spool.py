"""A gateway with a spool: whatever JetStream does, the provider hears yes, and what it said is stored in the end."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from backhaul_common.names import CALLBACKS_STREAM
from backhaul_gateway.spool import log as spool_log
from backhaul_gateway.spool.file import NAME, SpoolFile
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from backhaul_testing.waiting import until
from gateway_rig import FORM, GatewayFactory, Running
from prometheus_client.parser import text_string_to_metric_families


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
async def gateway(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    monkeypatch.setattr(spool_log, "LONGEST_PAUSE_S", 0.5)
    async with gateway_factory(fresh_nats.uri, gateway_spool_dir=directory, gateway_publish_timeout_s=0.5) as running:
        yield running


async def shown(gateway: Running, name: str) -> float:
    """The sum of a metric's values."""
    text = (await gateway.client.get("/metrics")).text
    return sum(
        one.value for family in text_string_to_metric_families(text) for one in family.samples if one.name == name
    )


async def drained(gateway: Running) -> None:
    async def empty() -> bool:
        return await shown(gateway, "backhaul_gateway_spool_callbacks") == 0

    await until("an empty spool", empty)


async def sids(gateway: Running) -> list[str]:
    """Of all callbacks that JetStream has, in its order."""
    return [dict(_pairs(callback.body))["MessageSid"] for batch in await gateway.stored() for callback in batch]


def _pairs(body: bytes) -> Any:
    return (part.split("=") for part in body.decode().split("&"))


def form(number: int) -> dict[str, str]:
    return FORM | {"MessageSid": f"SM{number}"}


async def test_while_jetstream_is_away_all_is_taken_and_comes_later_in_order(
    gateway: Running, fresh_nats: NatsServer
) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    assert (await gateway.post(tenant, form=form(0))).status_code == 200
    await fresh_nats.kill()
    for number in range(1, 20):
        answer = await gateway.post(tenant, form=form(number))
        assert (answer.status_code, bool(answer.headers["backhaul-callback-id"])) == (200, True)
    assert await shown(gateway, "backhaul_gateway_spool_callbacks") == 19
    assert 0 < await shown(gateway, "backhaul_gateway_spool_age_seconds") < 60
    path, key = "/api/status?channelLabel=Twilio", {"X-Api-Key": tenant.api_key}
    parts = (await gateway.client.get(path, headers=key)).json()["parts"]
    assert (parts["queue"]["state"], parts["spool"]["state"], parts["spool"]["kept"]) == ("Error", "OK", 19)
    assert parts["spool"]["kept_since"] is not None
    # It takes callbacks, so whoever shares them out should go on sending them here.
    assert (await gateway.client.get("/readyz")).status_code == 200
    await fresh_nats.start()
    await drained(gateway)
    assert await sids(gateway) == [f"SM{number}" for number in range(20)]
    assert await shown(gateway, "backhaul_gateway_spooled_total") == 19
    assert await shown(gateway, "backhaul_gateway_spool_drained_total") == 19
    assert (await gateway.post(tenant, form=form(20))).status_code == 200
    assert (await sids(gateway))[-1] == "SM20"
    part = (await gateway.client.get(path, headers=key)).json()["parts"]["spool"]
    assert part == {"state": "OK", "detail": None, "kept": 0, "kept_since": None}
    assert await shown(gateway, "backhaul_gateway_spooled_total") == 19


async def test_while_jetstream_hangs_each_is_taken_and_none_is_lost(gateway: Running, fresh_nats: NatsServer) -> None:
    """What the server has read before it hung is stored as well, so that some may be there twice; they count once."""
    tenant = await gateway.tenant()
    await gateway.channel()
    assert (await gateway.post(tenant, form=form(0))).status_code == 200
    fresh_nats.pause()
    posts = [gateway.post(tenant, form=form(number)) for number in range(1, 60)]
    assert {answer.status_code for answer in await asyncio.gather(*posts)} == {200}
    # Once it is known, nobody waits for it any more.
    began = asyncio.get_running_loop().time()
    for number in range(60, 80):
        assert (await gateway.post(tenant, form=form(number))).status_code == 200
    assert asyncio.get_running_loop().time() - began < 20 * gateway.settings.gateway_publish_timeout_s / 2
    fresh_nats.resume()
    await drained(gateway)
    assert set(await sids(gateway)) == {f"SM{number}" for number in range(80)}


async def test_a_message_that_was_stored_after_all_takes_no_other_along(
    gateway: Running, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JetStream drops a message whose id it has: one of several callbacks, say, whose first one it has from before."""
    tenant = await gateway.tenant()
    await gateway.channel()
    publish = gateway.publisher.publish

    async def late(subject: str, callback_id: str, encoded: bytes, traceparent: str) -> None:
        """Stored, and the acknowledgement comes too late."""
        monkeypatch.setattr(gateway.publisher, "publish", publish)
        await publish(subject, callback_id, encoded, traceparent)
        fresh_nats.pause()
        await publish(subject, callback_id, encoded, traceparent)

    monkeypatch.setattr(gateway.publisher, "publish", late)
    assert (await gateway.post(tenant, form=form(0))).status_code == 200
    for number in range(1, 5):
        assert (await gateway.post(tenant, form=form(number))).status_code == 200
    fresh_nats.resume()
    await drained(gateway)
    assert set(await sids(gateway)) == {f"SM{number}" for number in range(5)}


async def test_a_full_log_is_no_reason_to_refuse(gateway: Running, fresh_nats: NatsServer) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    client = await broker.connect([fresh_nats.uri])
    js = client.jetstream()
    config = (await js.stream_info(CALLBACKS_STREAM)).config
    await js.update_stream(config, max_msgs=1)
    for number in range(5):
        assert (await gateway.post(tenant, form=form(number))).status_code == 200
    assert await shown(gateway, "backhaul_gateway_spool_callbacks") == 4
    await js.update_stream(config, max_msgs=-1)
    await drained(gateway)
    assert await sids(gateway) == [f"SM{number}" for number in range(5)]
    await client.close()


async def test_what_is_kept_outlives_the_gateway(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, directory: Path
) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_spool_dir=directory) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        await fresh_nats.kill()
        for number in range(5):
            assert (await gateway.post(tenant, form=form(number))).status_code == 200
    await fresh_nats.start()
    async with gateway_factory(fresh_nats.uri, gateway_spool_dir=directory) as gateway:
        await drained(gateway)
        assert await sids(gateway) == [f"SM{number}" for number in range(5)]


async def test_whoever_fills_its_share_takes_nobody_elses_and_hears_when_to_come_again(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, directory: Path
) -> None:
    settings: dict[str, Any] = {"gateway_spool_dir": directory, "gateway_spool_max_bytes": 16 << 20}
    async with gateway_factory(fresh_nats.uri, **settings) as gateway:
        greedy, other = await gateway.tenant("greedy"), await gateway.tenant("other")
        await gateway.channel("greedy")
        await gateway.channel("other")
        await fresh_nats.kill()
        large = FORM | {"Body": "x" * 64_000}
        taken = 0
        while (answer := await gateway.post(greedy, form=large)).status_code == 200:
            taken += 1
        problem = gateway.problem(answer, 503)
        assert "kept until it does is full" in problem["detail"]
        assert int(answer.headers["retry-after"]) == 30
        assert 0.45 < await shown(gateway, "backhaul_gateway_spool_fill") <= 0.5
        while (await gateway.post(greedy, form=FORM | {"Body": "x" * 2_000})).status_code == 200:
            taken += 1
        for tenant, state in ((greedy, "Error"), (other, "OK")):
            status = await gateway.client.get("/api/status?channelLabel=Twilio", headers={"X-Api-Key": tenant.api_key})
            assert status.json()["parts"]["spool"]["state"] == state
        assert (await gateway.post(other, form=form(1))).status_code == 200
        assert await shown(gateway, "backhaul_gateway_spool_refused_total") == 2
        assert (await gateway.client.get("/readyz")).status_code == 200
        await fresh_nats.start()
        await drained(gateway)
        assert len(await sids(gateway)) == taken + 1


async def test_what_a_deleted_tenant_left_goes_nowhere(gateway: Running, fresh_nats: NatsServer) -> None:
    tenant, other = await gateway.tenant(), await gateway.tenant("other")
    await gateway.channel()
    await gateway.channel("other")
    await fresh_nats.kill()
    assert (await gateway.post(tenant, form=form(1))).status_code == 200
    assert (await gateway.post(other, form=form(2))).status_code == 200
    gateway.tenants.update_one({"_id": "acme"}, {"$set": {"status": "deleting"}, "$inc": {"revision": 1}})

    async def known() -> bool:
        return (await gateway.post(tenant, form=form(3))).status_code == 403

    await until("the deletion to be known", known, within_s=40)
    await fresh_nats.start()
    await drained(gateway)
    assert await sids(gateway) == ["SM2"]
    text = (await gateway.client.get("/metrics")).text
    assert re.search(r'spool_drained_total\{.*outcome="stored".*\} 1.0', text)
    assert re.search(r'spool_drained_total\{.*outcome="deleted".*\} [1-9]', text)


async def test_where_the_disk_does_not_take_it_the_provider_is_told(
    gateway: Running, fresh_nats: NatsServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    await fresh_nats.kill()
    append = SpoolFile.append

    def full(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(SpoolFile, "append", full)
    gateway.problem(await gateway.post(tenant, form=form(1)), 503)
    assert await shown(gateway, "backhaul_gateway_spool_callbacks") == 0
    assert (await gateway.client.get("/readyz")).status_code == 503
    monkeypatch.setattr(SpoolFile, "append", append)
    assert (await gateway.post(tenant, form=form(2))).status_code == 200
    assert (await gateway.client.get("/readyz")).status_code == 200
    await fresh_nats.start()
    await drained(gateway)
    assert await sids(gateway) == ["SM2"]


async def test_a_file_that_is_damaged_while_it_is_used_is_set_aside(
    gateway: Running, fresh_nats: NatsServer, directory: Path
) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    await fresh_nats.kill()
    assert (await gateway.post(tenant, form=form(1))).status_code == 200
    with (directory / NAME).open("r+b") as file:
        file.write(b"nonsense" * 1000)
    with (directory / f"{NAME}-wal").open("r+b") as file:
        file.write(b"nonsense" * 1000)
    codes = [(await gateway.post(tenant, form=form(number))).status_code for number in range(2, 8)]
    assert codes[-1] == 200  # One may be refused, by whom the damage was found.
    assert codes.count(503) <= 1
    taken = {f"SM{number}" for number, code in zip(range(2, 8), codes, strict=True) if code == 200}
    await fresh_nats.start()
    await drained(gateway)
    assert taken <= set(await sids(gateway))


async def test_a_row_that_the_disk_has_changed_is_told_of_and_goes_nowhere(
    gateway: Running, fresh_nats: NatsServer, directory: Path
) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    await fresh_nats.kill()
    for number in range(3):
        assert (await gateway.post(tenant, form=form(number))).status_code == 200
    with closing(sqlite3.connect(directory / NAME)) as database, database:
        assert database.execute("UPDATE callbacks SET crc = crc + 1 WHERE seq > 1").rowcount == 2
    await fresh_nats.start()
    await drained(gateway)
    assert await sids(gateway) == ["SM0"]
    assert await shown(gateway, "backhaul_gateway_spool_damaged_total") == 2


async def test_two_gateways_do_not_share_a_spool(
    gateway: Running, gateway_factory: GatewayFactory, fresh_nats: NatsServer, directory: Path
) -> None:
    with pytest.raises(SystemExit, match=r"BACKHAUL_GATEWAY_SPOOL_DIR: .* give each gateway a directory of its own"):
        async with gateway_factory(fresh_nats.uri, gateway_spool_dir=directory):
            pass
