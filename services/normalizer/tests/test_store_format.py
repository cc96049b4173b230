"""A normalizer on a database that another version wrote says so, and leaves it alone."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from backhaul_common.errors import BackhaulError
from backhaul_common.lifecycle import cancel
from backhaul_common.names import META_COLLECTION
from backhaul_common.store_format import STORE_FORMAT
from backhaul_normalizer import app
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.tenantdata.v1.tenantdata_pb2 import GetUsageRequest, PurgeTenantRequest
from backhaul_testing import make
from grpc_health.v1 import health_pb2, health_pb2_grpc
from normalizer_rig import RigFactory


async def test_a_database_of_another_format_is_refused_in_words_and_not_written_to(
    rig_factory: RigFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    async with rig_factory(copies=0) as rig:
        await rig.client.drop_database(rig.database.name)
        newer = {"_id": "format", "number": STORE_FORMAT + 1}
        await rig.database[META_COLLECTION].insert_one(newer)
        acme = make.tenant("acme")
        await rig.register(acme)
        before = sorted(await rig.database.list_collection_names())
        await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent")))

        stop = asyncio.Event()
        running = asyncio.create_task(app.run(rig.settings, stop))
        try:
            async with grpc.aio.insecure_channel(
                rig.settings.normalizer_grpc_listen, options=[("grpc.enable_http_proxy", 0)]
            ) as channel:
                await asyncio.wait_for(channel.channel_ready(), 60)
                health = health_pb2_grpc.HealthStub(channel)

                async def status() -> Any:
                    return (await health.Check(health_pb2.HealthCheckRequest(service=""))).status

                call: Any  # Each takes a request of its own.
                for call, request in (
                    (rig.data.PurgeTenant, PurgeTenantRequest(tenant_id="acme", registration="acme.1")),
                    (rig.data.GetUsage, GetUsageRequest(tenant_id="acme", registration="acme.1")),
                    (rig.stub.ListEvents, pb.ListEventsRequest(tenant_id="acme")),
                ):
                    with pytest.raises(BackhaulError, match=f"has the format number {STORE_FORMAT + 1};"):
                        await call(request)
                assert await status() == health_pb2.HealthCheckResponse.NOT_SERVING
                assert sorted(await rig.database.list_collection_names()) == before
                assert await rig.rows(META_COLLECTION) == [newer]

                # It takes up its work as soon as the database is one that it knows.
                await rig.database[META_COLLECTION].replace_one({"_id": "format"}, {"number": STORE_FORMAT})
                async with asyncio.timeout(60):
                    while await status() != health_pb2.HealthCheckResponse.SERVING:
                        await asyncio.sleep(0.05)
                await rig.drained()
                assert [row["message_id"] for row in await rig.rows("messages")] == ["SM1"]
        finally:
            stop.set()
            await cancel(running)
        said = [line for line in capsys.readouterr().out.splitlines() if "store_not_usable" in line]
        assert len(said) == 1
        assert "Nothing was changed in it." in said[0]
