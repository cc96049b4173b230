"""A copy of the gateway that has not heard of something looks once before it refuses."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from backhaul_common.directory import TenantDirectory
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.limits import TokenBucket
from backhaul_common.secrets import new_credential
from backhaul_gateway.admission.strangers import AWAY_S, NEGATIVE_S, Lookups
from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory
from pymongo import monitoring

PATH = "/api/postevents?channelLabel=Twilio"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_copy_without_news_knows_what_another_registered(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_factory(fresh_nats.uri) as first:
        early = await first.tenant("early")

        async def deaf(self: TenantDirectory, client: Any) -> None:
            """Hears of no change."""

        monkeypatch.setattr(TenantDirectory, "follow", deaf)
        async with gateway_factory(fresh_nats.uri, secret_keys=first.settings.secret_keys) as second:
            assert (await second.client.get(f"/api/status?{PATH.partition('?')[2]}")).status_code == 401
            # A channel of a tenant that is known, then a tenant that is not: by key, by token, and by Basic.
            await first.channel("early")
            assert (await second.post(early)).status_code == 200
            late = await first.tenant("late")
            await first.channel("late")
            assert (await second.post(late)).status_code == 200
            later = await first.tenant("later")
            await first.channel("later")
            assert (await second.post(None, f"/in/{later.ingest_token}{PATH}")).status_code == 200
            latest = await first.tenant("latest")
            answer = await second.client.get("/api/status?channelLabel=Twilio", auth=("latest", latest.api_key))
            second.problem(answer, 404, "channelLabel")
            await first.channel("latest", "SendGrid", verification="off", secrets=[])
            answer = await second.client.get("/api/status?channelLabel=SendGrid", auth=("latest", latest.api_key))
            assert answer.status_code == 200
            # What there is not is refused as ever, and a key's kind and secret count as ever.
            for key in (late.api_key[:-1] + ("0" if late.api_key[-1] != "0" else "1"), late.ingest_token, "x"):
                answer = await second.client.post(PATH, content=b"", headers={"X-Api-Key": key})
                second.problem(answer, 401)
            answer = await second.client.post("/api/postevents?channelLabel=RCS", headers={"X-Api-Key": late.api_key})
            second.problem(answer, 404)


@pytest.mark.timed
async def test_a_flood_of_strangers_asks_the_database_little(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    asked = 0

    class Count(monitoring.CommandListener):
        def started(self, event: monitoring.CommandStartedEvent) -> None:
            nonlocal asked
            asked += event.command_name == "find"

        def succeeded(self, event: Any) -> None:
            pass

        def failed(self, event: Any) -> None:
            pass

    monitoring.register(listener := Count())
    try:
        async with gateway_factory(fresh_nats.uri) as gateway:
            acme = await gateway.tenant()
            await gateway.channel()
            before, began = asked, time.monotonic()
            strangers = [gateway.client.post(PATH, headers={"X-Api-Key": new_credential("api")[1]}) for _ in range(300)]
            answers = {answer.status_code for answer in await asyncio.gather(*strangers)}
            # On a busy machine the database may not answer all forty in time; nobody is called wrong then.
            assert answers in ({401}, {401, 503})
            # Forty at once and twenty a second; beside them the directory's own reads.
            assert 40 <= asked - before < 50 + 20 * (time.monotonic() - began)
            # Nor can a tenant that makes up labels do more.
            before, began = asked, time.monotonic()
            for n in range(100):
                answer = await gateway.client.post(
                    f"/api/postevents?channelLabel=C{n}", headers={"X-Api-Key": acme.api_key}
                )
                assert answer.status_code == 404
            assert 10 <= asked - before < 20 + 5 * (time.monotonic() - began)
            # Those who are known ask nothing at all.
            before = asked
            for _ in range(50):
                assert (await gateway.post(acme)).status_code == 200
            assert asked - before <= 2
    finally:
        monitoring._LISTENERS.command_listeners.remove(listener)


async def test_those_who_ask_at_once_share_a_look() -> None:
    clock, looked, go = Clock(), list[str](), asyncio.Event()

    async def look(key: str) -> None:
        looked.append(key)
        await go.wait()

    lookups = Lookups(look, clock, rate=1, burst=3)
    asking = [asyncio.create_task(lookups.once(key)) for key in "aaabbb"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # Who gives up takes nobody else along.
    asking[0].cancel()
    go.set()
    assert await asyncio.gather(*asking[1:]) == [True] * 5
    assert looked == ["a", "b"]
    assert not await lookups.once("a")
    assert await lookups.once("c")
    # The bound for all, then the bound of one's own.
    clock.now += NEGATIVE_S / 2
    assert not await lookups.once("d")
    clock.now += 10
    own = TokenBucket(0.001, 1, clock)
    assert [await lookups.once(key, own) for key in "ef"] == [True, False]
    clock.now += NEGATIVE_S
    assert await lookups.once("a")
    assert looked == ["a", "b", "c", "e", "a"]


async def test_a_database_that_is_away_makes_nobody_a_stranger() -> None:
    clock, asked, away = Clock(), list[str](), True

    async def look(key: str) -> None:
        asked.append(key)
        if away:
            raise unavailable("MongoDB")

    lookups = Lookups(look, clock, rate=100, burst=100)
    for key in "abc":
        with pytest.raises(BackhaulError) as caught:
            await lookups.once(key)
        assert caught.value.code is Code.UNAVAILABLE
    assert asked == ["a"]
    clock.now += AWAY_S
    away = False
    assert await lookups.once("a")
    assert await lookups.once("b")
