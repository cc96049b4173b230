"""Every method of every gRPC service, called by a client that knows nothing but the running server."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import grpc
import pytest
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from simulators.archive import ask_for_files, filed, in_digests
from simulators.callers import suppression_of, tls_of
from simulators.reflecting import ReflectingClient

if TYPE_CHECKING:
    from backhaul_client.auditmodels import AuditFile
    from backhaul_local.stack import Stack
    from simulators.callers import InternalService
    from simulators.people import Tenant, Town

Json = dict[str, Any]

SUPPRESSION = "backhaul_proto.suppression.v1.SuppressionService"
AUDIT = "backhaul_proto.audit.v1.AuditService"
RECONCILER = "backhaul_proto.reconciler.v1.ReconcilerService"
NOTIFIER = "backhaul_proto.notifier.v1.NotifierService"
NORMALIZER = "backhaul_proto.normalizer.v1.NormalizerService"
COMMUNICATIONS = "backhaul_proto.normalizer.v1.CommunicationService"
RECORDS = "backhaul_proto.normalizer.v1.RecordService"
REPLAYS = "backhaul_proto.normalizer.v1.ReplayService"
TENANT_DATA = "backhaul_proto.tenantdata.v1.TenantDataService"
SECRET_KEYS = "backhaul_proto.secretkeys.v1.SecretKeysService"
EVERY_SERVER = {TENANT_DATA, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}

ANNA, BEN, CLEO = "+15005550201", "+15005550202", "+15005550203"


def test_no_service_is_left_out(installation: Stack) -> None:
    """Whoever adds one adds its test here."""
    assert {service.name for service in installation.services if "grpc" in service.ports} == {
        "audit", "normalizer", "notifier", "reconciler", "suppression",
    }  # fmt: skip


async def test_every_method_of_suppression(town: Town, installation: Stack, crm: InternalService) -> None:
    tenant = await town.platform.register()

    def work() -> None:
        with ReflectingClient(suppression_of(installation), tls_of(installation), crm.account.token) as client:
            assert client.services() == {SUPPRESSION, *EVERY_SERVER}
            called = _suppression(client, tenant.id)
            assert called == client.methods(SUPPRESSION)
            (health,) = client.call("grpc.health.v1.Health", "Check", {"service": SUPPRESSION})
            assert health == {"status": "SERVING"}

    await asyncio.to_thread(work)


def _suppression(client: ReflectingClient, tenant_id: str) -> set[str]:
    called = set()
    of = {"tenant_id": tenant_id}

    def all_of(method: str, *requests: Json, at_most: int = 100) -> list[Json]:
        called.add(method)
        return client.call(SUPPRESSION, method, *({**of, **one} for one in requests), at_most=at_most)

    def one_of(method: str, **request: Any) -> Json:
        (answer,) = all_of(method, request)
        return answer

    assert one_of("Check", address=ANNA) == {"verdict": "VERDICT_ALLOWED", "blocking": []}
    added = one_of("Add", address=ANNA, kind="SUPPRESSION_KIND_STOP", source="SOURCE_WEB")
    assert added["changed"]
    row = added["suppression"]
    assert (row["address"], row["kind"], row["active"]) == (ANNA, "SUPPRESSION_KIND_STOP", True)
    one_of("Add", address=BEN, kind="SUPPRESSION_KIND_INVALID_ADDRESS")

    checked = one_of("Check", address=ANNA, sending={"purpose": "PURPOSE_TRANSACTIONAL"})
    assert checked["verdict"] == "VERDICT_SUPPRESSED"
    assert [one["suppression_id"] for one in checked["blocking"]] == [row["id"]]
    items = [{"address": ANNA, "correlation_id": "a"}, {"address": CLEO}, {"address": "nobody"}]
    results = one_of("CheckBatch", items=items)["results"]
    verdicts = ["VERDICT_SUPPRESSED", "VERDICT_ALLOWED", "VERDICT_INVALID"]
    assert [(one["verdict"], one["correlation_id"]) for one in results] == list(
        zip(verdicts, ["a", "", ""], strict=True)
    )
    assert results[2]["error"]["field"] == "address"
    streamed = all_of("CheckStream", *({"items": [one]} for one in items))
    assert [one["verdict"] for answer in streamed for one in answer["results"]] == verdicts

    found = one_of("Get", address="+1 500 555 0201")
    assert (found["address"], found["suppressions"]) == (ANNA, [row])
    assert [change["suppression"] for change in found["history"]] == [row]
    assert [one["address"] for one in one_of("List")["suppressions"]] == [BEN, ANNA]

    list_ = f"address\n{CLEO}\n0151 1234567\n".encode()
    imported = all_of(
        "Import", {"format": "FILE_FORMAT_CSV"}, {"data": _as_bytes(list_[:9])}, {"data": _as_bytes(list_[9:])}
    )[-1]
    assert imported["done"]
    assert (imported["lines"], imported["changed"], imported["refused"]) == ("2", "1", "1")
    pieces = all_of("Export", {"format": "FILE_FORMAT_CSV"})
    exported = b"".join(base64.b64decode(piece["data"]) for piece in pieces).decode().splitlines()
    assert sorted(line.split(",")[0] for line in exported) == [ANNA, BEN, CLEO, "address"]

    reactivated = one_of("Reactivate", address=BEN)["suppressions"]
    assert [one["active"] for one in reactivated] == [False]
    evidence = {"source": "SOURCE_WEB", "at_us": time.time_ns() // 1000, "reference": "form 1"}
    lifted = one_of("Lift", address=ANNA, kind="SUPPRESSION_KIND_STOP", evidence=evidence)
    assert (lifted["changed"], lifted["suppression"]["id"]) == (True, row["id"])
    assert one_of("Check", address=ANNA)["verdict"] == "VERDICT_ALLOWED"

    changes = [one["change"] for one in all_of("Watch", {"after_position": 0}, at_most=5)]
    assert [int(one["position"]) for one in changes] == [1, 2, 3, 4, 5]
    addresses = [ANNA, BEN, CLEO, BEN, ANNA]
    standings = [True, True, True, False, False]
    seen = [(one["suppression"]["address"], one["suppression"]["active"]) for one in changes]
    assert seen == list(zip(addresses, standings, strict=True))
    return called


async def test_every_method_of_the_reconciler(town: Town, installation: Stack) -> None:
    tenant = await town.platform.register()
    target = f"127.0.0.1:{installation.port('reconciler', 'grpc')}"
    token = installation.credentials.internal_token

    def work() -> None:
        with ReflectingClient(target, tls_of(installation), token) as client:
            assert client.services() == {RECONCILER, *EVERY_SERVER}
            called = _reconciler(client, tenant.id)
            assert called == client.methods(RECONCILER)

    await asyncio.to_thread(work)


def _reconciler(client: ReflectingClient, tenant_id: str) -> set[str]:
    called = set()

    def one_of(method: str, **request: Any) -> Json:
        called.add(method)
        (answer,) = client.call(RECONCILER, method, {"tenant_id": tenant_id, **request})
        return answer

    channels = {one["channel"]: one for one in one_of("ListChannels")["channels"]}
    assert channels["twilio"]["standing"] == "STANDING_NO_CREDENTIALS"
    assert channels["twilio"]["silence"] == "SILENCE_CANNOT_BE_TOLD"
    assert one_of("ListReports", channel="Twilio") == {"reports": [], "next_page_token": ""}
    assert one_of("ListDifferences")["differences"] == []
    for method, request, code in (
        ("Run", {"channel": "Twilio"}, grpc.StatusCode.FAILED_PRECONDITION),
        ("GetReport", {"id": "0" * 32}, grpc.StatusCode.NOT_FOUND),
        ("GetDay", {"channel": "Twilio", "day": "2026-11-25"}, grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            one_of(method, **request)
        assert refused.value.code() is code, method
    return called


async def test_every_method_of_the_notifier(town: Town, installation: Stack) -> None:
    tenant = await town.platform.register()
    target = f"127.0.0.1:{installation.port('notifier', 'grpc')}"
    token = installation.credentials.internal_token

    def work() -> None:
        with ReflectingClient(target, tls_of(installation), token) as client:
            assert client.services() == {NOTIFIER, SECRET_KEYS, *EVERY_SERVER}
            _secret_keys(client)
            called = _notifier(client, tenant.id)
            assert called == client.methods(NOTIFIER)

    await asyncio.to_thread(work)


def _secret_keys(client: ReflectingClient) -> None:
    assert client.methods(SECRET_KEYS) == {"RenewSecrets"}
    with pytest.raises(grpc.RpcError) as refused:
        client.call(SECRET_KEYS, "RenewSecrets", {"key_id": "0" * 16, "look": True})
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def _notifier(client: ReflectingClient, tenant_id: str) -> set[str]:
    called = set()

    def one_of(method: str, **request: Any) -> Json:
        called.add(method)
        (answer,) = client.call(NOTIFIER, method, {"tenant_id": tenant_id, **request})
        return answer

    assert "message.delivered" in {one["type"] for one in one_of("ListEventTypes")["types"]}
    http = {"method": "HTTP_METHOD_POST", "url": "https://10.0.0.5/told"}
    definition = {"name": "ours", "types": ["message.*"], "http": {**http, "url": "https://endpoint.invalid/told"}}
    made = one_of("CreateSubscription", definition=definition)["subscription"]
    named = {"id": made["id"]}
    assert made["secrets"][0]["secret"].startswith("whsec_")
    assert one_of("GetSubscription", **named)["subscription"]["secrets"][0]["secret"] == ""
    assert [row["id"] for row in one_of("ListSubscriptions")["subscriptions"]] == [made["id"]]
    changed = one_of("UpdateSubscription", **named, definition={**definition, "name": "theirs"})["subscription"]
    assert changed["definition"]["name"] == "theirs"
    assert one_of("PauseSubscription", **named)["subscription"]["state"] == "SUBSCRIPTION_STATE_PAUSED"
    assert one_of("ResumeSubscription", **named)["subscription"]["state"] == "SUBSCRIPTION_STATE_ACTIVE"
    rotated = one_of("RotateSecret", **named, kind="SECRET_KIND_ED25519")["subscription"]
    assert rotated["secrets"][0]["public_key"].startswith("whpk_")
    # There is no such host, which is said in words.
    attempt = one_of("TestSubscription", **named)["attempt"]
    assert attempt["error"]
    assert attempt["text"]
    assert one_of("ListDeliveries", subscription_id=made["id"]) == {"deliveries": [], "next_page_token": ""}
    redelivery = {"subscription_id": made["id"], "which": "REDELIVERED_ALL", "from_us": 1, "dry_run": True}
    assert one_of("Redeliver", **redelivery) == {"deliveries": "0"}
    state = one_of("GetState")
    assert (state["active"], state["failing"], state["waiting"], state["problem"]) == (1, 0, "0", "")
    for method, request, code in (
        ("GetDelivery", {"id": "0" * 32}, grpc.StatusCode.NOT_FOUND),
        ("Redeliver", {"delivery_id": "0" * 32}, grpc.StatusCode.NOT_FOUND),
        ("CreateSubscription", {"definition": {**definition, "http": http}}, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            one_of(method, **request)
        assert refused.value.code() is code, method
    assert one_of("DeleteSubscription", **named) == {}
    assert one_of("ListSubscriptions")["subscriptions"] == []
    return called


async def test_every_method_of_audit(storing_town: Town, storing_installation: Stack) -> None:
    tenant = await storing_town.platform.register()
    await ask_for_files(storing_town.platform, tenant, "Twilio")
    sid = new_sid()
    await tenant.receive(tenant.twilio.status(tenant.address("Twilio", communicationId="spring"), sid, "sent"))
    event = await tenant.event_of("twilio", sid)
    (file,) = await in_digests(tenant, await filed(tenant, 1))

    async def nothing_waits() -> bool:
        return (await tenant.client.channel_status("Twilio")).parts.audit.waiting_since is None

    # It is known a moment after the file is.
    await until("no event to wait for its file", nothing_waits)
    target = f"127.0.0.1:{storing_installation.port('audit', 'grpc')}"
    token = storing_installation.credentials.internal_token

    def work() -> None:
        with ReflectingClient(target, tls_of(storing_installation), token) as client:
            assert client.services() == {AUDIT, SECRET_KEYS, *EVERY_SERVER}
            _secret_keys(client)
            called = _audit(client, tenant.id, event.id, file)
            assert called == client.methods(AUDIT)

    await asyncio.to_thread(work)


def _audit(client: ReflectingClient, tenant_id: str, event_id: str, file: AuditFile) -> set[str]:
    called = set()

    def all_of(method: str, **request: Any) -> list[Json]:
        called.add(method)
        return client.call(AUDIT, method, {"tenant_id": tenant_id, **request})

    def one_of(method: str, **request: Any) -> Json:
        (answer,) = all_of(method, **request)
        return answer

    (listed,) = one_of("ListFiles", channel="Twilio", chain="CHAIN_EVENTS")["files"]
    assert (listed["id"], listed["key"], listed["events"]) == (file.id, file.key, "1")
    assert one_of("DescribeFile", file_id=file.id)["file"] == listed
    pieces = all_of("GetFile", file_id=file.id)
    content = b"".join(base64.b64decode(piece["data"]) for piece in pieces)
    assert (pieces[0]["file"], str(len(content))) == (listed, listed["bytes"])
    assert file.name in one_of("LinkFile", file_id=file.id, valid_s=60)["url"]

    (proof,) = one_of("Prove", event_id=event_id)["proofs"]
    assert (proof["revision"], proof["place"], proof["file"]) == ("0", "1", listed)
    digest = proof["digest"]
    assert digest in one_of("ListDigests", chain="CHAIN_EVENTS")["digests"]
    stored = one_of("GetDigest", chain="CHAIN_EVENTS", number=digest["number"])
    assert stored["digest"] == digest
    assert file.key.encode() in base64.b64decode(stored["data"])
    (head,) = one_of("GetHead")["heads"]
    assert int(head["number"]) >= int(digest["number"])

    keys = client.call(AUDIT, "ListKeys", {})[0]["keys"]
    assert digest["key_id"] in [one["key_id"] for one in keys]
    rotated = client.call(AUDIT, "RotateKey", {})[0]["key"]
    assert client.call(AUDIT, "ListKeys", {})[0]["keys"] == [rotated, *keys]
    # What the old ones signed stays signed.
    last = all_of("Verify", heads=[digest["hash"]])[-1]
    assert (last["done"], last["files"], last["valid_files"]) == (True, "1", "1")
    assert last["digests"] == last["valid_digests"] != "0"

    recount = all_of("Recount", communication_id="spring")[-1]
    kinds = [{"kind": "EVENT_KIND_SENT", "counted": "1", "listed": "1", "audited": "1"}]
    assert (recount["done"], recount["equal"], recount["kinds"]) == (True, True, kinds)

    erased = one_of("ErasePerson", address="+15005550010")
    assert (erased["destroyed"], erased["plain_channels"]) == (False, ["twilio"])
    (state,) = one_of("GetState")["channels"]
    assert (state["channel"], state["problem"], state["waiting_since_us"]) == ("twilio", "", "0")
    return {*called, "ListKeys", "RotateKey"}


async def test_every_method_of_the_normalizer_and_of_a_tenant_s_data(town: Town, installation: Stack) -> None:
    tenant = await town.platform.register()
    sids, replies, letters = await _belongings(tenant)
    token, target = installation.credentials.internal_token, f"127.0.0.1:{installation.port('normalizer', 'grpc')}"

    def work() -> None:
        with ReflectingClient(target, tls_of(installation), token) as client:
            assert client.services() == {NORMALIZER, COMMUNICATIONS, RECORDS, REPLAYS, *EVERY_SERVER}
            called = _normalizer(client, tenant, sids, replies, letters)
            assert called == client.methods(NORMALIZER)
            assert _records(client, tenant.id, sids) == client.methods(RECORDS)
            assert _replays(client, tenant.id) == client.methods(REPLAYS)
            of = {"tenant_id": tenant.id, "registration": tenant.registration}
            (usage,) = client.call(TENANT_DATA, "GetUsage", of)
            kept = {row["kind"]: int(row["count"]) for row in usage["usage"]}
            assert kept["messages"] == 3
            # Of a registration that is not there any more nothing is left to delete.
            gone = {**of, "registration": f"{tenant.id}.0"}
            (purged,) = client.call(TENANT_DATA, "PurgeTenant", gone)
            assert purged == {"deleted": "0"}
            assert client.methods(TENANT_DATA) == {"EraseRecipient", "GetUsage", "PurgeTenant"}

    await asyncio.to_thread(work)


async def _belongings(tenant: Tenant) -> tuple[str, list[str], list[str]]:
    """A message that failed, two flagged replies and two dead letters."""
    sid = new_sid()
    failed = tenant.twilio.status(
        tenant.address("Twilio", communicationId="spring"), sid, "failed", to=ANNA, ErrorCode="30003"
    )
    posts = [failed] + [
        tenant.twilio.inbound(tenant.address("Twilio"), new_sid(), "please cancel my appointment", sender=BEN)
        for _ in range(2)
    ]
    posts += [tenant.sendgrid.signed(tenant.address("SendGrid"), body) for body in (b"[broken", b"[broken too")]
    for post in posts:
        assert (await tenant.send(post)).status_code == 200
    await tenant.message_with("twilio", sid, 1)

    async def flagged() -> list[str] | None:
        found = [row.id async for row in tenant.client.replies(flagged=True)]
        return found if len(found) == 2 else None

    async def dead() -> list[str] | None:
        found = [letter.id for letter in await tenant.dead_letters()]
        return found if len(found) == 2 else None

    return sid, await until("two replies", flagged), await until("two dead letters", dead)


def _normalizer(client: ReflectingClient, tenant: Tenant, sid: str, replies: list[str], letters: list[str]) -> set[str]:
    called = set()

    def one_of(method: str, **request: Any) -> Json:
        called.add(method)
        (answer,) = client.call(NORMALIZER, method, {"tenant_id": tenant.id, **request})
        return answer

    message = one_of("GetMessage", channel="twilio", message_id=sid)
    assert message["message"]["error_code"] == "30003"
    assert [event["message_id"] for event in message["timeline"]] == [sid]
    assert [row["message_id"] for row in one_of("ListMessages", recipient=ANNA)["messages"]] == [sid]
    assert len(one_of("ListEvents")["events"]) == 3
    assert one_of("GetCommunication", communication_id="spring")["communication"]["id"] == "spring"
    assert [row["error_code"] for row in one_of("CountErrors")["errors"]] == ["30003"]
    hour_us = 3_600_000_000
    to_us = (time.time_ns() // 1000 // hour_us + 1) * hour_us
    (row,) = one_of("GetStats", from_us=to_us - 24 * hour_us, to_us=to_us, communication_id="spring")["rows"]
    assert int(row["events"]) == int(row["messages"]) == 1

    assert {row["id"] for row in one_of("ListDeadLetters")["dead_letters"]} == set(letters)
    assert one_of("GetDeadLetter", id=letters[0])["dead_letter"]["id"] == letters[0]
    replayed = one_of("ReplayDeadLetter", id=letters[0])["dead_letter"]
    assert replayed["id"] == letters[0]
    # It is as broken as before, and may have been refused again by the time of the answer.
    assert replayed["state"] in ("DEAD_LETTER_STATE_REPLAYED", "DEAD_LETTER_STATE_OPEN")
    discarded = one_of("DiscardDeadLetter", id=letters[1])["dead_letter"]
    assert discarded["state"] == "DEAD_LETTER_STATE_DISCARDED"

    assert {row["id"] for row in one_of("ListReplies", review="REVIEW_FLAGGED")["replies"]} == set(replies)
    accepted = one_of("AcceptReply", id=replies[0])["reply"]
    assert accepted["consent"]["action"] == "CONSENT_ACTION_OPT_OUT"
    assert one_of("DismissReply", id=replies[1])["reply"]["review"] == "REVIEW_DISMISSED"

    post = tenant.twilio.status(tenant.address("Twilio"), sid, "sent")
    headers = "".join(f"{name}: {value}\r\n" for name, value in post.headers).encode()
    callback = {"url": post.url, "method": "POST", "body": _as_bytes(post.body), "headers": _as_bytes(headers)}
    (part,) = one_of("PreviewCallback", channel="twilio", callback=callback)["parts"]
    assert part["event"]["message_id"] == sid
    return called


def _records(client: ReflectingClient, tenant_id: str, sid: str) -> set[str]:
    record = urlencode({"MessageSid": sid, "MessageStatus": "delivered", "To": ANNA}).encode()
    request = {
        "tenant_id": tenant_id,
        "channel": "twilio",
        "records": [_as_bytes(record)],
        "read_at_us": time.time_ns() // 1000,
    }
    (compared,) = client.call(RECORDS, "CompareRecords", request)
    (comparison,) = compared["comparisons"]
    assert (comparison["verdict"], comparison["message_id"]) == ("VERDICT_MISSING", sid)
    assert (comparison["stored_state"], comparison["stored_error_code"]) == ("EVENT_KIND_FAILED", "30003")
    # What was heard is noted every few seconds.
    (activity,) = client.call(RECORDS, "ListActivity", {"tenant_id": tenant_id})
    assert {one["unanswered_since_us"] for one in activity["channels"]} <= {"0"}
    return {"CompareRecords", "ListActivity"}


def _replays(client: ReflectingClient, tenant_id: str) -> set[str]:
    span = {"kind": "REPLAY_KIND_CALLBACKS", "channel": "twilio", "from_us": 1, "dry_run": True}
    (begun,) = client.call(REPLAYS, "BeginReplay", {"tenant_id": tenant_id, **span})
    one = {"tenant_id": tenant_id, "id": begun["replay"]["id"]}
    (found,) = client.call(REPLAYS, "GetReplay", one)
    assert found["replay"]["kind"] == "REPLAY_KIND_CALLBACKS"
    (cancelled,) = client.call(REPLAYS, "CancelReplay", one)
    assert cancelled["replay"]["state"] in {"REPLAY_STATE_CANCELLED", "REPLAY_STATE_DONE"}
    (listed,) = client.call(REPLAYS, "ListReplays", {"tenant_id": tenant_id})
    assert [row["id"] for row in listed["replays"]] == [one["id"]]
    return {"BeginReplay", "GetReplay", "CancelReplay", "ListReplays"}


def _as_bytes(data: bytes) -> str:
    """As JSON has what protobuf calls bytes."""
    return base64.b64encode(data).decode()
