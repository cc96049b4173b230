"""Sending again: what is counted, what changes at once, and what is left to whoever holds the endpoint."""

from __future__ import annotations

from typing import Any

import pytest
from backhaul_common.errors import Code
from backhaul_common.names import SUBSCRIPTIONS_COLLECTION, TENANTS_COLLECTION
from backhaul_notifier.deliveries import redelivering
from backhaul_notifier.deliveries.redelivering import MAX_TASKS, Chosen
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from deliveries_rig import ACME, MINUTE_US, NOW_US, ORDERS, OTHERS, THEIRS, DeliveriesRig, refusal_of, tried

SINCE = NOW_US - 1000 * MINUTE_US


async def redeliver(stub: Any, tenant: str = "acme", **asked: Any) -> int:
    answer = await stub.Redeliver(pb.RedeliverRequest(tenant_id=tenant, **asked))
    found: int = answer.deliveries
    return found


def failed(**asked: Any) -> dict[str, Any]:
    return {"subscription_id": ORDERS, "which": pb.REDELIVERED_FAILED, "from_us": SINCE, **asked}


async def test_one_waits_again_and_its_endpoint_is_due(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    made = await deliveries.made(
        state="failed", attempts=10, counted=9, ours=1, call=b"\x01" * 16, tries=[tried(9), tried(10)]
    )
    assert await redeliver(deliveries_stub, delivery_id=made, dry_run=True) == 1
    before = await deliveries.stored(made)
    assert (before["state"], deliveries.woken) == ("failed", [])
    assert "due_at_us" not in await deliveries.endpoint()

    assert await redeliver(deliveries_stub, delivery_id=made) == 1
    row = await deliveries.stored(made)
    assert (row["state"], row["attempts"], row["due_at_us"]) == ("waiting", 0, NOW_US)
    assert not {"counted", "ours", "ended_at_us", "ends_at", "call"} & row.keys()
    # What became of it before stays to be seen.
    assert row["tries"] == [tried(9), tried(10)]
    assert row.keys() | {"counted", "ours", "ended_at_us", "ends_at", "call"} == before.keys() | {"resets", "again"}
    endpoint = await deliveries.endpoint()
    assert (endpoint["due_at_us"], endpoint["told"]) == (NOW_US, 8)
    assert deliveries.woken == [ORDERS]


async def test_one_that_waits_is_sent_at_once(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    made = await deliveries.made(state="waiting", attempts=3, counted=3, due_at_us=NOW_US + 10**9)
    assert await redeliver(deliveries_stub, delivery_id=made) == 1
    row = await deliveries.stored(made)
    assert (row["due_at_us"], row["attempts"]) == (NOW_US, 0)


async def test_nothing_of_another_tenant_is_sent_again(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    theirs = await deliveries.made(THEIRS, state="failed")
    for id_ in (theirs, "0" * 32, "x", theirs.upper()):
        error = await refusal_of(redeliver(deliveries_stub, delivery_id=id_))
        assert (error.code, error.field) == (Code.NOT_FOUND, "delivery_id")
    for subscription in (THEIRS, "sub_0", "\x00"):
        for dry_run in (True, False):
            asked = failed(subscription_id=subscription, dry_run=dry_run)
            error = await refusal_of(redeliver(deliveries_stub, **asked))
            assert (error.code, error.field) == (Code.NOT_FOUND, "subscription_id")
    assert (await deliveries.stored(theirs))["state"] == "failed"
    assert "tasks" not in await deliveries.endpoint(THEIRS)
    assert deliveries.woken == []


async def test_many_are_counted_and_left_to_the_endpoint_s_holder(
    deliveries: DeliveriesRig, deliveries_stub: Any
) -> None:
    first = await deliveries.made(state="failed")
    await deliveries.made(state="failed", type="message.failed")
    await deliveries.made(OTHERS, state="failed")
    await deliveries.made(state="failed", created_at_us=SINCE - 1)
    await deliveries.made(state="delivered")
    await deliveries.made(state="waiting")
    await deliveries.made(state="waiting", tries=[tried(1)])
    await deliveries.made(state="delivered", created_at_us=NOW_US)
    stub = deliveries_stub
    assert await redeliver(stub, **failed(dry_run=True)) == 2
    assert await redeliver(stub, **failed(dry_run=True, which=pb.REDELIVERED_ALL)) == 5
    assert await redeliver(stub, **failed(dry_run=True, which=pb.REDELIVERED_NEVER_ATTEMPTED)) == 1
    assert await redeliver(stub, **failed(dry_run=True, types=["message.failed"])) == 1
    assert await redeliver(stub, **failed(dry_run=True, to_us=NOW_US - MINUTE_US)) == 1
    for filters, number in (
        ({"channel": "Twilio"}, 2),
        ({"channel": "SendGrid"}, 0),
        ({"channel": "twilio", "message_id": "SM00000002"}, 1),
        ({"communication_id": "spring"}, 2),
        ({"communication_id": "spring", "types": ["message.delivered"]}, 1),
        ({"event_id": "event00000001"}, 1),
        ({"event_id": "event00000001", "communication_id": "autumn"}, 0),
    ):
        assert await redeliver(stub, **failed(dry_run=True, **filters)) == number, filters
    assert "tasks" not in await deliveries.endpoint()
    assert deliveries.woken == []

    # What lies ahead of now is not made yet, and is not meant.
    asked = failed(which=pb.REDELIVERED_ALL, to_us=NOW_US + 5, types=["message.failed"] * 2, rate_per_s=20)
    assert await redeliver(stub, **asked) == 1
    endpoint = await deliveries.endpoint()
    (task,) = endpoint["tasks"]
    assert task == {
        "id": task["id"],
        "which": "all",
        "from_us": SINCE,
        "to_us": NOW_US,
        "types": ["message.failed"],
        "rate_per_s": 20,
    }
    assert (endpoint["due_at_us"], endpoint["told"], deliveries.woken) == (NOW_US, 8, [ORDERS])
    assert (await deliveries.stored(first))["state"] == "failed"


async def test_a_filter_is_left_to_the_holder_with_the_rest(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    await deliveries.made(state="failed")
    asked = failed(channel="Twilio", message_id="SM00000001", communication_id="spring", event_id="event00000001")
    assert await redeliver(deliveries_stub, **asked) == 1
    (task,) = (await deliveries.endpoint())["tasks"]
    about = {"channel": "twilio", "message_id": "SM00000001", "communication_id": "spring", "event_id": "event00000001"}
    assert task["about"] == about
    condition = Chosen.of(task).condition(ACME.registration, ORDERS)
    assert {name: condition[name] for name in about} == about
    # As it was stored before there were filters.
    del task["about"]
    assert not about.keys() & Chosen.of(task).condition(ACME.registration, ORDERS).keys()


async def test_where_there_are_none_nothing_is_to_be_done(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    assert await redeliver(deliveries_stub, **failed()) == 0
    assert "tasks" not in await deliveries.endpoint()
    assert deliveries.woken == []


async def test_an_endpoint_has_so_many_to_be_done(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    await deliveries.made(state="failed")
    for _ in range(MAX_TASKS):
        assert await redeliver(deliveries_stub, **failed()) == 1
    error = await refusal_of(redeliver(deliveries_stub, **failed()))
    assert (error.code, error.field) == (Code.FAILED_PRECONDITION, "subscription_id")
    tasks = (await deliveries.endpoint())["tasks"]
    assert len({task["id"] for task in tasks}) == MAX_TASKS
    assert await redeliver(deliveries_stub, **failed(dry_run=True)) == 1


async def test_more_are_not_counted(
    deliveries: DeliveriesRig, deliveries_stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redelivering, "MAX_COUNTED", 3)
    for _ in range(5):
        await deliveries.made(state="failed")
    assert await redeliver(deliveries_stub, **failed()) == 3


async def test_nothing_is_sent_again_of_who_is_going(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    made = await deliveries.made(state="failed")
    subscriptions = deliveries.database[SUBSCRIPTIONS_COLLECTION]
    await subscriptions.update_one({"_id": ORDERS}, {"$set": {"deleted": True}})
    assert (await refusal_of(redeliver(deliveries_stub, delivery_id=made))).code is Code.NOT_FOUND
    assert (await refusal_of(redeliver(deliveries_stub, **failed()))).code is Code.NOT_FOUND
    await subscriptions.update_one({"_id": ORDERS}, {"$unset": {"deleted": ""}})
    await deliveries.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    assert (await refusal_of(redeliver(deliveries_stub, delivery_id=made))).field == "tenant_id"
    assert (await refusal_of(redeliver(deliveries_stub, **failed()))).field == "tenant_id"
    assert (await deliveries.stored(made))["state"] == "failed"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "subscription_id"),
        (failed(which=0), "which"),
        (failed(which=9), "which"),
        (failed(from_us=0), "from_us"),
        (failed(from_us=-1), "from_us"),
        (failed(from_us=NOW_US), "from_us"),
        (failed(to_us=SINCE), "from_us"),
        (failed(to_us=1 << 62), "to_us"),
        (failed(types=["message.failed", "message.*"]), "types[1]"),
        (failed(rate_per_s=1001), "rate_per_s"),
        (failed(rate_per_s=-1), "rate_per_s"),
        (failed(message_id="SM1"), "channel"),
        ({"delivery_id": "0" * 32, "communication_id": "spring"}, "communication_id"),
        ({"delivery_id": "0" * 32, "subscription_id": ORDERS}, "subscription_id"),
        ({"delivery_id": "0" * 32, "rate_per_s": 5}, "rate_per_s"),
    ],
)
async def test_what_is_no_request_names_its_field(
    deliveries: DeliveriesRig, deliveries_stub: Any, asked: dict[str, Any], field: str
) -> None:
    error = await refusal_of(redeliver(deliveries_stub, **asked))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)
    assert error.fix
