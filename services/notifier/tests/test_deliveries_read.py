"""Deliveries as they are asked for: over a real connection, on a real MongoDB."""

from __future__ import annotations

import time
from typing import Any

import pytest
from backhaul_common import pages
from backhaul_common.errors import Code
from backhaul_common.names import ENDPOINTS_COLLECTION
from backhaul_notifier.access import SERVICE, VERBS
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from deliveries_rig import (
    ACME,
    MINUTE_US,
    NOW_US,
    ORDERS,
    OTHERS,
    THEIRS,
    DeliveriesRig,
    refusal_of,
    tried,
)

LIST_MS = 50


async def ids(stub: Any, **asked: Any) -> list[str]:
    """What one page lists."""
    answer = await stub.ListDeliveries(pb.ListDeliveriesRequest(tenant_id="acme", **asked))
    return [one.id for one in answer.deliveries]


async def test_every_method_has_a_verb() -> None:
    methods = {f"{SERVICE}.{method.name}" for method in pb.DESCRIPTOR.services_by_name["NotifierService"].methods}
    assert methods == set(VERBS)
    assert {method.rpartition(".")[2] for method, verb in VERBS.items() if verb == "redeliver"} == {"Redeliver"}


async def test_a_delivery_with_its_attempts(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    refused = tried(1, status=0, error="address_refused", text="The address is refused.", answer="")
    made = await deliveries.made(
        state="failed", attempts=2, tries=[refused, tried(2, status=500, answer="naïve")], revision=3
    )
    answer = await deliveries_stub.GetDelivery(pb.GetDeliveryRequest(tenant_id="acme", id=made))
    last = pb.Attempt(
        number=2,
        at_us=NOW_US + 2,
        duration_us=1500,
        status=500,
        text="The endpoint answered 200.",
        answer="naïve".encode(),
        request="POST https://example.com/hook",
    )
    assert answer.delivery == pb.Delivery(
        id=made,
        subscription_id=ORDERS,
        webhook_id=f"msg_{made}",
        type="message.delivered",
        event_id="event00000001",
        revision=3,
        channel="twilio",
        message_id="SM00000001",
        communication_id="spring",
        state=pb.DELIVERY_STATE_FAILED,
        attempts=2,
        created_at_us=NOW_US - MINUTE_US,
        ended_at_us=NOW_US - MINUTE_US + 5,
        last_attempt=last,
    )
    assert (answer.attempts[0].error, answer.attempts[0].status, answer.attempts[1]) == ("address_refused", 0, last)


async def test_a_list_has_the_attempts_where_they_are_asked_for(
    deliveries: DeliveriesRig, deliveries_stub: Any
) -> None:
    said = tried(1, status=503) | {"answer": "x" * 4096, "request": "https://hooks.example.com/a"}
    await deliveries.made(tries=[said, tried(2)], attempts=2)
    await deliveries.made(state="waiting", tries=[])
    wanted = pb.ListDeliveriesRequest(tenant_id="acme", with_history=True)
    told, waiting = (await deliveries_stub.ListDeliveries(wanted)).deliveries
    first = told.history[0]
    assert (first.number, first.status, first.answer, first.request) == (1, 503, b"", "")
    assert ([one.number for one in told.history], list(waiting.history)) == ([1, 2], [])
    bare, _ = (await deliveries_stub.ListDeliveries(pb.ListDeliveriesRequest(tenant_id="acme"))).deliveries
    assert not bare.history
    wanted.page_size = 51
    error = await refusal_of(deliveries_stub.ListDeliveries(wanted))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "page_size")


async def test_what_waits_says_until_when_and_what_was_sent_together_shares_an_id(
    deliveries: DeliveriesRig, deliveries_stub: Any
) -> None:
    made = await deliveries.made(state="waiting", due_at_us=NOW_US + 7, call=b"\x01" * 16)
    found = (await deliveries_stub.GetDelivery(pb.GetDeliveryRequest(tenant_id="acme", id=made))).delivery
    assert (found.next_attempt_at_us, found.ended_at_us, found.attempts) == (NOW_US + 7, 0, 0)
    assert found.webhook_id == "msg_" + "01" * 16
    assert not found.HasField("last_attempt")


async def test_the_next_attempt_is_when_the_endpoint_lets_it_come(
    deliveries: DeliveriesRig, deliveries_stub: Any
) -> None:
    first = await deliveries.made(state="waiting", due_at_us=NOW_US - 7)
    later = await deliveries.made(state="waiting", due_at_us=NOW_US + 2 * MINUTE_US)
    over = await deliveries.made()

    async def told() -> dict[str, tuple[int, bool]]:
        listed = (await deliveries_stub.ListDeliveries(pb.ListDeliveriesRequest(tenant_id="acme"))).deliveries
        for one in listed:
            got = await deliveries_stub.GetDelivery(pb.GetDeliveryRequest(tenant_id="acme", id=one.id))
            assert (got.delivery.next_attempt_at_us, got.delivery.when_resumed) == (
                one.next_attempt_at_us, one.when_resumed,
            )  # fmt: skip
        return {one.id: (one.next_attempt_at_us, one.when_resumed) for one in listed}

    endpoints = deliveries.database[ENDPOINTS_COLLECTION]
    assert await told() == {
        first: (NOW_US - 7, False), later: (NOW_US + 2 * MINUTE_US, False), over: (0, False),
    }  # fmt: skip
    # Its breaker lets nothing through before its probe.
    await endpoints.update_one({"_id": ORDERS}, {"$set": {"rest_until_us": NOW_US + MINUTE_US}})
    assert await told() == {
        first: (NOW_US + MINUTE_US, False), later: (NOW_US + 2 * MINUTE_US, False), over: (0, False),
    }  # fmt: skip
    await endpoints.update_one({"_id": ORDERS}, {"$set": {"active": False}})
    assert await told() == {first: (0, True), later: (0, True), over: (0, False)}


async def test_nothing_of_another_tenant_is_told(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    mine, theirs = await deliveries.made(event_id="same"), await deliveries.made(THEIRS, event_id="same")
    for id_ in (theirs, "", "x" * 32, "0" * 32, theirs.upper(), "\x00"):
        error = await refusal_of(deliveries_stub.GetDelivery(pb.GetDeliveryRequest(tenant_id="acme", id=id_)))
        assert (error.code, error.field) == (Code.NOT_FOUND, "id")
    assert await ids(deliveries_stub) == await ids(deliveries_stub, event_id="same") == [mine]
    assert await ids(deliveries_stub, subscription_id=THEIRS) == []
    assert await ids(deliveries_stub, channel="Twilio", message_id="SM00000002") == []


async def test_what_may_not_be_wanted_is_in_no_list(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    await deliveries.made(state="waiting", unsure=True, communication_id="")
    known = await deliveries.made(state="waiting")
    stub = deliveries_stub
    assert await ids(stub) == [known]
    assert await ids(stub, state=pb.DELIVERY_STATE_WAITING) == [known]
    assert await ids(stub, never_attempted=True) == await ids(stub, undelivered=True) == [known]


async def test_the_filters(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    delivered = await deliveries.made(communication_id="autumn")
    failed = await deliveries.made(state="failed", type="message.failed")
    waiting = await deliveries.made(state="waiting")
    again = await deliveries.made(OTHERS, state="waiting", tries=[tried(1)], event_id="event00000003")
    bare = deliveries.row(state="waiting")
    for name in ("channel", "message_id", "communication_id"):
        del bare[name]
    await deliveries.rows.insert_one(bare)
    notice = bare["_id"].hex()
    stub = deliveries_stub
    assert await ids(stub) == [delivered, failed, waiting, again, notice]
    assert await ids(stub, subscription_id=OTHERS) == [again]
    assert await ids(stub, state=pb.DELIVERY_STATE_FAILED) == await ids(stub, type="message.failed") == [failed]
    assert await ids(stub, state=pb.DELIVERY_STATE_WAITING) == [waiting, again, notice]
    assert await ids(stub, never_attempted=True) == [waiting, notice]
    assert await ids(stub, never_attempted=True, state=pb.DELIVERY_STATE_FAILED) == []
    assert await ids(stub, undelivered=True) == [failed, waiting, again, notice]
    assert await ids(stub, undelivered=True, subscription_id=OTHERS) == [again]
    assert await ids(stub, undelivered=True, state=pb.DELIVERY_STATE_WAITING) == [waiting, again, notice]
    assert await ids(stub, undelivered=True, state=pb.DELIVERY_STATE_DELIVERED) == []
    assert await ids(stub, undelivered=True, never_attempted=True) == [waiting, notice]
    assert await ids(stub, event_id="event00000003") == [waiting, again]
    assert await ids(stub, channel="Twilio", message_id="SM00000002") == [failed]
    assert await ids(stub, channel="SendGrid", message_id="SM00000002") == []
    assert await ids(stub, communication_id="autumn") == [delivered]
    two, three = NOW_US - 2 * MINUTE_US, NOW_US - 3 * MINUTE_US
    assert await ids(stub, from_us=three, to_us=two) == [waiting]
    assert await ids(stub, from_us=three) == [delivered, failed, waiting]
    shown = await stub.GetDelivery(pb.GetDeliveryRequest(tenant_id="acme", id=notice))
    assert (shown.delivery.channel, shown.delivery.message_id, shown.delivery.communication_id) == ("", "", "")


async def test_those_whose_latest_attempt_failed_so(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    late, refused = tried(1, status=0, error="timeout"), tried(1, status=0, error="tls_failed")
    gone, away = tried(1, status=410), tried(2, status=503)
    await deliveries.made(tries=[late, tried(2)])
    await deliveries.made(state="waiting")
    timed_out = await deliveries.made(state="waiting", attempts=2, tries=[away, late])
    tls = await deliveries.made(state="held", tries=[refused])
    failed = await deliveries.made(OTHERS, state="failed", tries=[late, gone])
    await deliveries.made(THEIRS, state="failed", tries=[gone])
    later = await deliveries.made(state="failed", tries=[late, away])
    # A status with which it would have succeeded, and did not.
    half = await deliveries.made(state="failed", tries=[tried(1, error="reset")])
    stub = deliveries_stub
    assert await ids(stub, reason="timeout") == [timed_out]
    assert await ids(stub, reason="tls_*") == await ids(stub, reason="tls_failed") == [tls]
    assert await ids(stub, reason="t*") == [timed_out, tls]
    assert await ids(stub, reason="410") == await ids(stub, reason="4xx") == [failed]
    assert await ids(stub, reason="5xx", state=pb.DELIVERY_STATE_FAILED) == [later]
    assert await ids(stub, reason="5xx", state=pb.DELIVERY_STATE_WAITING) == []
    assert await ids(stub, reason="2xx") == await ids(stub, reason="200") == []
    assert await ids(stub, reason="reset") == [half]
    assert await ids(stub, reason="lost") == await ids(stub, reason="timeout", never_attempted=True) == []
    assert await ids(stub, reason="410", subscription_id=OTHERS) == [failed]
    for wrong in ("TIMEOUT", "6xx", "50", "t*t", "*", "$where", "5xx\n", "x" * 65):
        error = await refusal_of(ids(stub, reason=wrong))
        assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "reason"), wrong
        assert error.fix


async def test_each_is_on_one_page_whatever_comes_meanwhile(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    # Several of one moment: those of one batch are.
    states = ("waiting", "failed", "delivered") * 4
    made = [await deliveries.made(state=state, created_at_us=NOW_US) for state in states]
    found, token = [], ""
    while True:
        request = pb.ListDeliveriesRequest(tenant_id="acme", page_size=5, page_token=token)
        answer = await deliveries_stub.ListDeliveries(request)
        found += [one.id for one in answer.deliveries]
        await deliveries.made(created_at_us=NOW_US + 1)
        # Of what was read and what was not, some change their states.
        await deliveries.rows.update_many({"state": "waiting"}, {"$set": {"state": "delivered"}})
        if not (token := answer.next_page_token):
            break
    assert found == sorted(made, reverse=True)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 501}, "page_size"),
        ({"page_token": "x"}, "page_token"),
        ({"page_token": pages.token_of(NOW_US, "no-hex")}, "page_token"),
        ({"page_token": pages.token_of(-5, "00")}, "page_token"),
        ({"page_token": pages.token_of(1 << 63, "00")}, "page_token"),
        ({"page_token": "é\x00"}, "page_token"),
        ({"from_us": -1}, "from_us"),
        ({"to_us": 1 << 62}, "to_us"),
        ({"state": 17}, "state"),
        ({"type": "message.*"}, "type"),
        ({"message_id": "SM1"}, "channel"),
    ],
)
async def test_what_is_no_question_names_its_field(
    deliveries: DeliveriesRig, deliveries_stub: Any, asked: dict[str, Any], field: str
) -> None:
    request = pb.ListDeliveriesRequest(tenant_id="acme", **asked)
    error = await refusal_of(deliveries_stub.ListDeliveries(request))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)
    assert error.fix


async def test_a_token_of_another_tenant_shows_nothing_of_his(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    for _ in range(3):
        await deliveries.made(THEIRS)
    mine = await deliveries.made()
    theirs = await deliveries_stub.ListDeliveries(pb.ListDeliveriesRequest(tenant_id="globex", page_size=1))
    assert await ids(deliveries_stub, page_token=theirs.next_page_token) == [mine]


@pytest.mark.timed
@pytest.mark.slow
async def test_a_hundred_thousand_are_listed_by_index(deliveries: DeliveriesRig, deliveries_stub: Any) -> None:
    states = ("delivered",) * 98 + ("failed", "waiting")
    rows = [deliveries.row(OTHERS if number % 1000 == 7 else ORDERS, states[number % 100]) for number in range(100_000)]
    for row in rows[::25_000]:
        row["type"] = "message.complained"
    for start in range(0, len(rows), 10_000):
        await deliveries.rows.insert_many(rows[start : start + 10_000], ordered=False)
    middle = rows[50_000]["created_at_us"]
    questions: list[tuple[dict[str, Any], int]] = [
        ({}, 50),
        ({"page_token": pages.token_of(middle, rows[50_000]["_id"].hex())}, 50),
        ({"state": pb.DELIVERY_STATE_FAILED}, 50),
        ({"state": pb.DELIVERY_STATE_WAITING, "to_us": middle}, 50),
        ({"subscription_id": OTHERS}, 50),
        ({"subscription_id": ORDERS, "to_us": middle}, 50),
        ({"subscription_id": OTHERS, "state": pb.DELIVERY_STATE_DELIVERED}, 50),
        ({"never_attempted": True}, 50),
        ({"undelivered": True}, 50),
        ({"event_id": rows[77]["event_id"]}, 1),
        ({"channel": "twilio", "message_id": rows[77_777]["message_id"]}, 1),
        ({"communication_id": "spring"}, 50),
    ]
    for asked, count in questions:
        took = []
        for _ in range(3):
            began = time.perf_counter()
            assert len(await ids(deliveries_stub, **asked)) == count, asked
            took.append((time.perf_counter() - began) * 1000)
        assert min(took) < LIST_MS, (asked, took)
    # A type that is rare is found, too.
    assert len(await ids(deliveries_stub, type="message.complained")) == 4
    examined = await deliveries.database.command(
        "explain",
        {
            "find": "deliveries",
            "filter": {"registration": ACME.registration, "state": {"$in": ["waiting", "delivered", "failed"]}},
            "sort": {"created_at_us": -1, "_id": -1},
            "limit": 51,
        },
        verbosity="executionStats",
    )
    assert examined["executionStats"]["totalDocsExamined"] < 100
