"""The whole service: what callers and events say is what every copy answers."""

from __future__ import annotations

from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_testing import make
from service_rig import ANNA, BEN, Rig, RigFactory, reply

ACME, GLOBEX = make.tenant("acme"), make.tenant("globex")


async def test_a_stop_suppresses_from_its_acknowledgement_on_and_a_start_lifts_it(service: Rig) -> None:
    assert await service.first.verdict(ACME) == "allowed"
    stop = reply(ACME, "1", "STOP")
    await service.publish(ACME, stop)
    await service.drained()
    answer = await service.first.stub.Check(pb.CheckRequest(tenant_id="acme", address=ANNA))
    assert answer.verdict == pb.VERDICT_SUPPRESSED
    assert [(one.kind, one.event_id, one.since_us, one.scope.kind) for one in answer.blocking] == [
        (pb.SUPPRESSION_KIND_STOP, stop.id, stop.occurred_at_us, pb.SCOPE_KIND_ALL)
    ]
    assert await service.first.verdict(ACME, BEN) == "allowed"
    assert await service.first.verdict(GLOBEX) == "allowed"

    start = reply(ACME, "3", "START")
    await service.publish(ACME, reply(ACME, "2", "HELP"))
    await service.drained()
    assert await service.first.verdict(ACME) == "stop"
    await service.publish(ACME, start)
    await service.drained()
    assert await service.first.verdict(ACME) == "allowed"
    found = await service.first.stub.Get(pb.GetRequest(tenant_id="acme", address=ANNA))
    row = next(one for one in found.suppressions if one.id == answer.blocking[0].suppression_id)
    assert (row.active, row.origin, row.event_id) == (False, pb.ORIGIN_RECIPIENT, start.id)
    history = [(one.suppression.active, one.fact.word) for one in found.history if one.suppression.id == row.id]
    assert history == [(False, "START"), (True, "STOP")]


async def test_what_is_added_on_one_copy_no_other_overlooks(service_factory: RigFactory) -> None:
    async with service_factory(copies=2) as service:
        one, other = service.copies
        for number in range(20):
            address = f"+1500555{number:04}"
            added = await one.stub.Add(
                pb.AddRequest(tenant_id="acme", address=address, kind=pb.SUPPRESSION_KIND_MANUAL)
            )
            assert added.changed
            assert await other.verdict(ACME, address) == "manual"
            assert await other.verdict(GLOBEX, address) == "allowed"
            lifted = await other.stub.Lift(
                pb.LiftRequest(tenant_id="acme", address=address, kind=pb.SUPPRESSION_KIND_MANUAL)
            )
            assert lifted.changed
            assert await one.verdict(ACME, address) == "allowed"
