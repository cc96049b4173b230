"""What tenants ask: how much of it, with which parameters, and what others notice of it."""

from __future__ import annotations

import asyncio
import json
import time
from statistics import median
from typing import Any

import pytest
from backhaul_client import LimitsIn
from backhaul_client.adminmodels import NewTenant
from backhaul_common.errors import BackhaulError, Code
from backhaul_gateway.web.parameters import with_plus
from backhaul_local.nats_server import NatsServer
from backhaul_proto.event.v1.event_pb2 import (
    REVIEW_FLAGGED,
    REVIEW_UNSPECIFIED,
    Event,
)
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from gateway_rig import GatewayFactory, Running
from reading_rig import headers, reading


async def test_reads_have_a_rate_of_their_own(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with reading(gateway_factory, fresh_nats.uri) as (gateway, _):
        limits: LimitsIn = {"reads_per_second": 0.01, "read_burst": 3, "concurrent_reads": 2}
        acme, other = await gateway.tenant(limits=limits), await gateway.tenant("other")
        await gateway.channel(verification="off")
        for path in ("/v1/messages", "/v1/messages/twilio/SM1", "/api/status?channelLabel=Twilio"):
            assert (await gateway.client.get(path, headers=headers(acme))).status_code == 200
        for path in ("/v1/messages", "/v1/events", "/v1/dead-letters/1", "/api/status?channelLabel=Twilio"):
            answer = await gateway.client.get(path, headers=headers(acme))
            problem = gateway.problem(answer, 429, "")
            assert problem["code"] == "rate_limited"
            assert "reads_per_second" in problem["errors"][0]["fix"]
            assert 1 <= int(answer.headers["Retry-After"]) <= 100
        # Neither its callbacks nor others' reads are concerned.
        assert (await gateway.post(acme)).status_code == 200
        assert (await gateway.client.get("/v1/messages", headers=headers(other))).status_code == 200
        # Changing something else refills nothing; the limit itself can be raised.
        for change, status in (({"name": "Acme"}, 429), ({"limits": {"reads_per_second": 1e6}}, 200)):
            await gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json=change)
            assert (await gateway.client.get("/v1/messages", headers=headers(acme))).status_code == status


async def test_errors_are_counted_over_a_day_unless_a_span_is_given(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with reading(gateway_factory, fresh_nats.uri) as (gateway, normalizer):
        acme = await gateway.tenant()

        async def asked(**params: str) -> tuple[int, int]:
            answer = await gateway.client.get("/v1/errors", params=params, headers=headers(acme))
            assert answer.status_code == 200, answer.text
            request = normalizer.asked[-1]
            assert (request.tenant_id, request.channel, request.error_code) == ("acme", "outbound-delivery", "30006")
            known, unknown = answer.json()["errors"]
            assert known == {
                "channel": "twilio", "provider": "twilio", "error_code": "30006", "count": 3, "text": "A landline.",
                "last_received_at": "1970-01-01T00:00:00.000001Z", "error_class": "hard",
                "url": "https://example.com/30006",
            }  # fmt: skip
            assert [unknown[name] for name in ("provider", "text", "error_class", "url")] == ["", "", None, None]
            return request.from_us, request.to_us

        which = {"channel": "Outbound Delivery", "error_code": "30006"}
        day_us, first_us, last_us = 86_400_000_000, 1_793_491_200_000_000, 1_794_182_400_000_000
        first, last = "2026-11-01T00:00:00Z", "2026-11-09T00:00:00Z"
        before_us = time.time_ns() // 1000
        from_us, to_us = await asked(**which)
        assert to_us == 0
        assert before_us - day_us <= from_us <= time.time_ns() // 1000 - day_us
        assert await asked(**which, to=last) == (last_us - day_us, last_us)
        assert await asked(**which, **{"from": first}) == (first_us, 0)
        assert await asked(**which, **{"from": first}, to=last) == (first_us, last_us)


async def test_statistics_are_of_the_last_hours_or_days_unless_a_span_is_given(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with reading(gateway_factory, fresh_nats.uri) as (gateway, normalizer):
        acme = await gateway.tenant()

        async def asked(**params: str) -> Any:
            answer = await gateway.client.get("/v1/stats", params=params, headers=headers(acme))
            assert answer.status_code == 200, answer.text
            found = answer.json()
            assert found["truncated"]
            whole, state, kind = found["rows"]
            assert whole == {
                "start": "1970-01-01T01:00:00.000000Z", "channel": None, "kind": None, "fulfilment_state": None,
                "communication_id": None, "events": 3, "events_by_machine": 1, "messages": 2, "unique_opened": 1,
                "unique_clicked": 0,
            }  # fmt: skip
            names = ("channel", "communication_id", "kind", "fulfilment_state")
            assert [state[name] for name in names] == ["twilio", "spring", None, "InvalidNumber"]
            assert [kind[name] for name in names] == [None, None, "delivered", None]
            return normalizer.asked[-1]

        hour_us, first_us, last_us = 3_600_000_000, 1_793_491_200_000_000, 1_794_182_400_000_000
        first, last = "2026-11-01T00:00:00Z", "2026-11-09T00:00:00Z"
        before_us = time.time_ns() // 1000
        request = await asked()
        assert (request.tenant_id, request.per, list(request.group_by)) == ("acme", pb.STATS_PER_HOUR, [])
        assert request.to_us % hour_us == 0
        assert before_us < request.to_us <= time.time_ns() // 1000 + hour_us
        assert request.from_us == request.to_us - 24 * hour_us
        request = await asked(per="day", to=last)
        assert (request.per, request.from_us, request.to_us) == (pb.STATS_PER_DAY, last_us - 720 * hour_us, last_us)
        span = {"from": first, "to": last}
        which = {"channel": "Outbound Delivery", "communication": "spring", "group_by": "kind, channel,kind"}
        request = await asked(**which, **span)
        assert (request.from_us, request.to_us) == (first_us, last_us)
        assert (request.channel, request.communication_id) == ("outbound-delivery", "spring")
        assert list(request.group_by) == [pb.STATS_GROUP_KIND, pb.STATS_GROUP_CHANNEL]
        # The earliest time that there is is a full hour, as any span has at both ends.
        request = await asked(**{"from": "1970-01-01T00:00:00Z", "to": "1969-07-20T20:17:40Z"})
        assert (request.from_us, request.to_us) == (hour_us, hour_us)
        for params, field in (({"group_by": "kind,weather"}, "group_by"), ({"per": "week"}, "per")):
            answer = await gateway.client.get("/v1/stats", params=params, headers=headers(acme))
            assert answer.status_code == 422, answer.text
            (error,) = answer.json()["errors"]
            assert error["field"] == field
            # The fix follows it, where both are shown in one line.
            assert error["message"].endswith(".")


async def test_only_so_many_reads_are_answered_at_once(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with reading(gateway_factory, fresh_nats.uri) as (gateway, normalizer):
        acme, other = await gateway.tenant(limits={"concurrent_reads": 2}), await gateway.tenant("other")

        async def read(tenant: NewTenant) -> int:
            return (await gateway.client.get("/v1/events", headers=headers(tenant))).status_code

        normalizer.may_answer.clear()
        waiting = [asyncio.create_task(read(acme)) for _ in range(2)]
        async with asyncio.timeout(60):
            while len(normalizer.asked) < 2:  # seen from outside there is nothing else to wait for
                await asyncio.sleep(0.01)
        assert await read(acme) == 429
        # A change of the tenant forgets nobody who is being answered.
        await gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json={"name": "Acme"})
        assert await read(acme) == 429
        third = asyncio.create_task(read(other))
        normalizer.may_answer.set()
        assert await asyncio.gather(*waiting, third) == [200] * 3
        assert [await read(acme) for _ in range(3)] == [200] * 3
        # A failed one is over as well.
        for _ in range(3):
            assert (await gateway.client.get("/v1/events?limit=0", headers=headers(acme))).status_code == 422
        assert await read(acme) == 200


async def test_replays_and_discards_take_from_the_rate_of_callbacks(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with reading(gateway_factory, fresh_nats.uri) as (gateway, normalizer):
        acme = await gateway.tenant(limits={"requests_per_second": 0.001, "burst": 5})
        await gateway.channel(verification="off")
        answers = []
        for number in range(20):
            action = "replay" if number % 2 else "discard"
            answers.append(await gateway.client.post(f"/v1/dead-letters/{number}/{action}", headers=headers(acme)))
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 15
        assert len(normalizer.asked) == 5
        # There is one bucket, whichever door is used.
        assert (await gateway.post(acme)).status_code == 429


async def test_replies_are_listed_and_decided_about(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, subtests: pytest.Subtests
) -> None:
    async with reading(gateway_factory, fresh_nats.uri) as (gateway, normalizer):
        acme = await gateway.tenant()
        normalizer.events = [Event(id="1", review=REVIEW_FLAGGED)]
        for query, review in (
            ("", REVIEW_UNSPECIFIED),
            ("?flagged", REVIEW_FLAGGED),
            ("?flagged=true", REVIEW_FLAGGED),
            ("?flagged=false", REVIEW_UNSPECIFIED),
            ("?flagged&channel=Outbound%20Delivery&recipient=+1500&communication=c&limit=7&cursor=p", REVIEW_FLAGGED),
        ):
            with subtests.test(query=query):
                answer = await gateway.client.get(f"/v1/replies{query}", headers=headers(acme))
                assert answer.json()["next_cursor"] == "next"
                assert [reply["review"] for reply in answer.json()["replies"]] == ["flagged"]
                assert normalizer.asked[-1].review == review
        assert normalizer.asked[-1] == pb.ListRepliesRequest(
            tenant_id="acme",
            channel="outbound-delivery",
            review=REVIEW_FLAGGED,
            recipient="+1500",
            communication_id="c",
            page_size=7,
            page_token="p",
        )
        gateway.problem(await gateway.client.get("/v1/replies?flagged=maybe", headers=headers(acme)), 422)
        for action, review_word in (("accept", "accepted"), ("dismiss", "dismissed")):
            answer = await gateway.client.post(f"/v1/replies/17/{action}", headers=headers(acme))
            assert (answer.status_code, answer.json()["id"], answer.json()["review"]) == (200, "17", review_word)
            assert (normalizer.asked[-1].tenant_id, normalizer.asked[-1].id) == ("acme", "17")


UNKNOWN = [
    ("/v1/messages?limti=1", "limti", "limit"),
    ("/v1/messages?limit=1&tenant=acme", "tenant", "message_id"),
    ("/v1/messages?Recipient=1", "Recipient", "recipient"),
    ("/v1/messages/twilio/SM1?limit=1", "limit", "query"),
    ("/v1/events?state=sent", "state", ""),
    ("/v1/dead-letters?from=2026-01-01T00:00:00Z", "from", ""),
    ("/v1/communications/x?page", "page", ""),
    ("/api/status?channelLabel=Twilio&chanellabel=x", "chanellabel", "channelLabel"),
    ("/admin/v1/tenants?limti=1", "limti", "limit"),
    ("/admin/v1/tenants/acme?purge=true", "purge", ""),
    ("/admin/v1/tenants/acme/channels?%6cimit=1", "limit", ""),
]


async def test_unknown_parameters_are_refused_by_name(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, subtests: pytest.Subtests
) -> None:
    async with reading(gateway_factory, fresh_nats.uri) as (gateway, normalizer):
        acme = await gateway.tenant()
        await gateway.channel(verification="off")
        for path, name, hint in UNKNOWN:
            with subtests.test(path=path):
                sent = gateway.admin if path.startswith("/admin") else headers(acme)
                problem = gateway.problem(await gateway.client.get(path, headers=sent), 422, name)
                assert hint in problem["errors"][0]["fix"]
                # Whoever may not ask is not told what there is to ask for.
                gateway.problem(await gateway.client.get(path), 401)
        gateway.problem(await gateway.client.delete("/admin/v1/tenants/acme?prge=true", headers=gateway.admin), 422)
        assert not normalizer.asked
        assert (await gateway.client.get("/api/status?CHANNELlabel=twilio", headers=headers(acme))).status_code == 200
        # A callback's address may hold whatever the tenant likes.
        assert (await gateway.post(acme, "/api/postevents?channelLabel=Twilio&limti=1")).status_code == 200


async def test_a_recipients_plus_is_read_as_one(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with reading(gateway_factory, fresh_nats.uri) as (gateway, normalizer):
        acme = await gateway.tenant()
        for path in ("/v1/messages", "/v1/events"):
            for query in ("recipient=+15005550010", "recipient=%2B15005550010", "recipient=%2015005550010"):
                assert (await gateway.client.get(f"{path}?{query}", headers=headers(acme))).status_code == 200
        assert {request.recipient for request in normalizer.asked} == {"+15005550010"}
        normalizer.asked.clear()
        answer = await gateway.client.get("/v1/messages?message_id=XY-1&channel=SendGrid", headers=headers(acme))
        assert answer.json()["messages"][0]["message_id"] == "SM1"
        (request,) = normalizer.asked
        assert (request.message_id, request.channel) == ("XY-1", "sendgrid")


async def test_a_refusal_names_the_parameter_that_was_sent(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with reading(gateway_factory, fresh_nats.uri) as (gateway, normalizer):
        acme = await gateway.tenant()
        normalizer.refusal = BackhaulError(
            Code.INVALID_ARGUMENT, "The page token is none.", field="page_token", fix="Pass next_page_token."
        )
        problem = gateway.problem(await gateway.client.get("/v1/events?cursor=x", headers=headers(acme)), 422, "cursor")
        assert "next_cursor" in problem["errors"][0]["fix"]
        assert "token" not in json.dumps(problem)
        for wrong in ("yesterday", "2026", "2026-11-01T00:00:00+01:00"):  # A plus that is not escaped is a blank.
            answer = await gateway.client.get(f"/v1/events?from={wrong}", headers=headers(acme))
            fix = gateway.problem(answer, 422, "from")["errors"][0]["fix"]
            assert ("T00:00:00Z" in fix, "%2B" in fix) == (True, True)
        normalizer.refusal = BackhaulError(Code.INVALID_ARGUMENT, "Name it.", field="channel", fix="Name it.")
        gateway.problem(await gateway.client.get("/v1/events", headers=headers(acme)), 422, "channel")


@pytest.mark.parametrize(
    ("came", "meant"),
    [
        (" 15005550010", "+15005550010"),
        ("+15005550010", "+15005550010"),
        ("whatsapp: 15005550010", "whatsapp:+15005550010"),
        ("user news@example.com", "user+news@example.com"),
        ("user+news@example.com", "user+news@example.com"),
        (" ", " "),
        ("", ""),
        ("ACME Shop", "ACME Shop"),
        ("12345", "12345"),
    ],
)
def test_plus(came: str, meant: str) -> None:
    assert with_plus(came) == meant


async def test_openapi_lists_values(gateway: Running) -> None:
    schema = (await gateway.client.get("/openapi.json")).json()

    def parameters(path: str) -> dict[str, Any]:
        return {one["name"]: one for one in schema["paths"][path]["get"]["parameters"]}

    fulfilment = parameters("/v1/messages")["fulfilment_state"]
    words = ["queued", "sent", "delivered", "undelivered", "failed", "invalidnumber"]
    assert fulfilment["schema"]["enum"][1:] == words
    assert all(word in fulfilment["description"] for word in words)
    assert "delivered" in parameters("/v1/messages")["state"]["schema"]["enum"]
    assert "channel" in parameters("/v1/events")["message_id"]["description"]
    # Several messages may have one reference.
    for path in ("/v1/messages/{channel}/{message_id}", "/v1/events"):
        assert "409" in schema["paths"][path]["get"]["responses"]
    for path in ("/v1/messages", "/v1/events", "/api/status", "/v1/dead-letters"):
        assert "429" in schema["paths"][path]["get"]["responses"]
    event = schema["components"]["schemas"]["EventOut"]["properties"]
    assert {"revision", "by_machine", "references", "occurred_at_basis"} <= event.keys()


async def _latencies(gateway: Running, tenant: NewTenant, seconds: float) -> list[float]:
    took, ends = [], time.perf_counter() + seconds
    while time.perf_counter() < ends:
        began = time.perf_counter()
        assert (await gateway.post(tenant)).status_code == 200
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0.005)
    return took


@pytest.mark.timed
async def test_reading_large_events_does_not_keep_others_callbacks_waiting(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    """The reader is a process of its own: what it costs to receive an answer must not be counted as the gateway's."""
    async with reading(gateway_factory, fresh_nats.uri) as (gateway, normalizer):
        limits: LimitsIn = {"reads_per_second": 1000, "read_burst": 1000, "concurrent_reads": 8}
        greedy, other = await gateway.tenant("greedy", limits=limits), await gateway.tenant("other")
        await gateway.channel("other")
        large = json.dumps([{"number": n, "text": "x" * 20, "deep": [[[n]]]} for n in range(12_000)]).encode()
        assert len(large) > 600_000
        normalizer.events = [Event(id=str(n), raw=large) for n in range(5)]
        before = await _latencies(gateway, other, 0.5)
        script = (
            "import sys, threading, urllib.request\n"
            "def loop():\n"
            "    while True:\n"
            "        request = urllib.request.Request(sys.argv[1], headers={'X-Api-Key': sys.argv[2]})\n"
            "        print(len(urllib.request.urlopen(request).read()), flush=True)\n"
            "for _ in range(6): threading.Thread(target=loop, daemon=True).start()\n"
            "threading.Event().wait()\n"
        )
        reader = await asyncio.create_subprocess_exec(
            "python3", "-c", script, f"{gateway.url}/v1/events", greedy.api_key,
            stdout=asyncio.subprocess.PIPE, env={"no_proxy": "*"},
        )  # fmt: skip
        try:
            assert reader.stdout is not None
            async with asyncio.timeout(60):
                assert int(await reader.stdout.readline()) > 3_000_000
            during = await _latencies(gateway, other, 2.0)
        finally:
            reader.kill()
            await reader.communicate()
        # Six loops of what took half a second to answer each: it was seconds, where now it is a turn or two of each.
        assert median(during) < 0.15, (median(before), median(during))
        assert sorted(during)[int(len(during) * 0.9)] < 0.4
