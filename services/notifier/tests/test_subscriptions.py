"""Subscriptions are written whole, by several copies at once, and never for a tenant that is going. On real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from backhaul_common import fence
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import (
    DELIVERIES_COLLECTION,
    DELIVERIES_DUE_SUBJECT,
    ENDPOINTS_COLLECTION,
    EVENTS_STREAM,
    LOOK_MARK,
    NOTICES_STREAM,
    NOTIFIER_OUTBOX,
    SUBSCRIPTION_CHANGED_SUBJECT,
    SUBSCRIPTIONS_COLLECTION,
    notices_subject,
)
from backhaul_local.nats_server import NatsServer
from backhaul_notifier.documents import MAX_SUBSCRIPTIONS
from backhaul_notifier.schedules import STANDARD
from backhaul_notifier.signing import SecretKind, new_key
from backhaul_notifier.subscriptions.store import KEY_US, MAX_SECRETS, MAX_TEXT
from backhaul_notifier.subscriptions.sweeping import SETTLED_US
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing.waiting import until
from structlog.testing import capture_logs
from subscriptions_rig import ACME, GLOBEX, Copy, Rig, rig_at, wanting

SECRET = "hunter2-and-more"


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


async def made(copy: Copy, tenant: Any = ACME, **fields: Any) -> str:
    subscription, _ = await copy.subscriptions.create(tenant, wanting(**fields))
    return subscription.id


async def test_it_is_made_with_its_endpoint_and_every_copy_hears_of_it(rig: Rig, copy: Copy) -> None:
    other = await rig.copy()
    heard = await rig.nats.subscribe(SUBSCRIPTION_CHANGED_SUBJECT)
    subscription, key = await copy.subscriptions.create(ACME, wanting())
    assert subscription.id.startswith("sub_")
    assert len(subscription.id) == 28
    assert (subscription.revision, subscription.state, subscription.created_at_us) == (1, "active", rig.now_us)
    assert key is not None
    assert key.kind is SecretKind.HMAC
    assert copy.directory.get(subscription.id) == subscription
    assert (await heard.next_msg(timeout=60)).data.decode() == subscription.id

    async def has_it() -> bool:
        return other.directory.get(subscription.id) == subscription

    await until("the subscription in the other copy", has_it)
    endpoint = await rig.endpoint(subscription.id)
    assert {name: endpoint[name] for name in ("registration", "active")} == {"registration": "acme.1", "active": True}
    assert "due_at_us" not in endpoint
    assert await rig.version() == 1
    assert copy.seals.keys(subscription, rig.now_us) == [key]
    assert copy.seals.credentials(subscription).bearer_token == SECRET


async def test_of_two_copies_that_are_asked_the_same_at_once_one_makes_it(rig: Rig, copy: Copy) -> None:
    copies = [copy, await rig.copy()]
    answers = await asyncio.gather(
        *(one.subscriptions.create(ACME, wanting(), key="k", secret="") for one in copies for _ in range(4))
    )
    assert len({subscription.id for subscription, _ in answers}) == 1
    texts = {key.text for _, key in answers if key is not None}
    assert len(texts) == 1
    assert await rig.database[SUBSCRIPTIONS_COLLECTION].count_documents({}) == 1
    assert await rig.database[ENDPOINTS_COLLECTION].count_documents({}) == 1


async def test_a_key_makes_one_thing_of_one_tenant_for_a_day(rig: Rig, copy: Copy) -> None:
    first, key = await copy.subscriptions.create(ACME, wanting(), key="k")
    assert (await copy.subscriptions.create(ACME, wanting(), key="k")) == (first, key)
    for other in (wanting(name="Others"), wanting(credentials=pb.Credentials(bearer_token="another"))):
        error = await refused(copy.subscriptions.create(ACME, other, key="k"))
        assert (error.code, error.field) == (Code.CONFLICT, "idempotency_key")
    own = new_key(SecretKind.HMAC, 0).text
    assert (await refused(copy.subscriptions.create(ACME, wanting(), key="k", secret=own))).code is Code.CONFLICT
    theirs, _ = await copy.subscriptions.create(GLOBEX, wanting(name="Others"), key="k")
    assert theirs.id != first.id
    rig.now_us += KEY_US
    later, _ = await copy.subscriptions.create(ACME, wanting(name="Others"), key="k")
    assert later.id != first.id
    await copy.subscriptions.delete(ACME, later.id)
    again, _ = await copy.subscriptions.create(ACME, wanting(name="Others"), key="k")
    assert again.id != later.id
    for key_text in ("k" * 256, "a\nb"):
        assert (await refused(copy.subscriptions.create(ACME, wanting(), key=key_text))).field == "idempotency_key"


async def test_a_tenant_has_so_many_however_many_copies_are_asked(rig: Rig, copy: Copy) -> None:
    ids = [await made(copy) for _ in range(MAX_SUBSCRIPTIONS - 1)]
    other = await rig.copy()
    results = await asyncio.gather(
        *(one.subscriptions.create(ACME, wanting()) for one in (copy, other, copy, other)), return_exceptions=True
    )
    errors = [one for one in results if isinstance(one, BackhaulError)]
    assert [one.code for one in errors] == [Code.FAILED_PRECONDITION] * 3
    assert errors[0].fix
    await made(copy, GLOBEX)
    await copy.subscriptions.delete(ACME, ids[0])
    await made(copy)


async def test_two_tenants_see_and_change_their_own_alone(rig: Rig, copy: Copy) -> None:
    ours, theirs = await asyncio.gather(made(copy, ACME), made(copy, GLOBEX))
    subscriptions = copy.subscriptions
    for call in (
        subscriptions.require(ACME.registration, theirs),
        subscriptions.update(ACME, theirs, wanting()),
        subscriptions.delete(ACME, theirs),
        subscriptions.pause_by_call(ACME, theirs),
        subscriptions.resume(ACME, theirs),
        subscriptions.rotate(ACME, theirs, SecretKind.HMAC),
    ):
        error = await refused(call)
        assert (error.code, error.field) == (Code.NOT_FOUND, "id")
    assert [one.id for one in (await subscriptions.page(ACME.registration, 0, ""))[0]] == [ours]
    assert (await rig.row(theirs))["revision"] == 1


async def test_pages_are_oldest_first_and_have_each_once(rig: Rig, copy: Copy) -> None:
    ids = []
    for number in range(5):
        rig.now_us += number % 2
        ids.append(await made(copy))
    await made(copy, GLOBEX)
    await copy.subscriptions.delete(ACME, ids.pop(2))
    found, token = [], ""
    while True:
        some, token = await copy.subscriptions.page(ACME.registration, 2, token)
        found += some
        if not token:
            break
    assert sorted(one.id for one in found) == sorted(ids)
    assert [one.created_at_us for one in found] == sorted(one.created_at_us for one in found)
    assert (await refused(copy.subscriptions.page(ACME.registration, 501, ""))).field == "page_size"
    assert (await refused(copy.subscriptions.page(ACME.registration, 0, "x"))).field == "page_token"


async def test_an_update_keeps_secrets_that_are_empty_and_names_the_revision(rig: Rig, copy: Copy) -> None:
    id_ = await made(copy)
    rig.now_us += 1
    empty = wanting(name="Renamed", credentials=pb.Credentials(bearer_token=""))
    after = await copy.subscriptions.update(ACME, id_, empty, 1)
    assert (after.revision, after.definition.name, after.updated_at_us) == (2, "Renamed", rig.now_us)
    assert copy.seals.credentials(after).bearer_token == SECRET
    error = await refused(copy.subscriptions.update(ACME, id_, wanting(), 1))
    assert (error.code, error.field) == (Code.FAILED_PRECONDITION, "revision")
    other = wanting(credentials=pb.Credentials(basic=pb.BasicCredentials(username="me", password="new")))
    after = await copy.subscriptions.update(ACME, id_, other)
    assert copy.seals.credentials(after).basic.password == "new"
    error = await refused(copy.subscriptions.update(ACME, id_, empty))
    assert error.field == "definition.http.credentials.bearer_token"
    assert await copy.subscriptions.require(ACME.registration, id_) == after


async def test_of_updates_of_one_revision_one_is_stored(rig: Rig, copy: Copy) -> None:
    id_ = await made(copy)
    other = await rig.copy()
    results = await asyncio.gather(
        *(one.subscriptions.update(ACME, id_, wanting(name=f"{n}"), 1) for n, one in enumerate((copy, other) * 3)),
        return_exceptions=True,
    )
    stored = [one for one in results if not isinstance(one, BaseException)]
    errors = [one for one in results if isinstance(one, BackhaulError)]
    assert len(stored) == 1
    assert {(one.code, one.field) for one in errors} == {(Code.FAILED_PRECONDITION, "revision")}
    assert len(errors) == 5
    assert await copy.subscriptions.require(ACME.registration, id_) == stored[0]


async def test_paused_and_resumed_at_a_rate(rig: Rig, copy: Copy) -> None:
    id_ = await made(copy)
    rig.now_us += 5
    paused = await copy.subscriptions.pause_by_call(ACME, id_)
    assert (paused.state, paused.state_since_us, paused.revision) == ("paused", rig.now_us, 2)
    assert not (await rig.endpoint(id_))["active"]
    since_us = rig.now_us
    rig.now_us += 5
    assert (await copy.subscriptions.pause_by_call(ACME, id_)).state_since_us == since_us
    trouble = {"failing_since_us": 1, "rest_until_us": 2, "rests": 3, "slow_until_us": 4, "last_failure": "503"}
    await rig.database[ENDPOINTS_COLLECTION].update_one({"_id": id_}, {"$set": trouble})
    due = await rig.nats.subscribe(DELIVERIES_DUE_SUBJECT)
    for rate in (0, 50, 7):
        resumed = await copy.subscriptions.resume(ACME, id_, rate)
        (task,) = (await rig.endpoint(id_))["tasks"]
        assert task["rate_per_s"] == rate
    assert (resumed.state, resumed.state_since_us) == ("active", rig.now_us)
    endpoint = await rig.endpoint(id_)
    assert endpoint["active"]
    assert endpoint["due_at_us"] == rig.now_us
    assert endpoint["told"] == 3
    assert endpoint["last_failure"] == "503"
    assert not {"failing_since_us", "rest_until_us", "rests", "slow_until_us"} & endpoint.keys()
    assert (task["which"], task["from_us"], task["to_us"]) == ("waiting", 0, rig.now_us)
    assert (await due.next_msg(timeout=60)).data.decode() == f"{id_}{LOOK_MARK}"
    for rate in (-1, 1001):
        assert (await refused(copy.subscriptions.resume(ACME, id_, rate))).field == "rate_per_s"


async def test_secrets_rotate_with_a_grace(rig: Rig, copy: Copy) -> None:
    subscription, first = await copy.subscriptions.create(ACME, wanting())
    rotate = copy.subscriptions.rotate
    # In the same microsecond: a key is told from another by its time.
    after, second = await rotate(ACME, subscription.id, SecretKind.HMAC, grace_s=60)
    assert first is not None
    assert second.text != first.text
    keys = copy.seals.keys(after, rig.now_us)
    assert [key.text for key in keys] == [second.text, first.text]
    assert keys[1].expires_at_us == rig.now_us + 60_000_000
    after, third = await rotate(ACME, subscription.id, SecretKind.ED25519)
    assert after.secrets[0].public_key == third.public_text
    assert len(copy.seals.keys(after, rig.now_us)) == 3
    own = new_key(SecretKind.HMAC, 0).text
    after, fourth = await rotate(ACME, subscription.id, SecretKind.HMAC, grace_s=0, secret=own)
    assert fourth.text == own
    assert [key.text for key in copy.seals.keys(after, rig.now_us)] == [own, third.text]
    for fields, field in (
        ({"kind": SecretKind.HMAC, "secret": "whsec_"}, "secret"),
        ({"kind": SecretKind.HMAC, "secret": third.text}, "secret"),
        ({"kind": SecretKind.ED25519, "secret": own}, "secret"),
        ({"kind": SecretKind.HMAC, "grace_s": -1}, "grace_s"),
        ({"kind": SecretKind.HMAC, "grace_s": 604_801}, "grace_s"),
    ):
        error = await refused(rotate(ACME, subscription.id, **fields))
        assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field), fields
    for _ in range(MAX_SECRETS - 2):
        await rotate(ACME, subscription.id, SecretKind.HMAC)
    error = await refused(rotate(ACME, subscription.id, SecretKind.HMAC))
    assert (error.code, error.field) == (Code.FAILED_PRECONDITION, "grace_s")
    await rotate(ACME, subscription.id, SecretKind.HMAC, grace_s=0)


async def test_a_secret_whose_grace_is_over_is_kept_no_longer(rig: Rig, copy: Copy) -> None:
    subscription, _ = await copy.subscriptions.create(ACME, wanting())
    _, second = await copy.subscriptions.rotate(ACME, subscription.id, SecretKind.HMAC, grace_s=60)
    before = await rig.row(subscription.id)
    await rig.sweep().once()
    assert await rig.row(subscription.id) == before
    rig.now_us += 60_000_000
    await rig.sweep().once()
    # The revision is the tenant's, who has changed nothing.
    assert await rig.row(subscription.id) == {**before, "secrets": before["secrets"][:1]}
    after, third = await copy.subscriptions.rotate(ACME, subscription.id, SecretKind.HMAC)
    assert [key.text for key in copy.seals.keys(after, rig.now_us)] == [third.text, second.text]


async def test_what_is_deleted_is_not_there_and_goes_when_it_has_settled(rig: Rig, copy: Copy) -> None:
    id_, kept = await made(copy), await made(copy)
    deliveries = rig.database[DELIVERIES_COLLECTION]
    await deliveries.insert_many(
        [{"_id": bytes([n]), "registration": ACME.registration, "subscription": id_} for n in range(5)]
    )
    await deliveries.insert_one({"_id": b"kept", "subscription": kept})
    await copy.subscriptions.delete(ACME, id_)
    assert copy.subscriptions.get(id_) is None
    assert copy.subscriptions.get(kept) is not None
    assert (await refused(copy.subscriptions.require(ACME.registration, id_))).code is Code.NOT_FOUND
    assert (await refused(copy.subscriptions.delete(ACME, id_))).code is Code.NOT_FOUND
    assert not (await rig.endpoint(id_))["active"]
    await rig.sweep().once()
    assert await deliveries.distinct("subscription") == [kept]
    # A transaction that saw it before may still add some.
    await deliveries.insert_one({"_id": b"late", "registration": ACME.registration, "subscription": id_})
    rig.now_us += SETTLED_US + 1
    await rig.sweep().once()
    assert await deliveries.distinct("subscription") == [kept]
    assert await rig.database[SUBSCRIPTIONS_COLLECTION].distinct("_id") == [kept]
    assert await rig.database[ENDPOINTS_COLLECTION].distinct("_id") == [kept]
    await copy.directory.refresh()
    assert list(copy.directory.values) == [kept]


async def test_of_a_tenant_that_is_going_nothing_is_written(rig: Rig, copy: Copy) -> None:
    id_ = await made(copy)
    before = await rig.row(id_), await rig.endpoint(id_), await rig.version()
    await rig.deleting(ACME)
    subscriptions = copy.subscriptions
    for call in (
        subscriptions.create(ACME, wanting()),
        subscriptions.update(ACME, id_, wanting()),
        subscriptions.delete(ACME, id_),
        subscriptions.pause_by_call(ACME, id_),
        subscriptions.resume(ACME, id_, 5),
        subscriptions.rotate(ACME, id_, SecretKind.HMAC),
    ):
        error = await refused(call)
        assert (error.code, error.field) == (Code.NOT_FOUND, "tenant_id")
    known = copy.directory.get(id_)
    assert known is not None
    await subscriptions.disable(known, "The endpoint answered 410.")
    assert (await rig.row(id_), await rig.endpoint(id_), await rig.version()) == before
    assert await rig.database[NOTIFIER_OUTBOX].count_documents({}) == 0
    # Its successor of the same id is another one.
    successor = ACME.model_copy(update={"registration": "acme.2"})
    await rig.database["tenants"].replace_one({"_id": "acme"}, successor.to_document())
    assert (await refused(subscriptions.create(ACME, wanting()))).field == "tenant_id"
    assert (await subscriptions.page("acme.2", 0, ""))[0] == []


async def test_it_begins_where_the_streams_end(rig: Rig, copy: Copy) -> None:
    """And by its creation's time where NATS is away: nobody waits for that to subscribe."""
    id_ = await made(copy)
    await copy.subscriptions.disable(await copy.subscriptions.require(ACME.registration, id_), "It answered 410.")
    await rig.publish_outbox()
    js = rig.nats.jetstream()
    ends = {stream: (await js.stream_info(stream)).state.last_seq for stream in (EVENTS_STREAM, NOTICES_STREAM)}
    second = await made(copy)
    assert (await rig.row(second))["begins"] == ends
    assert ends[NOTICES_STREAM] == 1
    assert (await copy.subscriptions.require(ACME.registration, second)).begins == ends
    await rig.nats.close()
    assert "begins" not in await rig.row(await made(copy))


async def test_what_backhaul_decides_is_said_in_a_notice_once(rig: Rig, copy: Copy) -> None:
    id_ = await made(copy)
    other = await rig.copy()
    known = copy.directory.get(id_)
    assert known is not None
    reason = "The endpoint answered 410."
    with capture_logs() as said:
        await asyncio.gather(*(one.subscriptions.disable(known, reason) for one in (copy, other, copy)))
    (line,) = (each for each in said if each["event"] == "subscription_stopped")
    assert (line["log_level"], line["tenant"], line["subscription"]) == ("warning", "acme", id_)
    assert (line["state"], line["reason"]) == ("disabled", reason)
    assert "resumes" in line["fix"]
    row = await rig.row(id_)
    assert (row["state"], row["state_text"], row["revision"]) == ("disabled", reason, 2)
    assert not (await rig.endpoint(id_))["active"]
    assert copy.written
    await rig.publish_outbox()
    js = rig.nats.jetstream()
    assert (await js.stream_info(NOTICES_STREAM)).state.messages == 1
    message = await js.get_last_msg(NOTICES_STREAM, notices_subject(ACME.queue_path, "subscription.disabled"))
    notice = Notice.FromString(message.data or b"")
    assert (notice.type, notice.about.reference, notice.tenant_id) == ("subscription.disabled", id_, "acme")
    assert [(pair.name, pair.value) for pair in notice.attributes] == [("reason", reason)]
    assert reason in notice.text
    assert (await copy.subscriptions.pause_by_call(ACME, id_)).state_text == ""
    resumed = await copy.subscriptions.resume(ACME, id_)
    assert (resumed.state, resumed.state_text) == ("active", "")
    # What was decided of it as it was before is nothing that is decided of it now.
    await copy.subscriptions.pause(known, "It has failed for a day.")
    assert (await rig.row(id_))["state"] == "active"
    # Whatever it is that somebody has to say, it finds room.
    await copy.subscriptions.pause(resumed, "x" * 100_000)
    row = await rig.row(id_)
    assert (row["state"], row["state_text"]) == ("paused", "x" * MAX_TEXT)
    assert await rig.database[NOTIFIER_OUTBOX].distinct("subject") == [
        notices_subject(ACME.queue_path, "subscription.paused")
    ]


async def test_while_the_broker_is_away_subscriptions_are_written(rig: Rig, copy: Copy) -> None:
    await rig.nats.close()
    id_ = await made(copy)
    assert copy.directory.get(id_) is not None
    assert (await copy.subscriptions.resume(ACME, id_)).state == "active"


async def test_who_writes_all_the_time_has_no_transaction_begin_anew(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All write one document, and each that begins anew takes a thread from whoever enqueues for all tenants."""
    ids = [await made(copy) for _ in range(4)]
    living, begun = fence.living, list[str]()

    def counted(*given: Any) -> Any:
        begun.append("once more")
        return living(*given)

    monkeypatch.setattr(fence, "living", counted)
    await asyncio.gather(*(copy.subscriptions.pause_by_call(ACME, id_) for id_ in ids * 5))
    assert len(begun) == 20


async def test_what_people_are_told_by_is_never_paused_or_disabled(rig: Rig, copy: Copy) -> None:
    dispatch, ops = pb.Policy(kind=pb.POLICY_KIND_DISPATCH), ["ops@example.com"]
    made, _ = await copy.subscriptions.create(ACME, wanting(alert_addresses=ops, policy=dispatch))
    alerting = copy.subscriptions.get(f"alert_{made.id}")
    assert alerting is not None
    assert alerting.policy == STANDARD, "it would disable the communication once more"
    assert list(alerting.definition.mail.addresses) == ops
    version = await rig.version()
    await copy.subscriptions.pause(alerting, "Its endpoint has only failed.")
    await copy.subscriptions.disable(alerting, "Its endpoint has only failed.")
    assert await rig.version() == version
    assert not await rig.database[NOTIFIER_OUTBOX].count_documents({})
    # It stays active where the subscription is not, is the same while nothing changes, and ends with it.
    await copy.subscriptions.pause_by_call(ACME, made.id)
    paused = copy.subscriptions.get(f"alert_{made.id}")
    assert paused is not None
    assert paused.state == "active"
    assert copy.subscriptions.get(f"alert_{made.id}") is paused
    await copy.subscriptions.delete(ACME, made.id)
    assert not copy.subscriptions._known._made
    assert copy.subscriptions.get(f"alert_{made.id}") is None
    assert copy.subscriptions.get("alert_sub_of_nobody") is None


async def test_a_policy_that_disables_nothing_any_more_has_what_is_held_released(rig: Rig, copy: Copy) -> None:
    dispatch = pb.Policy(kind=pb.POLICY_KIND_DISPATCH)
    made, _ = await copy.subscriptions.create(ACME, wanting(policy=dispatch))
    await copy.subscriptions.update(ACME, made.id, wanting(name="Others", policy=dispatch))
    assert "tasks" not in await rig.endpoint(made.id)
    await copy.subscriptions.update(ACME, made.id, wanting())
    await copy.subscriptions.update(ACME, made.id, wanting(policy=dispatch))
    await copy.subscriptions.update(ACME, made.id, wanting())
    endpoint = await rig.endpoint(made.id)
    (task,) = endpoint["tasks"]
    assert (task["which"], task["all"]) == ("held", True)
    assert (endpoint["told"], endpoint["due_at_us"]) == (2, rig.now_us)
