"""What several services keep of a tenant: all of them are asked before it is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from backhaul_common import rpc, tenantdata
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import Readiness
from backhaul_common.settings import CommonSettings
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import Tracing
from backhaul_gateway.admin.tenantdata import ServicesData
from backhaul_gateway.settings import GatewaySettings
from backhaul_proto.tenantdata.v1.tenantdata_pb2_grpc import (
    TenantDataServiceStub,
    add_TenantDataServiceServicer_to_server,
)
from structlog.testing import capture_logs

SETTINGS = CommonSettings()
NOW = datetime(2026, 11, 1, tzinfo=UTC)
ACME = Tenant(
    id="acme", registration="acme.1", name="Acme", queue_path="acme", credentials=(), created_at=NOW, updated_at=NOW
)


class Kept:
    """A ``TenantData`` of one service. ``failing`` is raised by a purge."""

    def __init__(self, usage: Mapping[str, int]) -> None:
        self.kept = usage
        self.purged: list[tuple[str, str]] = []
        self.failing: BackhaulError | None = None

    async def usage(self, registration: str) -> Mapping[str, int]:
        return self.kept if registration == "acme.1" else {}

    async def purge(self, tenant_id: str, registration: str) -> int:
        if self.failing:
            raise self.failing
        self.purged.append((tenant_id, registration))
        return 1


Serve = Callable[..., Any]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:
        channels = rpc.Channels(stack, SETTINGS)

        async def started(*kept: Kept) -> ServicesData:
            stubs: list[Any] = []
            for one in kept:
                servicer = tenantdata.TenantDataServicer(one)
                server = await rpc.serve(
                    stack,
                    SETTINGS,
                    Tracing("test", None),
                    Readiness(),
                    listen="127.0.0.1:0",
                    services=[tenantdata.SERVICE],
                    register=partial(add_TenantDataServiceServicer_to_server, servicer),
                )
                stubs.append(TenantDataServiceStub(channels.to(f"127.0.0.1:{server.port}")))
            return ServicesData(stubs)

        with capture_logs():
            yield started


async def test_usage_is_what_all_services_have(serve: Serve) -> None:
    data = await serve(Kept({"events": 3, "messages": 1}), Kept({"suppressions": 2, "messages": 4}))
    assert await data.usage(ACME) == {"events": 3, "messages": 5, "suppressions": 2}
    assert not any((await data.usage(ACME.model_copy(update={"registration": "acme.2"}))).values())


async def test_a_purge_asks_everybody_and_fails_while_anybody_does(serve: Serve) -> None:
    first, second = Kept({}), Kept({})
    data = await serve(first, second)
    first.failing = BackhaulError(Code.FAILED_PRECONDITION, "An object is locked until 2027-01-01.")
    with pytest.raises(BackhaulError, match=r"locked until 2027-01-01"):
        await data.purge(ACME)
    # The other has done its part, and does it again when it is asked again.
    assert second.purged == [("acme", "acme.1")]
    first.failing = None
    await data.purge(ACME)
    assert first.purged == [("acme", "acme.1")]
    assert second.purged == [("acme", "acme.1")] * 2


async def test_a_service_that_is_away_delays_a_deletion(serve: Serve) -> None:
    there = await serve(Kept({"events": 1}))
    async with AsyncExitStack() as stack:
        away = TenantDataServiceStub(rpc.Channels(stack, SETTINGS).to("127.0.0.1:1"))
        both = ServicesData([*there._services, away])
        for work in (both.usage(ACME), both.purge(ACME)):
            with pytest.raises(BackhaulError) as caught:
                await work
            assert caught.value.code is Code.UNAVAILABLE


def test_further_services_are_a_list() -> None:
    token = "admin-token-0123456789"
    keys = "0123456789012345678901234567890123456789012="
    settings = GatewaySettings(gateway_admin_token=token, secret_keys=keys, gateway_tenant_data_targets="a:1, b:2 ,")  # type: ignore[arg-type]  # as the environment gives it
    assert settings.gateway_tenant_data_targets == ("a:1", "b:2")
