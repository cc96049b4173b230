"""What the calls for subscriptions answer: all but what is secret, and how it stands. On real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import DELIVERIES_COLLECTION, ENDPOINTS_COLLECTION, SUBSCRIPTIONS_COLLECTION
from backhaul_local.nats_server import NatsServer
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.documents import webhook_id
from backhaul_notifier.servicer_subscriptions import TESTS_AT_ONCE
from backhaul_notifier.signing import SecretKind, new_key
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from structlog.testing import capture_logs
from subscriptions_rig import ACME, GLOBEX, Copy, Rig, key_pair, rig_at, wanting

SECRET = "hunter2-and-more"
OAUTH = pb.OAuthCredentials(token_url="https://id.example.com/t", client_id="me", client_secret=SECRET)


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, fresh_nats: NatsServer) -> AsyncIterator[Rig]:
    async with rig_at(fresh_nats.uri, mongo_server.uri, mongo_database) as made:
        yield made


@pytest.fixture
async def copy(rig: Rig) -> Copy:
    return await rig.copy()


async def refused(call: Awaitable[Any]) -> BackhaulError:
    with pytest.raises(BackhaulError) as caught:
        await call
    return caught.value


def creating(**fields: Any) -> pb.CreateSubscriptionRequest:
    return pb.CreateSubscriptionRequest(tenant_id="acme", definition=wanting(), **fields)


async def created(copy: Copy) -> pb.Subscription:
    return (await copy.calls.create(creating())).subscription


CERTIFICATE, PRIVATE_KEY = key_pair()


@pytest.mark.parametrize(
    "credentials",
    [
        pb.Credentials(basic=pb.BasicCredentials(username="me", password=SECRET)),
        pb.Credentials(bearer_token=SECRET),
        pb.Credentials(header=pb.HeaderCredentials(name="X-Key", value=SECRET)),
        pb.Credentials(oauth=OAUTH),
        pb.Credentials(bearer_token=SECRET, mutual_tls=pb.MutualTls(certificate=CERTIFICATE, private_key=PRIVATE_KEY)),
    ],
)
async def test_what_is_secret_is_in_no_answer_no_document_and_no_log(
    rig: Rig, copy: Copy, credentials: pb.Credentials
) -> None:
    calls, own = copy.calls, new_key(SecretKind.HMAC, 0).text
    with capture_logs() as logged:
        request = creating(secret=own, idempotency_key="k")
        request.definition.http.credentials.CopyFrom(credentials)
        first = (await calls.create(request)).subscription
        assert [secret.secret for secret in first.secrets] == [own]
        assert (await calls.create(request)).subscription == first
        named: dict[str, Any] = {"tenant_id": "acme", "id": first.id}
        # What was answered can be sent back as it is.
        again = pb.UpdateSubscriptionRequest(**named, definition=first.definition, revision=first.revision)
        answers: list[Any] = [
            await calls.update(again),
            await calls.get(pb.GetSubscriptionRequest(**named)),
            await calls.list(pb.ListSubscriptionsRequest(tenant_id="acme")),
            await calls.pause(pb.PauseSubscriptionRequest(**named)),
            await calls.resume(pb.ResumeSubscriptionRequest(**named)),
            await calls.rotate(pb.RotateSecretRequest(**named, kind=pb.SECRET_KIND_ED25519)),
            await calls.test(pb.TestSubscriptionRequest(**named)),
        ]
        row = await rig.row(first.id)
        await rig.database["subscriptions"].update_one(
            {"_id": first.id}, {"$set": {"state": "tomorrows", "revision": 99}}
        )
        await copy.directory.refresh()
    # Messages of the changes before may have it read once more.
    assert "document_unreadable" in (events := {entry["event"] for entry in logged})
    assert events <= {"document_unreadable", "document_reload_failed"}
    kind = credentials.WhichOneof("kind")
    assert kind
    assert first.definition.http.credentials.WhichOneof("kind") == kind
    for what in (first.definition, *answers, row, logged):
        text = str(what)
        assert SECRET not in text
        assert "PRIVATE KEY" not in text
        assert own not in text
        assert "whsk_" not in text
    assert row["secrets"][0]["secret"] not in str(logged)


async def test_a_secret_is_told_to_whoever_made_it_alone(copy: Copy) -> None:
    subscription = await created(copy)
    (secret,) = subscription.secrets
    assert secret.kind == pb.SECRET_KIND_HMAC
    assert secret.secret.startswith("whsec_")
    named: dict[str, Any] = {"tenant_id": "acme", "id": subscription.id}
    rotated = (await copy.calls.rotate(pb.RotateSecretRequest(**named, kind=pb.SECRET_KIND_HMAC))).subscription
    assert [bool(one.secret) for one in rotated.secrets] == [True, False]
    assert rotated.secrets[0].secret != secret.secret
    day_us = 86_400 * 1_000_000
    assert rotated.secrets[1].expires_at_us - rotated.updated_at_us == day_us
    request = pb.RotateSecretRequest(**named, kind=pb.SECRET_KIND_ED25519, grace_s=0)
    rotated = (await copy.calls.rotate(request)).subscription
    assert [bool(one.secret) for one in rotated.secrets] == [False] * 3
    assert rotated.secrets[0].public_key.startswith("whpk_")
    for kind in (0, 99):
        error = await refused(copy.calls.rotate(pb.RotateSecretRequest(**named, kind=kind)))  # type: ignore[arg-type]  # newer than this copy
        assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "kind")


async def test_how_it_stands(rig: Rig, copy: Copy) -> None:
    subscription, other = await created(copy), await created(copy)
    assert subscription.standing == pb.Standing()
    states = ("delivered", "waiting", "failed", "waiting", "held", "held", "held")
    rows = [
        {"_id": bytes([n]), "registration": registration, "subscription": subscription.id, "state": state, "order": n}
        | {"created_at_us": 100 + n}
        for n, (registration, state) in enumerate((ACME.registration, state) for state in states)
    ]
    await rig.database[DELIVERIES_COLLECTION].insert_many(rows)
    standing = {
        "failing_since_us": 1,
        "last_success_at_us": 2,
        "last_failure_at_us": 3,
        "last_failure": "The endpoint answered 503.",
    }
    endpoints = rig.database[ENDPOINTS_COLLECTION]
    await endpoints.update_one({"_id": subscription.id}, {"$set": {**standing, "rest_until_us": 4}})
    wanted = pb.Standing(waiting=2, oldest_waiting_at_us=101, held=3, resting_until_us=4, **standing)  # type: ignore[arg-type]  # of several types
    got = (await copy.calls.get(pb.GetSubscriptionRequest(tenant_id="acme", id=subscription.id))).subscription
    assert got.standing == wanted
    listed = (await copy.calls.list(pb.ListSubscriptionsRequest(tenant_id="acme"))).subscriptions
    assert {one.id: one.standing for one in listed} == {subscription.id: wanted, other.id: pb.Standing()}
    await copy.calls.delete(pb.DeleteSubscriptionRequest(tenant_id="acme", id=other.id))
    listed = (await copy.calls.list(pb.ListSubscriptionsRequest(tenant_id="acme"))).subscriptions
    assert [one.id for one in listed] == [subscription.id]


async def test_how_it_goes_with_all_of_them(rig: Rig, copy: Copy) -> None:
    async def state(tenant: str = "acme") -> pb.GetStateResponse:
        return await copy.calls.state(pb.GetStateRequest(tenant_id=tenant))

    assert await state() == pb.GetStateResponse()
    one, other, third = [await created(copy) for _ in range(3)]
    rows = [
        {"_id": bytes([n]), "registration": of.registration, "subscription": one.id, "state": state_, "order": n}
        | {"created_at_us": 200 - n}
        for n, (of, state_) in enumerate(
            [(ACME, "delivered"), (ACME, "waiting"), (ACME, "failed"), (ACME, "waiting"), (GLOBEX, "waiting")]
        )
    ]
    rows += [{**rows[1], "_id": bytes([n]), "state": "held", "order": n} for n in (7, 8)]
    await rig.database[DELIVERIES_COLLECTION].insert_many(rows)
    await rig.database[ENDPOINTS_COLLECTION].update_one({"_id": other.id}, {"$set": {"failing_since_us": 1}})
    await copy.calls.pause(pb.PauseSubscriptionRequest(tenant_id="acme", id=one.id))
    counted: dict[str, Any] = {"waiting": 2, "oldest_waiting_at_us": 197, "held": 2, "failed": 1, "failing": 1}
    counted["paused"] = 1
    assert await state() == pb.GetStateResponse(**counted, active=2)

    (stopped,) = [found for found in [copy.subscriptions.get(third.id)] if found]
    await copy.subscriptions.disable(stopped, "The endpoint answered 410.")
    problem = "The subscription Orders is disabled: The endpoint answered 410."
    assert await state() == pb.GetStateResponse(**counted, active=1, disabled=1, problem=problem)
    assert await state("globex") == pb.GetStateResponse(waiting=1, oldest_waiting_at_us=196)


async def test_a_test_call_sends_a_sample_whatever_the_state(copy: Copy) -> None:
    subscription = await created(copy)
    named: dict[str, Any] = {"tenant_id": "acme", "id": subscription.id}
    await copy.calls.pause(pb.PauseSubscriptionRequest(**named))
    answer = (await copy.calls.test(pb.TestSubscriptionRequest(**named))).attempt
    assert answer == pb.Attempt(
        number=1,
        at_us=5,
        duration_us=7,
        status=503,
        text="The endpoint answered 503.",
        answer=b"away",
        request="POST https://example.com/sent",
    )
    await copy.calls.test(pb.TestSubscriptionRequest(**named, type="message.failed"))
    for (told, (delivery,), call_id), name in zip(
        copy.caller.made, ("message.delivered", "message.failed"), strict=True
    ):
        assert (told.id, told.state) == (subscription.id, "paused")
        assert (delivery.type, delivery.notice) == (name, False)
        assert delivery.payload == sample_of(TYPES[name], "acme").SerializeToString()
        assert call_id == webhook_id(delivery.id)
    assert copy.caller.made[0][2] != copy.caller.made[1][2]
    for name in ("message.read", "message.*", "nothing"):
        error = await refused(copy.calls.test(pb.TestSubscriptionRequest(**named, type=name)))
        assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "type")
    assert (
        await refused(copy.calls.test(pb.TestSubscriptionRequest(tenant_id="globex", id=subscription.id)))
    ).code is (Code.NOT_FOUND)


@pytest.mark.parametrize(
    ("types", "sent"),
    [
        (["message.*"], "message.delivered"),
        (["*"], "message.delivered"),
        (["message.unknown", "message.read"], "message.read"),
        (["message.unknown"], "message.unknown"),
        (["consent.*"], "consent.opt_out"),
        (["communication.*"], "communication.completed"),
    ],
)
async def test_of_a_pattern_a_type_that_is_told_every_day_is_sent(copy: Copy, types: list[str], sent: str) -> None:
    asking = pb.CreateSubscriptionRequest(tenant_id="acme", definition=wanting(types=types))
    subscription = (await copy.calls.create(asking)).subscription
    await copy.calls.test(pb.TestSubscriptionRequest(tenant_id="acme", id=subscription.id))
    [(_, (delivery,), _)] = copy.caller.made
    assert delivery.type == sent
    assert delivery.payload == sample_of(TYPES[sent], "acme").SerializeToString()


async def test_test_calls_are_few(copy: Copy) -> None:
    subscription = await created(copy)
    request = pb.TestSubscriptionRequest(tenant_id="acme", id=subscription.id)
    for _ in range(TESTS_AT_ONCE):
        await copy.calls.test(request)
    error = await refused(copy.calls.test(request))
    assert error.code is Code.RATE_LIMITED
    assert error.retry_after_s
    assert len(copy.caller.made) == TESTS_AT_ONCE


async def test_tenants_that_nobody_knows_are_refused(copy: Copy) -> None:
    calls = copy.calls
    for call in (
        calls.create(pb.CreateSubscriptionRequest(tenant_id="nobody", definition=wanting())),
        calls.get(pb.GetSubscriptionRequest(tenant_id="nobody")),
        calls.list(pb.ListSubscriptionsRequest(tenant_id="nobody")),
        calls.update(pb.UpdateSubscriptionRequest(tenant_id="nobody")),
        calls.delete(pb.DeleteSubscriptionRequest(tenant_id="nobody")),
        calls.pause(pb.PauseSubscriptionRequest(tenant_id="nobody")),
        calls.resume(pb.ResumeSubscriptionRequest(tenant_id="nobody")),
        calls.rotate(pb.RotateSecretRequest(tenant_id="nobody", kind=pb.SECRET_KIND_HMAC)),
        calls.test(pb.TestSubscriptionRequest(tenant_id="nobody")),
    ):
        error = await refused(call)
        assert (error.code, error.field) == (Code.NOT_FOUND, "tenant_id")


async def test_what_is_only_validated_is_shown_as_it_would_be_and_stored_nowhere(rig: Rig, copy: Copy) -> None:
    shown = (await copy.calls.create(creating(validate_only=True))).subscription
    assert await rig.database[SUBSCRIPTIONS_COLLECTION].find_one({}) is None
    made = await created(copy)
    assert shown.definition == made.definition
    assert shown.definition.http.credentials.bearer_token == ""
    assert (shown.id, list(shown.secrets)) == ("", [])
    before = await rig.row(made.id)
    other = wanting(name="Other", credentials=pb.Credentials(bearer_token=""))
    updating = pb.UpdateSubscriptionRequest(tenant_id="acme", id=made.id, definition=other, validate_only=True)
    looked = (await copy.calls.update(updating)).subscription
    assert await rig.row(made.id) == before
    updating.validate_only = False
    assert (await copy.calls.update(updating)).subscription.definition == looked.definition
    # What would be refused is, and another tenant's is not found.
    for wrong in (
        wanting(types=["message.snet"]),
        wanting(url="https://other.example.com/", credentials=pb.Credentials(bearer_token="")),
    ):
        updating = pb.UpdateSubscriptionRequest(tenant_id="acme", id=made.id, definition=wrong, validate_only=True)
        assert (await refused(copy.calls.update(updating))).code is Code.INVALID_ARGUMENT
    updating.tenant_id = "globex"
    assert (await refused(copy.calls.update(updating))).code is Code.NOT_FOUND
