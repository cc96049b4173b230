"""Who may call: service accounts at the whole service, with every method and every verb."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from backhaul_common.accounts import ServiceAccount, ServiceLimits, ServiceToken
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import SERVICE_CHANGED_SUBJECT, SERVICES_COLLECTION
from backhaul_common.secrets import new_credential
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_proto.tenantdata.v1.tenantdata_pb2 import GetUsageRequest, PurgeTenantRequest
from backhaul_suppression.app import VERBS
from backhaul_suppression.checks import MAX_ITEMS
from backhaul_testing.waiting import until
from service_rig import ANNA, BEN, Rig

NOW = datetime(2026, 3, 1, tzinfo=UTC)
STOP, UNSUBSCRIBE = pb.SUPPRESSION_KIND_STOP, pb.SUPPRESSION_KIND_UNSUBSCRIBE
METHODS = {name.rpartition(".")[2]: verb for name, verb in VERBS.items()}
EVERYTHING = tuple(sorted(set(METHODS.values())))


class Account:
    """A service account, and the calls that show its token."""

    def __init__(self, service: Rig, service_id: str, token: str) -> None:
        self._service = service
        self._id = service_id
        self.shows = (("authorization", f"Bearer {token}"),)

    async def call(self, method: str, tenant: str = "acme", **fields: Any) -> Any:
        """The answer, or the first of a stream's; a refusal is raised."""
        requests = {
            "CheckStream": pb.CheckStreamRequest,
            "Import": pb.ImportRequest,
        }
        stub = getattr(self._service.first.stub, method)
        if method in requests:
            answers = stub(_one(requests[method](tenant_id=tenant, **fields)), metadata=self.shows)
        else:
            answers = stub(getattr(pb, f"{method}Request")(tenant_id=tenant, **fields), metadata=self.shows)
        if method in ("CheckStream", "Import", "Export", "Watch"):
            try:
                return await anext(answers)
            finally:
                await answers.aclose()
        return await answers

    async def code(self, method: str, tenant: str = "acme", **fields: Any) -> Code | None:
        try:
            await self.call(method, tenant, **fields)
        except BackhaulError as exc:
            return exc.code
        return None


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request


async def account(service: Rig, service_id: str = "crm", **values: Any) -> Account:
    """One that the first copy knows."""
    token_id, token, digest = new_credential("service")
    made = ServiceAccount(
        id=service_id,
        registration=f"{service_id}.1",
        name=service_id,
        tokens=(ServiceToken(id=token_id, digest=digest, created_at=NOW),),
        **{"tenants": ("acme",), "verbs": EVERYTHING, "created_at": NOW, "updated_at": NOW, **values},
    )
    await service.database[SERVICES_COLLECTION].insert_one(made.to_document())
    await service.nats.publish(SERVICE_CHANGED_SUBJECT, service_id.encode())
    caller = Account(service, service_id, token)

    async def known() -> bool:
        return await caller.code("Check") is not Code.UNAUTHENTICATED

    await until("the copy knows the service", known)
    return caller


@pytest.mark.parametrize("method", METHODS)
async def test_a_service_of_one_tenant_reaches_nothing_of_another(service: Rig, method: str) -> None:
    crm = await account(service)
    for tenant in ("globex", "nobody"):
        assert await crm.code(method, tenant) is Code.FORBIDDEN


async def test_each_method_needs_its_verb_and_no_other(service: Rig) -> None:
    for verb in EVERYTHING:
        crm = await account(service, f"only-{verb}", verbs=(verb,))
        for method, needed in METHODS.items():
            code = await crm.code(method)
            if needed == verb:
                assert code not in (Code.FORBIDDEN, Code.UNAUTHENTICATED), (verb, method)
            else:
                assert code is Code.FORBIDDEN, (verb, method)


async def test_a_tenants_data_is_backhauls_own_services_affair(service: Rig) -> None:
    crm = await account(service, tenants=("*",))
    for method, request in (
        ("GetUsage", GetUsageRequest(tenant_id="acme", registration="x")),
        ("PurgeTenant", PurgeTenantRequest(tenant_id="acme", registration="x")),
    ):
        with pytest.raises(BackhaulError) as caught:
            await getattr(service.first.data, method)(request, metadata=crm.shows)
        assert caught.value.code is Code.FORBIDDEN


async def test_a_service_acts_in_its_own_name_and_not_for_the_operator(service: Rig) -> None:
    crm = await account(service)
    added = await crm.call("Add", address=ANNA, kind=STOP, author="key:0123456789ab")
    assert added.suppression.author == "service:crm"
    for method in ("Add", "Lift", "Reactivate"):
        fields: dict[str, Any] = {"address": BEN, "actor": pb.ACTOR_OPERATOR}
        if method != "Reactivate":
            fields["kind"] = STOP
        assert await crm.code(method, **fields) is Code.FORBIDDEN


async def test_who_is_bound_to_a_purpose_asks_and_sees_for_that_alone(service: Rig) -> None:
    for kind in (STOP, UNSUBSCRIBE):
        await service.first.stub.Add(pb.AddRequest(tenant_id="acme", address=ANNA, kind=kind))
    free, bound = await account(service, "free"), await account(service, "bound", purposes=("transactional",))
    asking: dict[str, dict[str, Any]] = {
        "Check": {"address": ANNA},
        "CheckBatch": {"items": [pb.CheckItem(address=ANNA)]},
        "CheckStream": {"items": [pb.CheckItem(address=ANNA)]},
    }
    for method, fields in asking.items():
        for purpose in (pb.PURPOSE_UNSPECIFIED, pb.PURPOSE_MARKETING):
            assert await bound.code(method, **fields, sending=pb.Sending(purpose=purpose)) is Code.FORBIDDEN
            assert await free.code(method, **fields, sending=pb.Sending(purpose=purpose)) is None
        assert await bound.code(method, **fields, sending=pb.Sending(purpose=pb.PURPOSE_TRANSACTIONAL)) is None

    for who, kinds in ((free, {STOP, UNSUBSCRIBE}), (bound, {STOP})):
        found = await who.call("Get", address=ANNA)
        assert {row.kind for row in found.suppressions} == kinds
        assert {change.suppression.kind for change in found.history} == kinds
        assert {row.kind for row in (await who.call("List")).suppressions} == kinds
    evidence = pb.Evidence(source=pb.SOURCE_WEB, at_us=1_900_000_000_000_000, reference="form 1")
    assert await bound.code("Lift", address=ANNA, kind=UNSUBSCRIBE, evidence=evidence) is Code.FORBIDDEN
    assert await bound.code("Export", kind=UNSUBSCRIBE) is Code.FORBIDDEN
    assert await bound.code("Export") is Code.FORBIDDEN
    assert await bound.code("Export", kind=STOP) is not Code.FORBIDDEN
    assert await bound.code("Watch", kinds=[STOP, UNSUBSCRIBE]) is Code.FORBIDDEN
    assert await bound.code("Watch") is not Code.FORBIDDEN


async def test_what_is_too_much_for_one_request_is_refused_before_it_waits_for_its_turn(service: Rig) -> None:
    slow = await account(service, limits=ServiceLimits(checks_per_second=0.01, checks_burst=10))
    async with asyncio.timeout(60):
        code = await slow.code("CheckStream", items=[pb.CheckItem(address=ANNA)] * (MAX_ITEMS + 1))
    assert code is Code.INVALID_ARGUMENT


async def test_a_revoked_service_is_refused(service: Rig) -> None:
    crm = await account(service)
    assert await crm.code("List") is None
    change = {"$set": {"tokens": []}, "$inc": {"revision": 1}}
    await service.database[SERVICES_COLLECTION].update_one({"_id": "crm"}, change)
    await service.nats.publish(SERVICE_CHANGED_SUBJECT, b"crm")

    async def refused() -> bool:
        return await crm.code("List") is Code.UNAUTHENTICATED

    async with asyncio.timeout(60):
        await until("the copy refuses the service", refused)
