"""Internal services and tenants: what a token opens over gRPC, and what it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from backhaul_client import BackhaulError, ForbiddenError, UnauthenticatedError
from backhaul_client.suppression import Kind, SuppressionClient, Watch
from backhaul_testing.waiting import until
from simulators.callers import InternalService, internal_service, suppression_of, tls_of
from simulators.reflecting import ReflectingClient

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Tenant, Town

SUPPRESSION = "backhaul_proto.suppression.v1.SuppressionService"
NORMALIZER = "backhaul_proto.normalizer.v1.NormalizerService"
TENANT_DATA = "backhaul_proto.tenantdata.v1.TenantDataService"
AUDIT = "backhaul_proto.audit.v1.AuditService"
RECONCILER = "backhaul_proto.reconciler.v1.ReconcilerService"
NOTIFIER = "backhaul_proto.notifier.v1.NotifierService"
SECRET_KEYS = "backhaul_proto.secretkeys.v1.SecretKeysService"
OPENED = {
    "audit": ("audit", AUDIT, {"ListFiles", "DescribeFile", "GetFile", "LinkFile", "Prove", "GetState"}),
    "verify": ("audit", AUDIT, {"ListDigests", "GetDigest", "GetHead", "Verify", "Recount"}),
    "erase": ("audit", AUDIT, {"ErasePerson"}),
    "reports": (
        "reconciler",
        RECONCILER,
        {"GetReport", "ListReports", "ListDifferences", "GetDay", "ListChannels"},
    ),
    "reconcile": ("reconciler", RECONCILER, {"Run"}),
    "deliveries": (
        "notifier",
        NOTIFIER,
        {"GetSubscription", "ListSubscriptions", "ListDeliveries", "GetDelivery", "GetState", "ListEventTypes"},
    ),
    "redeliver": ("notifier", NOTIFIER, {"Redeliver"}),
    "subscribe": (
        "notifier",
        NOTIFIER,
        {f"{verb}Subscription" for verb in ("Create", "Update", "Delete", "Pause", "Resume", "Test")}
        | {"RotateSecret"},
    ),
}
"""By verb: which service it opens, and which of its methods."""

OF_NO_TENANT = ("ListKeys", "RotateKey")
ANNA, BEN = "+15005550301", "+15005550302"

DENIED, UNAUTHENTICATED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
Json = dict[str, Any]
Refusal = tuple[grpc.StatusCode, str]


async def _refusals(
    target: str, stack: Stack, token: str, service: str, tenant_id: str, *, but: Collection[str] = ()
) -> dict[str, Refusal | None]:
    """What each method of ``service`` answers to whoever shows ``token`` and asks about a tenant; None: anything. Those
    of ``but`` are of no tenant's."""

    def work() -> dict[str, Refusal | None]:
        found: dict[str, Refusal | None] = {}
        with ReflectingClient(target, tls_of(stack), token) as client:
            for method in client.methods(service):
                try:
                    client.call(service, method, {} if method in but else {"tenant_id": tenant_id}, at_most=1)
                except grpc.RpcError as exc:
                    found[method] = exc.code(), exc.details() or ""
                else:
                    found[method] = None
        return found

    return await asyncio.to_thread(work)


async def _kept(tenant: Tenant) -> tuple[list[str], int]:
    """The addresses that are suppressed, and how many changes there were."""
    rows = [row.address async for row in tenant.client.suppressions()]
    return rows, (await tenant.client.suppression_changes(0)).next_position


async def test_a_token_of_one_tenant_opens_nothing_of_another(town: Town, installation: Stack) -> None:
    mallory, victim = await town.platform.register(), await town.platform.register()
    for one in (mallory, victim):
        await one.client.suppress(ANNA, "manual")
    async with internal_service(installation, town.platform, mallory.id) as service:
        token, client = service.account.token, service.client
        target = suppression_of(installation)
        for refused_service in (SUPPRESSION, TENANT_DATA):
            theirs = await _refusals(target, installation, token, refused_service, victim.id)
            nobodys = await _refusals(target, installation, token, refused_service, "no-such-tenant")
            assert {refusal[0] for refusal in theirs.values() if refusal} == {DENIED}
            # In the same words, so that nobody learns which tenants there are.
            assert None not in theirs.values()
            assert theirs == nobodys
        assert len(await _refusals(target, installation, token, SUPPRESSION, victim.id)) == 11

        # A stream that began with the own tenant stays with it.
        def mixed(method: str, *requests: Json) -> grpc.StatusCode:
            with ReflectingClient(target, tls_of(installation), token) as caller:
                with pytest.raises(grpc.RpcError) as caught:
                    caller.call(SUPPRESSION, method, {"tenant_id": mallory.id}, *requests)
                code: grpc.StatusCode = caught.value.code()
                return code

        other: Json = {"tenant_id": victim.id, "data": "YWRkcmVzcwo="}
        assert await asyncio.to_thread(mixed, "Import", other) == grpc.StatusCode.INVALID_ARGUMENT
        item: Json = {"tenant_id": victim.id, "items": [{"address": ANNA}]}
        assert await asyncio.to_thread(mixed, "CheckStream", item) == grpc.StatusCode.INVALID_ARGUMENT

        # Whatever it does at its own tenant, the other's stays as it is.
        assert (await client.lift(mallory.id, ANNA, Kind.MANUAL)).changed
        assert (await client.add(mallory.id, BEN, Kind.STOP)).changed
    assert await _kept(mallory) == ([BEN], 3)
    assert await _kept(victim) == ([ANNA], 1)


async def test_a_token_that_may_check_changes_and_reads_nothing(town: Town, installation: Stack) -> None:
    tenant = await town.platform.register()
    await tenant.client.suppress(ANNA, "manual")
    async with internal_service(installation, town.platform, tenant.id, verbs=["check"]) as service:
        refused = await _refusals(
            suppression_of(installation), installation, service.account.token, SUPPRESSION, tenant.id
        )
        denied = {method for method, refusal in refused.items() if refusal is not None and refusal[0] is DENIED}
        assert denied == refused.keys() - {"Check", "CheckBatch", "CheckStream"}
        assert await service.verdicts(tenant.id, [ANNA, BEN]) == ["manual", "allowed"]
        with pytest.raises(ForbiddenError, match="lacks the verb 'add'"):
            await service.client.add(tenant.id, BEN, Kind.STOP)
        with pytest.raises(ForbiddenError, match="lacks the verb 'lift'"):
            await service.client.lift(tenant.id, ANNA, Kind.MANUAL)
    assert await _kept(tenant) == ([ANNA], 1)


@pytest.mark.parametrize("verb", OPENED)
async def test_each_verb_opens_its_own_methods(storing_town: Town, storing_installation: Stack, verb: str) -> None:
    tenant, other = await storing_town.platform.register(), await storing_town.platform.register()
    platform = storing_town.platform.client
    service, contract, methods = OPENED[verb]
    account = await platform.create_service(
        f"{verb}-{tenant.id}", name="The auditors", tenants=[tenant.id], verbs=[verb]
    )

    async def refusals(tenant_id: str) -> dict[str, Refusal | None] | None:
        """None before the service has heard of the account."""
        found = await _refusals(
            f"127.0.0.1:{storing_installation.port(service, 'grpc')}",
            storing_installation,
            account.token,
            contract,
            tenant_id,
            but=OF_NO_TENANT,
        )
        return None if UNAUTHENTICATED in {refusal[0] for refusal in found.values() if refusal} else found

    found = await until("the service knows the account", partial(refusals, tenant.id))
    denied = {method for method, refusal in found.items() if refusal is not None and refusal[0] is DENIED}
    assert found.keys() - denied == methods
    theirs = await refusals(other.id)
    assert theirs is not None
    assert {refusal and refusal[0] for refusal in theirs.values()} == {DENIED}
    await platform.delete_service(account.id)


@pytest.mark.parametrize("credential", ["nothing", "api key", "ingest token", "admin token", "somebody's token"])
async def test_no_other_credential_opens_anything(town: Town, installation: Stack, credential: str) -> None:
    tenant = await town.platform.register()
    shown = {
        "nothing": "",
        "api key": tenant.api_key,
        "ingest token": tenant.ingest_token,
        "admin token": installation.admin_token,
        "somebody's token": "bhs_0123456789ab_" + "0" * 48,
    }[credential]
    for service in (SUPPRESSION, TENANT_DATA):
        refused = await _refusals(suppression_of(installation), installation, shown, service, tenant.id)
        assert {refusal and refusal[0] for refusal in refused.values()} == {UNAUTHENTICATED}, service


async def test_a_service_account_opens_no_other_service(town: Town, installation: Stack, crm: InternalService) -> None:
    tenant = await town.platform.register()
    normalizer = f"127.0.0.1:{installation.port('normalizer', 'grpc')}"
    notifier = f"127.0.0.1:{installation.port('notifier', 'grpc')}"
    for target, service in (
        (normalizer, NORMALIZER), (normalizer, TENANT_DATA), (suppression_of(installation), TENANT_DATA),
        (notifier, SECRET_KEYS),
    ):  # fmt: skip
        but = ["RenewSecrets"]
        refused = await _refusals(target, installation, crm.account.token, service, tenant.id, but=but)
        assert {refusal and refusal[0] for refusal in refused.values()} <= {DENIED, UNAUTHENTICATED}, service
    # Nor does its token open anything over HTTP.
    for path in ("/v1/suppressions", f"/admin/v1/tenants/{tenant.id}", "/admin/v1/services"):
        for header in ("X-Api-Key", "Authorization"):
            shown = f"Bearer {crm.account.token}" if header == "Authorization" else crm.account.token
            answer = await town.http.get(tenant.base_url + path, headers={header: shown})
            assert answer.status_code == 401, (path, header)


async def test_what_is_taken_away_is_refused_and_its_streams_end(town: Town, installation: Stack) -> None:
    tenant = await town.platform.register()
    platform = town.platform.client
    async with internal_service(installation, town.platform, tenant.id) as service:
        account = service.account

        def client_with(token: str) -> SuppressionClient:
            return SuppressionClient(suppression_of(installation), token=token, tls=tls_of(installation))

        async def refused(client: SuppressionClient, error: type[BackhaulError]) -> None:
            """The next change that a watch hears of is that it ends, and so does every call."""
            async with asyncio.timeout(60):
                with pytest.raises(error):
                    await anext(watches.pop())

            async def refuses() -> bool:
                try:
                    await client.check_batch(tenant.id, [ANNA])
                except error:
                    return True
                return False

            await until(f"it is refused by {error.__name__}", refuses)

        async def watching(client: SuppressionClient) -> None:
            watch = client.watch(tenant.id)
            await watch.begun()
            watches.append(watch)

        watches: list[Watch] = []
        # Expired, as it was replaced.
        await watching(service.client)
        soon = datetime.now(UTC) + timedelta(seconds=1)
        second = await platform.add_service_token(account.id, others_expire_at=soon)
        await refused(service.client, UnauthenticatedError)
        async with client_with(second.token) as client:
            assert (await client.check(tenant.id, ANNA)).allowed
            # Revoked.
            await watching(client)
            third = await platform.add_service_token(account.id)
            await platform.delete_service_token(account.id, second.id)
            await refused(client, UnauthenticatedError)
        async with client_with(third.token) as client:
            assert (await client.check(tenant.id, ANNA)).allowed
            # Another tenant's from now on, and then disabled.
            await watching(client)
            other = await town.platform.register()
            await platform.change_service(account.id, tenants=[other.id])
            await refused(client, ForbiddenError)
            await platform.change_service(account.id, tenants=[tenant.id])
            await until("it is let in again", partial(_answers, client, tenant))
            await watching(client)
            await platform.change_service(account.id, disabled=True)
            await refused(client, ForbiddenError)


async def _answers(client: SuppressionClient, tenant: Tenant) -> bool:
    try:
        await client.check_batch(tenant.id, [ANNA])
    except ForbiddenError:
        return False
    return True
