"""What callers change over gRPC, and every way in which that is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_suppression import reads, room
from backhaul_suppression.validity import MAX_NOTE
from calls_rig import ACME, EVIDENCE_SOURCE, GLOBEX, LEGAL, MANUAL, STOP, adding, consent, lifting, refused
from service_rig import ANNA, BEN, NUMBER, Rig, now_us


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"kind": 0}, Code.INVALID_ARGUMENT, "kind"),
        ({"kind": 99}, Code.INVALID_ARGUMENT, "kind"),
        ({"kind": LEGAL}, Code.FORBIDDEN, "kind"),
        ({"address": ""}, Code.INVALID_ARGUMENT, "address"),
        ({"source": pb.SOURCE_EVENT}, Code.INVALID_ARGUMENT, "source"),
        ({"effective_at_us": -1}, Code.INVALID_ARGUMENT, "effective_at_us"),
        ({"effective_at_us": 1 << 62}, Code.INVALID_ARGUMENT, "effective_at_us"),
        ({"scope": pb.Scope(kind=pb.SCOPE_KIND_SENDER)}, Code.INVALID_ARGUMENT, "scope.id"),
        ({"scope": pb.Scope(kind=pb.SCOPE_KIND_SENDER, id=" ")}, Code.INVALID_ARGUMENT, "scope.id"),
        ({"scope": pb.Scope(id="x")}, Code.INVALID_ARGUMENT, "scope.id"),
        ({"note": "n" * (MAX_NOTE + 1)}, Code.INVALID_ARGUMENT, "note"),
        ({"idempotency_key": "k" * 256}, Code.INVALID_ARGUMENT, "idempotency_key"),
        ({"evidence": pb.Evidence(reference="r")}, Code.INVALID_ARGUMENT, "evidence.source"),
        ({"evidence": consent(reference="r" * 513)}, Code.INVALID_ARGUMENT, "evidence.reference"),
        ({"evidence": consent(text="t" * 1001)}, Code.INVALID_ARGUMENT, "evidence.text"),
        ({"author": "a" * 129}, Code.INVALID_ARGUMENT, "author"),
        ({"actor": 99}, Code.INVALID_ARGUMENT, "actor"),
        ({"tenant_id": "nobody"}, Code.NOT_FOUND, "tenant_id"),
    ],
)
async def test_what_cannot_be_added_names_its_field(
    fields: dict[str, Any], code: Code, field: str, service: Rig
) -> None:
    error = await refused(service.first.stub.Add(adding(**fields)))
    assert (error.code, error.field) == (code, field)
    assert error.fix
    assert await service.first.verdict(ACME) == "allowed"


async def test_an_address_has_so_many_scopes_and_always_room_for_everything(
    service: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_NARROW", 2)
    stub = service.first.stub

    def of_group(number: int, **fields: Any) -> pb.AddRequest:
        return adding(scope=pb.Scope(kind=pb.SCOPE_KIND_GROUP, id=f"group {number}"), **fields)

    for number in range(2):
        await stub.Add(of_group(number, idempotency_key=str(number)))
    error = await refused(stub.Add(of_group(2)))
    assert (error.code, error.field) == (Code.FAILED_PRECONDITION, "scope")
    assert "everything" in error.fix
    # What is suppressed already may be said again, and of somebody else it is the first.
    await stub.Add(of_group(0, idempotency_key="0"))
    await stub.Add(of_group(1))
    await stub.Add(of_group(2, address=BEN))
    await stub.Add(of_group(2, tenant_id="globex"))
    await stub.Add(adding())
    assert await service.first.verdict(ACME) == "stop stop stop"
    await stub.Lift(lifting(scope=pb.Scope(kind=pb.SCOPE_KIND_GROUP, id="group 0"), evidence=consent()))
    await stub.Add(of_group(2))


async def test_all_that_is_wrong_is_said_at_once(service: Rig) -> None:
    error = await refused(
        service.first.stub.Lift(lifting(note="n" * 600, evidence=pb.Evidence(source=EVIDENCE_SOURCE)))
    )
    assert [one.field for one in error.violations] == ["note", "evidence.at_us", "evidence.reference"]


async def test_what_is_said_twice_under_one_key_is_said_once(service: Rig) -> None:
    stub = service.first.stub
    first = await stub.Add(adding(idempotency_key="1", note="by post"))
    again = await stub.Add(adding(idempotency_key="1", note="by post"))
    assert (first.changed, again.changed) == (True, False)
    assert again.suppression == first.suppression
    for other in (
        adding(idempotency_key="1", note="by phone"),
        adding(idempotency_key="1", note="by post", address=BEN),
        adding(idempotency_key="1", note="by post", effective_at_us=1),
        adding(idempotency_key="1", note="by post", kind=MANUAL),
    ):
        error = await refused(stub.Add(other))
        assert (error.code, error.field) == (Code.CONFLICT, "idempotency_key")
    error = await refused(stub.Lift(lifting(idempotency_key="1", note="by post", evidence=consent())))
    assert error.code == Code.CONFLICT
    assert await service.first.verdict(ACME, BEN) == "allowed"
    # Another tenant's key is another one, and so is another author's.
    assert (await stub.Add(adding(tenant_id="globex", idempotency_key="1", note="by phone"))).changed
    assert (await stub.Add(adding(address=BEN, idempotency_key="1", author="key:2"))).changed
    # Without a key each call stands for itself, and the first word counts.
    later = await stub.Add(adding())
    assert not later.changed
    assert later.suppression == first.suppression


async def test_the_same_key_at_the_same_time_is_one_fact(service: Rig) -> None:
    stub = service.first.stub
    answers = await asyncio.gather(*(stub.Add(adding(idempotency_key="1")) for _ in range(10)))
    assert len({one.suppression.position for one in answers}) == 1
    history = (await stub.Get(pb.GetRequest(tenant_id="acme", address=ANNA))).history
    assert len(history) == 1
    notes = [stub.Add(adding(address=BEN, idempotency_key="2", note=str(place))) for place in range(10)]
    ended = await asyncio.gather(*notes, return_exceptions=True)
    assert sum(isinstance(one, pb.AddResponse) for one in ended) == 1
    assert {one.code for one in ended if isinstance(one, BackhaulError)} == {Code.CONFLICT}


async def test_a_stop_is_lifted_with_evidence_that_is_later(service: Rig) -> None:
    stub = service.first.stub
    stopped_us = now_us() - 1_000_000
    added = await stub.Add(adding(effective_at_us=stopped_us, source=pb.SOURCE_AGENT, author="key:1"))
    row = added.suppression
    assert (row.since_us, row.origin, row.source, row.author) == (
        stopped_us,
        pb.ORIGIN_RECIPIENT,
        pb.SOURCE_AGENT,
        "key:1",
    )
    assert row.due_by_us > stopped_us
    error = await refused(stub.Lift(lifting()))
    assert (error.code, error.field) == (Code.FAILED_PRECONDITION, "evidence")
    assert error.message.startswith("stop_by_recipient: ")
    error = await refused(stub.Lift(lifting(evidence=consent(stopped_us - 1))))
    assert (error.code, error.field) == (Code.FAILED_PRECONDITION, "evidence.at_us")
    assert error.message.startswith("evidence_after_suppression: ")
    assert await service.first.verdict(ACME) == "stop"

    asked = lifting(evidence=consent(stopped_us), idempotency_key="1")
    lifted = await stub.Lift(asked)
    assert lifted.changed
    assert not lifted.suppression.active
    assert await service.first.verdict(ACME) == "allowed"
    # Said again after the next STOP, it is no further consent.
    await stub.Add(adding())
    again = await stub.Lift(asked)
    assert not again.changed
    assert again.suppression.active
    assert await service.first.verdict(ACME) == "stop"


async def test_a_consent_that_is_ahead_of_time_lifts_nothing_that_is_said_from_now_on(service: Rig) -> None:
    stub = service.first.stub
    await stub.Add(adding(effective_at_us=now_us() - 1_000_000))
    ahead = consent(now_us() + 50_000_000)
    lifted = await stub.Lift(lifting(evidence=ahead))
    assert lifted.suppression.since_us <= now_us()
    assert await service.first.verdict(ACME) == "allowed"
    await stub.Add(adding())
    assert await service.first.verdict(ACME) == "stop"
    # Nor before it was said at all, or of what is lifted already.
    await stub.Lift(lifting(evidence=ahead))
    await stub.Lift(lifting(evidence=ahead))
    await stub.Add(adding())
    assert await service.first.verdict(ACME) == "stop"


@pytest.mark.parametrize(
    ("kind", "actor", "rule"),
    [
        (pb.SUPPRESSION_KIND_COMPLAINT, pb.ACTOR_TENANT, "complaint_by_recipient"),
        (pb.SUPPRESSION_KIND_HARD_BOUNCE, pb.ACTOR_TENANT, "hard_bounce_by_delivery"),
        (pb.SUPPRESSION_KIND_INVALID_ADDRESS, pb.ACTOR_OPERATOR, "invalid_address_by_delivery"),
        (pb.SUPPRESSION_KIND_PROVIDER_BLOCK, pb.ACTOR_TENANT, "provider_block_by_provider"),
        (STOP, pb.ACTOR_OPERATOR, "stop_by_recipient"),
    ],
)
async def test_a_refused_lift_names_its_rule(kind: Any, actor: Any, rule: str, service: Rig) -> None:
    stub = service.first.stub
    await stub.Add(adding(kind=kind))
    error = await refused(stub.Lift(lifting(kind=kind, actor=actor, evidence=consent())))
    assert error.code == Code.FAILED_PRECONDITION
    assert error.message.startswith(f"{rule}: ")
    assert error.fix
    assert await service.first.verdict(ACME) != "allowed"


async def test_a_refused_lift_of_a_block_says_what_lifts_one_of_its_scope(service: Rig) -> None:
    stub, block = service.first.stub, pb.SUPPRESSION_KIND_PROVIDER_BLOCK
    scopes = {NUMBER: pb.Scope(kind=pb.SCOPE_KIND_SENDER, id=NUMBER), "": pb.Scope(kind=pb.SCOPE_KIND_ALL)}
    for sender, scope in scopes.items():
        await stub.Add(adding(kind=block, scope=scope))
        error = await refused(stub.Lift(lifting(kind=block, scope=scope)))
        assert "START" in error.fix
        # No delivery lifts what covers everything: of the other senders it proves nothing.
        assert ("delivery" in error.fix) == bool(sender)


async def test_what_is_legal_is_the_operators(service: Rig) -> None:
    stub = service.first.stub
    added = await stub.Add(adding(kind=LEGAL, actor=pb.ACTOR_OPERATOR))
    assert (added.suppression.origin, added.suppression.author) == (pb.ORIGIN_OPERATOR, "operator")
    error = await refused(stub.Lift(lifting(kind=LEGAL, evidence=consent())))
    assert error.message.startswith("legal_by_operator: ")
    assert (await stub.Lift(lifting(kind=LEGAL, actor=pb.ACTOR_OPERATOR))).changed
    assert await service.first.verdict(ACME) == "allowed"


async def test_what_is_not_there_cannot_be_lifted(service: Rig) -> None:
    stub = service.first.stub
    await stub.Add(adding(tenant_id="globex", kind=MANUAL))
    assert (await refused(stub.Lift(lifting(kind=MANUAL)))).code == Code.NOT_FOUND
    assert (await refused(stub.Reactivate(pb.ReactivateRequest(tenant_id="acme", address=ANNA)))).code == Code.NOT_FOUND
    await stub.Add(adding(kind=MANUAL, scope=pb.Scope(kind=pb.SCOPE_KIND_GROUP, id="news")))
    error = await refused(stub.Lift(lifting(kind=MANUAL)))
    assert (error.code, error.field) == (Code.NOT_FOUND, "address")
    assert await service.first.verdict(GLOBEX) == "manual"


async def test_reactivating_lifts_what_says_that_an_address_does_not_work_and_nothing_else(service: Rig) -> None:
    stub = service.first.stub
    kinds = (pb.SUPPRESSION_KIND_HARD_BOUNCE, pb.SUPPRESSION_KIND_INVALID_ADDRESS, STOP)
    for kind in kinds:
        await stub.Add(adding(kind=kind))
    await stub.Add(adding(kind=kinds[0], scope=pb.Scope(kind=pb.SCOPE_KIND_SENDER, id=NUMBER)))
    asked = pb.ReactivateRequest(tenant_id="acme", address=ANNA, idempotency_key="1", note="answered the phone")
    lifted = (await stub.Reactivate(asked)).suppressions
    assert sorted(one.kind for one in lifted) == [kinds[0], kinds[0], kinds[1]]
    assert not any(one.active for one in lifted)
    assert not (await stub.Reactivate(asked)).suppressions
    assert await service.first.verdict(ACME) == "stop"
    await stub.Add(adding(kind=kinds[0]))
    assert not (await stub.Reactivate(asked)).suppressions
    assert await service.first.verdict(ACME) == "hard_bounce stop"
    other = pb.ReactivateRequest(tenant_id="acme", address=ANNA, idempotency_key="1", note="wrote back")
    assert (await refused(stub.Reactivate(other))).code == Code.CONFLICT


async def test_of_an_address_with_more_rows_than_are_answered_each_may_be_lifted(
    service: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "MAX_ROWS_OF_ADDRESS", 1)
    stub = service.first.stub
    scopes = [pb.Scope(kind=pb.SCOPE_KIND_GROUP, id=str(number)) for number in range(3)]
    for scope in scopes:
        assert (await stub.Add(adding(kind=MANUAL, scope=scope))).suppression.author == "backhaul"
    for scope in scopes:
        assert (await stub.Lift(lifting(kind=MANUAL, scope=scope))).changed
    assert await service.first.verdict(ACME) == "allowed"
