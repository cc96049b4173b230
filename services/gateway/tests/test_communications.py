"""``/v1/communications``: what is registered for a tenant, and how ids stand in paths."""

from __future__ import annotations

from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_local.nats_server import NatsServer
from backhaul_proto.event.v1.event_pb2 import Attribute
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from communication_rig import CommunicationRig
from gateway_rig import GatewayFactory


async def test_a_communication_is_registered(told: CommunicationRig) -> None:
    body = {
        "name": "Spring",
        "mode": "live",
        "channel": "Outbound Delivery",
        "notify": ["a@example.com"],
        "deadline_hours": 1.5,
        "completes_on": "final",
        "environments": {"live": {"shop": "https://x.test", "é": ""}, "test": {}},
    }
    answer = await told.ask("PUT", "/communications/spring", body)
    assert (answer.status_code, answer.json()["id"]) == (201, "spring")
    assert answer.json()["registered"]["deadline_hours"] == 1
    assert told.communications.asked == [
        pb.PutCommunicationRequest(
            tenant_id="acme",
            communication_id="spring",
            settings=pb.CommunicationSettings(
                name="Spring",
                mode="live",
                channel="outbound-delivery",
                notify=["a@example.com"],
                deadline_s=5400,
                completes_on=pb.COMPLETES_ON_FINAL,
                environments=[
                    pb.Environment(
                        mode="live",
                        variables=[Attribute(name="shop", value="https://x.test"), Attribute(name="é")],
                    ),
                    pb.Environment(mode="test"),
                ],
            ),
        )
    ]
    told.communications.created = False
    assert (await told.ask("PUT", "/communications/spring", {})).status_code == 200
    least = told.communications.asked[-1].settings
    assert least == pb.CommunicationSettings(deadline_s=72 * 3600, completes_on=pb.COMPLETES_ON_PROCESSED)


BAD_BODIES: list[tuple[dict[str, Any], str]] = [
    ({"nme": "x"}, "nme"),
    ({"completes_on": "soon"}, "completes_on"),
    ({"deadline_hours": 0}, "deadline_hours"),
    ({"deadline_hours": 1e300}, "deadline_hours"),
    ({"deadline_hours": True}, "deadline_hours"),
    ({"deadline_hours": "48"}, "deadline_hours"),
    ({"notify": "a@example.com"}, "notify"),
    ({"environments": {"live": {"shop": 1}}}, "environments.live.shop"),
    ({"name": "\x00"}, "name"),
]


async def test_what_does_not_fit_is_named_as_the_request_has_it(
    told: CommunicationRig, subtests: pytest.Subtests
) -> None:
    for body, field in BAD_BODIES:
        with subtests.test(field=field):
            told.gateway.problem(await told.ask("PUT", "/communications/spring", body), 422, field)
    for content in (b"{", b"[]", b'{"name": "\\ud800"}', b"\xff"):
        answer = await told.ask(
            "PUT", "/communications/spring", content=content, headers={"Content-Type": "application/json"}
        )
        told.gateway.problem(answer, answer.status_code)
        assert answer.status_code in (400, 422)
    assert told.communications.asked == []
    for field, said in (("settings.deadline_s", "deadline_hours"), ("settings.notify[0]", "notify[0]")):
        told.communications.refusal = BackhaulError(Code.INVALID_ARGUMENT, "No.", field=field, fix="Mend it.")
        told.gateway.problem(await told.ask("PUT", "/communications/spring", {}), 422, said)
    environments: dict[str, Any] = {"live": {}, "$test": {"a": "b"}, "": {}}
    for field, said in (
        ("settings.environments[0].variables", "environments.live"),
        ("settings.environments[1].mode", "environments.$test"),
        ("settings.environments[2].mode", "environments"),
        ("settings.environments", "environments"),
    ):
        told.communications.refusal = BackhaulError(Code.INVALID_ARGUMENT, "No.", field=field, fix="Mend it.")
        answer = await told.ask("PUT", "/communications/spring", {"environments": environments})
        told.gateway.problem(answer, 422, said)
    told.communications.refusal = BackhaulError(
        Code.NOT_FOUND, "There is none.", violations=[Violation("communication_id", "None.", "Use PutCommunication.")]
    )
    problem = told.gateway.problem(await told.ask("GET", "/communications/spring"), 404, "communication_id")
    assert problem["errors"][0]["fix"] == "Use PUT /v1/communications/{id}."
    told.communications.refusal = BackhaulError(Code.UNAVAILABLE, "It is away.")
    problem = told.gateway.problem(await told.ask("PUT", "/communications/spring", {}), 503)
    assert "Send it again" in problem["errors"][0]["fix"]


async def test_all_that_is_known_of_one_is_told(told: CommunicationRig) -> None:
    found = (await told.ask("GET", "/communications/spring")).json()
    assert (found["messages"], found["status"], found["registered"]["deadline_hours"]) == (3, "active", 1)
    assert [one["id"] for one in found["batches"]] == ["b1"]
    assert told.communications.asked == [pb.DescribeCommunicationRequest(tenant_id="acme", communication_id="spring")]


async def test_the_list_takes_every_filter(told: CommunicationRig) -> None:
    params = {
        "status": "disabled",
        "mode": "live",
        "channel": "Outbound Delivery",
        "registered": "true",
        "from": "2026-11-01T00:00:00Z",
        "to": "2026-11-02T00:00:00Z",
        "limit": "7",
        "cursor": "here",
    }
    answer = (await told.ask("GET", "/communications", params=params)).json()
    assert ([one["id"] for one in answer["communications"]], answer["next_cursor"]) == (["spring"], "next")
    assert (await told.ask("GET", "/communications")).status_code == 200
    assert told.communications.asked == [
        pb.ListCommunicationsRequest(
            tenant_id="acme",
            status=pb.COMMUNICATION_STATUS_DISABLED,
            mode="live",
            channel="outbound-delivery",
            registered=True,
            from_us=1_793_491_200_000_000,
            to_us=1_793_577_600_000_000,
            page_size=7,
            page_token="here",
        ),
        pb.ListCommunicationsRequest(tenant_id="acme", page_size=50),
    ]
    for name in ("status", "registered", "from", "limit", "stats"):
        told.gateway.problem(await told.ask("GET", "/communications", params={name: "x"}), 422, name)
    told.communications.refusal = BackhaulError(Code.INVALID_ARGUMENT, "None.", field="page_token", fix="Another.")
    told.gateway.problem(await told.ask("GET", "/communications", params={"cursor": "x"}), 422, "cursor")


async def test_who_disables_it_is_the_key_unless_somebody_is_named(told: CommunicationRig) -> None:
    by_key = f"key:{told.tenant.api_key.split('_')[1]}"
    asked = told.communications.asked
    assert (await told.ask("POST", "/communications/spring/disable", {"reason": "Wrong shop."})).status_code == 200
    assert asked.pop() == pb.DisableCommunicationRequest(
        tenant_id="acme", communication_id="spring", reason="Wrong shop.", author=by_key
    )
    assert (await told.ask("POST", "/communications/spring/enable", {"author": "anna"})).status_code == 200
    assert asked.pop() == pb.EnableCommunicationRequest(tenant_id="acme", communication_id="spring", author="anna")
    told.gateway.problem(await told.ask("POST", "/communications/spring/disable", {"why": "x"}), 422, "why")
    told.gateway.problem(await told.ask("POST", "/communications/spring/disable"), 422, "body")
    assert asked == []


PATHS = [
    ("GET", "a/b", pb.DescribeCommunicationRequest(communication_id="a/b")),
    ("GET", "a%2Fb%20c%3Fd", pb.DescribeCommunicationRequest(communication_id="a/b c?d")),
    ("GET", "batches", pb.DescribeCommunicationRequest(communication_id="batches")),
    ("GET", "a/batches/b", pb.DescribeCommunicationRequest(communication_id="a/batches/b")),
    ("GET", "a/disable", pb.DescribeCommunicationRequest(communication_id="a/disable")),
    ("PUT", "batches/b", pb.PutCommunicationRequest(communication_id="batches/b")),
    ("PUT", "a/batches", pb.PutCommunicationRequest(communication_id="a/batches")),
    ("PUT", "disable", pb.PutCommunicationRequest(communication_id="disable")),
    ("PUT", "a/disable", pb.PutCommunicationRequest(communication_id="a/disable")),
    ("PUT", "a/b/batches/c", pb.PutBatchRequest(communication_id="a/b", batch_id="c")),
    ("PUT", "a/batches/b/c", pb.PutBatchRequest(communication_id="a", batch_id="b/c")),
    ("PUT", "a/batches/batches/b", pb.PutBatchRequest(communication_id="a/batches", batch_id="b")),
    # Those that cannot be told from others: escaped or not, they name a batch, by the last that may be one.
    ("PUT", "a%2Fbatches%2Fb", pb.PutBatchRequest(communication_id="a", batch_id="b")),
    ("PUT", "a/batches/batches%2Fb", pb.PutBatchRequest(communication_id="a/batches", batch_id="b")),
    ("GET", "a%0Ab", pb.DescribeCommunicationRequest(communication_id="a\nb")),
    ("PUT", "a%0A/batches/%0Ab", pb.PutBatchRequest(communication_id="a\n", batch_id="\nb")),
    ("POST", "a/b/disable", pb.DisableCommunicationRequest(communication_id="a/b")),
    ("POST", "a/disable/disable", pb.DisableCommunicationRequest(communication_id="a/disable")),
    ("POST", "a/enable/disable", pb.DisableCommunicationRequest(communication_id="a/enable")),
    ("POST", "a/disable/enable", pb.EnableCommunicationRequest(communication_id="a/disable")),
    ("POST", "a/batches/b/enable", pb.EnableCommunicationRequest(communication_id="a/batches/b")),
]


async def test_ids_stand_in_paths_as_they_are_or_escaped(told: CommunicationRig, subtests: pytest.Subtests) -> None:
    for method, path, meant in PATHS:
        with subtests.test(method=method, path=path):
            answer = await told.ask(method, f"/communications/{path}", None if method == "GET" else {})
            assert answer.is_success, answer.text
            asked = told.communications.asked.pop()
            assert type(asked) is type(meant)
            for name in ("communication_id", "batch_id"):
                assert getattr(asked, name, None) == getattr(meant, name, None)


async def test_ids_that_are_not_utf_8_are_not_registered(told: CommunicationRig) -> None:
    """Two of them would be one: what cannot be read is the same character in each."""
    for path, field in (
        ("%FF", "communication_id"),
        ("%ED%A0%80", "communication_id"),
        ("%FF/batches/b", "communication_id"),
        ("a/batches/%FE", "batch_id"),
    ):
        problem = told.gateway.problem(await told.ask("PUT", f"/communications/{path}", {}), 422, field)
        assert "UTF-8" in problem["errors"][0]["fix"]
    assert told.communications.asked == []


async def test_a_wrong_method_names_all_that_there_are(told: CommunicationRig) -> None:
    answer = await told.ask("DELETE", "/communications/spring")
    problem = told.gateway.problem(answer, 405)
    assert (answer.headers["allow"], problem["errors"][0]["fix"]) == ("GET, PUT", "Use GET or PUT.")


async def test_a_missing_body_says_what_to_send(told: CommunicationRig) -> None:
    problem = told.gateway.problem(await told.ask("POST", "/communications/spring/enable"), 422, "body")
    assert "{}" in problem["errors"][0]["fix"]


async def test_who_looks_for_a_batch_below_its_communication_is_told_where_it_is(told: CommunicationRig) -> None:
    told.communications.refusal = BackhaulError(Code.NOT_FOUND, "None.", field="communication_id", fix="Register it.")
    problem = told.gateway.problem(await told.ask("GET", "/communications/a/batches/b"), 404, "communication_id")
    assert "/v1/batches/{batch_id}" in problem["errors"][0]["fix"]
    problem = told.gateway.problem(await told.ask("GET", "/communications/a"), 404, "communication_id")
    assert problem["errors"][0]["fix"] == "Register it."


async def test_two_tenants_never_meet(told: CommunicationRig) -> None:
    """Each call is about the tenant whose key was shown, whatever else is sent."""
    other = await told.gateway.tenant("other")
    routes: list[tuple[str, str, Any]] = [
        ("GET", "/communications", None),
        ("GET", "/communications/spring", None),
        ("PUT", "/communications/spring", {}),
        ("POST", "/communications/spring/disable", {}),
        ("POST", "/communications/spring/enable", {}),
        ("PUT", "/communications/spring/batches/b1", {}),
        ("GET", "/batches", None),
        ("GET", "/batches/b1", None),
        ("GET", "/batches/b1?includemembers=true", None),
        ("GET", "/batches/b1?includemembers=true&limit=1", None),
        ("POST", "/batches/b1/members", []),
        ("POST", "/batches/b1/close", None),
    ]
    for method, path, body in routes:
        for tenant in (told.tenant, other):
            told.communications.asked.clear()
            answer = await told.ask(method, path, body, tenant=tenant)
            assert answer.is_success, (path, answer.text)
            named = {asked.tenant_id for asked in told.communications.asked if asked.tenant_id}
            assert named == {tenant.id}, path
    schema = (await told.gateway.client.get("/openapi.json")).json()
    tried = {(method, path.partition("?")[0].replace("spring", "{}").replace("b1", "{}")) for method, path, _ in routes}
    offered = {
        (method.upper(), path.replace("{communication_id}", "{}").replace("{batch_id}", "{}").removeprefix("/v1"))
        for path, operations in schema["paths"].items()
        for method in operations
        if path.startswith(("/v1/communications", "/v1/batches"))
    }
    assert tried == offered


async def test_what_changes_something_takes_from_the_rate_of_callbacks(told: CommunicationRig) -> None:
    slow = await told.gateway.tenant("slow", limits={"requests_per_second": 0.001, "burst": 6})
    changes: list[tuple[str, str, Any]] = [
        ("PUT", "/communications/spring", {}),
        ("POST", "/communications/spring/disable", {}),
        ("POST", "/communications/spring/enable", {}),
        ("PUT", "/communications/spring/batches/b1", {}),
        ("POST", "/batches/b1/members", []),
        ("POST", "/batches/b1/close", None),
    ]
    for method, path, body in changes:
        assert (await told.ask(method, path, body, tenant=slow)).is_success
    asked = len(told.communications.asked)
    for method, path, body in changes:
        told.gateway.problem(await told.ask(method, path, body, tenant=slow), 429)
    assert len(told.communications.asked) == asked
    assert (await told.ask("GET", "/communications", tenant=slow)).status_code == 200


async def test_openapi_says_what_may_be_told(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri) as gateway:
        schema = (await gateway.client.get("/openapi.json")).json()
    body = schema["components"]["schemas"]["CommunicationIn"]["properties"]
    assert body["completes_on"]["enum"] == ["processed", "final"]
    one = schema["paths"]["/v1/communications/{communication_id}"]
    assert {"200", "201", "400", "422"} <= one["put"]["responses"].keys()
    members = schema["paths"]["/v1/batches/{batch_id}/members"]["post"]["requestBody"]["content"]
    assert set(members) == {"application/json", "application/x-ndjson", "application/jsonl", "text/csv"}
