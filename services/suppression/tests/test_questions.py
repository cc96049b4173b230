"""What callers ask over gRPC, and every way in which that is refused."""

from __future__ import annotations

from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_suppression.addresses import MAX_EMAIL_BYTES
from backhaul_suppression.app import MAX_REQUEST_BYTES
from backhaul_suppression.checks import MAX_CORRELATION_ID, MAX_ITEMS
from calls_rig import ACME, MANUAL, STOP, adding, lifting, refused
from service_rig import ANNA, BEN, NUMBER, Rig


async def test_a_batch_answers_in_order_and_says_what_is_wrong_with_one_item(service: Rig) -> None:
    stub = service.first.stub
    await stub.Add(adding(kind=MANUAL))
    await stub.Add(adding(address="mail@example.com", kind=pb.SUPPRESSION_KIND_COMPLAINT))
    asked = [
        (ANNA, "suppressed"),
        ("", "invalid"),
        (BEN, "allowed"),
        ("+1 (500) 555-0001", "suppressed"),
        ("Mail@Example.COM", "suppressed"),
        ("nobody", "invalid"),
        (ANNA, "suppressed"),
    ]
    request = pb.CheckBatchRequest(
        tenant_id="acme",
        items=[pb.CheckItem(address=address, correlation_id=str(place)) for place, (address, _) in enumerate(asked)],
    )
    results = (await stub.CheckBatch(request)).results
    verdicts = [pb.Verdict.Name(one.verdict).removeprefix("VERDICT_").lower() for one in results]
    assert verdicts == [verdict for _, verdict in asked]
    assert [one.correlation_id for one in results] == [str(place) for place in range(len(asked))]
    for one in results:
        assert bool(one.blocking) == (one.verdict == pb.VERDICT_SUPPRESSED)
        assert (one.error.field == "address") == (one.verdict == pb.VERDICT_INVALID)
        assert bool(one.error.message and one.error.fix) == (one.verdict == pb.VERDICT_INVALID)

    # A complaint does not stop what the person needs.
    request.sending.purpose = pb.PURPOSE_TRANSACTIONAL
    results = (await stub.CheckBatch(request)).results
    assert results[4].verdict == pb.VERDICT_ALLOWED
    assert results[0].verdict == pb.VERDICT_SUPPRESSED
    assert not (await stub.CheckBatch(pb.CheckBatchRequest(tenant_id="acme"))).results


async def test_as_many_items_as_may_be_are_answered_and_more_are_refused(service: Rig) -> None:
    stub = service.first.stub
    items = [pb.CheckItem(address=f"+1500555{place:04}") for place in range(MAX_ITEMS)]
    await stub.Add(adding(address="+15005559999", kind=MANUAL))
    results = (await stub.CheckBatch(pb.CheckBatchRequest(tenant_id="acme", items=items))).results
    suppressed = [place for place, one in enumerate(results) if one.verdict == pb.VERDICT_SUPPRESSED]
    assert (len(results), suppressed) == (MAX_ITEMS, [9999])
    error = await refused(stub.CheckBatch(pb.CheckBatchRequest(tenant_id="acme", items=[*items, items[0]])))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "items")
    # As large as they may be: it fits; and many more of nothing do not.
    longest = "a" * 64 + "@" + ".".join(["b" * 60] * 3 + ["example"])
    items = [pb.CheckItem(address=longest[:MAX_EMAIL_BYTES], correlation_id="c" * MAX_CORRELATION_ID)] * MAX_ITEMS
    assert len((await stub.CheckBatch(pb.CheckBatchRequest(tenant_id="acme", items=items))).results) == MAX_ITEMS
    nothing = pb.CheckBatchRequest(tenant_id="acme", items=[pb.CheckItem()] * (MAX_REQUEST_BYTES // 2))
    assert (await refused(stub.CheckBatch(nothing))).code is Code.TOO_LARGE


async def test_a_correlation_id_that_is_too_long_is_that_items_error(service: Rig) -> None:
    longest = "é" * MAX_CORRELATION_ID
    items = [pb.CheckItem(address=BEN, correlation_id=one) for one in (longest, longest + "é")]
    results = (await service.first.stub.CheckBatch(pb.CheckBatchRequest(tenant_id="acme", items=items))).results
    assert (results[0].verdict, results[0].correlation_id) == (pb.VERDICT_ALLOWED, longest)
    assert (results[1].verdict, results[1].error.field) == (pb.VERDICT_INVALID, "correlation_id")


async def test_a_stream_answers_each_request_in_order(service: Rig) -> None:
    stub = service.first.stub
    await stub.Add(adding(kind=MANUAL))
    requests = [
        pb.CheckStreamRequest(tenant_id="acme", items=[pb.CheckItem(address=ANNA), pb.CheckItem(address=BEN)]),
        pb.CheckStreamRequest(items=[pb.CheckItem(address=BEN)]),
        pb.CheckStreamRequest(),
        pb.CheckStreamRequest(tenant_id="acme", items=[pb.CheckItem(address=ANNA)]),
    ]
    answers = [answer async for answer in stub.CheckStream(iter(requests))]
    assert [[one.verdict for one in answer.results] for answer in answers] == [
        [pb.VERDICT_SUPPRESSED, pb.VERDICT_ALLOWED],
        [pb.VERDICT_ALLOWED],
        [],
        [pb.VERDICT_SUPPRESSED],
    ]
    other = pb.CheckStreamRequest(tenant_id="globex", items=[pb.CheckItem(address=ANNA)])
    with pytest.raises(BackhaulError) as caught:
        _ = [answer async for answer in stub.CheckStream(iter([requests[0], other]))]
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "tenant_id")


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (pb.CheckRequest(tenant_id="acme"), Code.INVALID_ARGUMENT, "address"),
        (pb.CheckRequest(tenant_id="acme", address="nobody"), Code.INVALID_ARGUMENT, "address"),
        (pb.CheckRequest(tenant_id="nobody", address=ANNA), Code.NOT_FOUND, "tenant_id"),
        (pb.CheckRequest(address=ANNA), Code.INVALID_ARGUMENT, "tenant_id"),
        (pb.CheckRequest(tenant_id="acme", address=ANNA, family=99), Code.INVALID_ARGUMENT, "family"),  # type: ignore[arg-type]  # as of a newer client
        (
            pb.CheckRequest(tenant_id="acme", address=ANNA, sending=pb.Sending(purpose=99)),  # type: ignore[arg-type]  # as of a newer client
            Code.INVALID_ARGUMENT,
            "sending.purpose",
        ),
        (
            pb.CheckRequest(tenant_id="acme", address=ANNA, sending=pb.Sending(group="g" * 300)),
            Code.INVALID_ARGUMENT,
            "sending.group",
        ),
    ],
)
async def test_a_wrong_question_is_refused_and_never_allowed(
    request_: pb.CheckRequest, code: Code, field: str, service: Rig
) -> None:
    error = await refused(service.first.stub.Check(request_))
    assert (error.code, error.field) == (code, field)
    assert error.fix


async def test_a_scope_is_passed_over_only_where_another_is_named(service: Rig) -> None:
    stub, copy = service.first.stub, service.first
    await stub.Add(adding(kind=MANUAL, scope=pb.Scope(kind=pb.SCOPE_KIND_SENDER, id="+1 500 555 0006")))
    assert await copy.verdict(ACME) == "manual"
    assert await copy.verdict(ACME, sender=NUMBER) == "manual"
    assert await copy.verdict(ACME, messaging_service="MG1") == "manual"
    assert await copy.verdict(ACME, sender="+15005550007") == "allowed"
    assert await copy.verdict(ACME, sender="") == "allowed"


async def test_lists_are_filtered_and_show_no_other_tenants_rows(service: Rig) -> None:
    stub = service.first.stub
    await stub.Add(adding(kind=MANUAL))
    await stub.Add(adding(address=BEN))
    await stub.Add(adding(tenant_id="globex", address=BEN, kind=MANUAL))
    await stub.Lift(lifting(kind=MANUAL))

    async def listed(**fields: Any) -> list[str]:
        found = await stub.List(pb.ListRequest(tenant_id="acme", **fields))
        return [one.address for one in found.suppressions]

    assert await listed() == [BEN]
    assert await listed(standing=pb.STANDING_LIFTED) == [ANNA]
    assert await listed(standing=pb.STANDING_ANY) == [ANNA, BEN]
    assert await listed(standing=pb.STANDING_ANY, kind=STOP) == [BEN]
    assert await listed(family=event_pb2.ADDRESS_FAMILY_EMAIL) == []
    assert (await refused(stub.List(pb.ListRequest(tenant_id="acme", standing=99)))).field == "standing"  # type: ignore[arg-type]  # as of a newer client
    pages = await stub.List(pb.ListRequest(tenant_id="acme", standing=pb.STANDING_ANY, page_size=1))
    rest = await stub.List(
        pb.ListRequest(tenant_id="acme", standing=pb.STANDING_ANY, page_size=1, page_token=pages.next_page_token)
    )
    assert [one.address for one in (*pages.suppressions, *rest.suppressions)] == [ANNA, BEN]
    assert not rest.next_page_token
