"""Deliveries on a real MongoDB, and the calls about them over a real connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from backhaul_common import mongo, rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import Readiness
from backhaul_common.names import (
    DELIVERIES_COLLECTION,
    ENDPOINTS_COLLECTION,
    SUBSCRIPTIONS_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_common.settings import CommonSettings
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import Tracing
from backhaul_notifier.access import SERVICE
from backhaul_notifier.deliveries.reading import MongoDeliveries
from backhaul_notifier.deliveries.redelivering import Redelivering
from backhaul_notifier.documents import delivery_id
from backhaul_notifier.indexes import INDEXES
from backhaul_notifier.servicer import NotifierServicer
from backhaul_notifier.servicer_deliveries import DeliveryCalls
from backhaul_proto.notifier.v1.notifier_pb2_grpc import (
    NotifierServiceStub,
    add_NotifierServiceServicer_to_server,
)
from backhaul_testing import make

NOW_US = 1_800_000_000_000_000
MINUTE_US = 60_000_000
ACME = make.tenant("acme")
GLOBEX = make.tenant("globex")
ORDERS, OTHERS, THEIRS = (f"sub_{digit * 24}" for digit in "abc")


class DeliveriesRig:
    """Two tenants, the first with two subscriptions. Each delivery that is made is a minute older than the last."""

    def __init__(self, database: mongo.Database) -> None:
        self.database = database
        self.rows = database[DELIVERIES_COLLECTION]
        self.now_us = NOW_US
        self.woken: list[str] = []
        self._made = 0

    async def prepare(self) -> None:
        await mongo.make_indexes(self.database, INDEXES)
        for tenant in (ACME, GLOBEX):
            await self.database[TENANTS_COLLECTION].insert_one(tenant.to_document())
        for tenant, subscription in ((ACME, ORDERS), (ACME, OTHERS), (GLOBEX, THEIRS)):
            of = {"_id": subscription, "tenant": tenant.id, "registration": tenant.registration}
            await self.database[SUBSCRIPTIONS_COLLECTION].insert_one({**of, "revision": 1, "state": "active"})
            await self.database[ENDPOINTS_COLLECTION].insert_one({**of, "active": True, "told": 7})

    def row(self, subscription: str = ORDERS, state: str = "delivered", **fields: Any) -> dict[str, Any]:
        """A delivery as it is stored: of its own event, unless one is named."""
        self._made += 1
        event_id = fields.pop("event_id", f"event{self._made:08}")
        registration = GLOBEX.registration if subscription == THEIRS else ACME.registration
        created_at_us = fields.pop("created_at_us", NOW_US - self._made * MINUTE_US)
        ended = {
            "attempts": 1,
            "ended_at_us": created_at_us + 5,
            "ends_at": datetime(2099, 1, 1, tzinfo=UTC),
            "tries": [tried(1)],
        }
        return {
            "_id": delivery_id(subscription, event_id, 0),
            "registration": registration,
            "subscription": subscription,
            "type": "message.delivered",
            "event_id": event_id,
            "revision": 0,
            "payload": b"x" * 600,
            "channel": "twilio",
            "message_id": f"SM{self._made:08}",
            "communication_id": "spring",
            "order": self._made,
            "state": state,
            "due_at_us": created_at_us,
            "created_at_us": created_at_us,
            **({"attempts": 0} if state == "waiting" else ended),
            **fields,
        }

    async def made(self, subscription: str = ORDERS, state: str = "delivered", **fields: Any) -> str:
        """The id, in hex, of a delivery that is stored now."""
        row = self.row(subscription, state, **fields)
        await self.rows.insert_one(row)
        found: str = row["_id"].hex()
        return found

    async def stored(self, id_: str) -> Mapping[str, Any]:
        """The document of a delivery."""
        row: Mapping[str, Any] | None = await self.rows.find_one({"_id": bytes.fromhex(id_)})
        assert row is not None
        return row

    async def endpoint(self, subscription: str = ORDERS) -> Mapping[str, Any]:
        """The document of a subscription's endpoint."""
        row: Mapping[str, Any] | None = await self.database[ENDPOINTS_COLLECTION].find_one({"_id": subscription})
        assert row is not None
        return row

    async def require(self, tenant_id: str) -> Tenant:
        """See ``servicer_deliveries.Tenants``."""
        for tenant in (ACME, GLOBEX):
            if tenant.id == tenant_id:
                return tenant
        raise BackhaulError(Code.NOT_FOUND, "There is no such tenant.", field="tenant_id")

    async def told(self, subscription: str) -> None:
        """Notes who was woken."""
        self.woken.append(subscription)


@asynccontextmanager
async def serving_deliveries(rig: DeliveriesRig) -> AsyncIterator[Any]:
    """A stub of the calls over a real connection."""
    settings = CommonSettings(_env_file=None)
    redelivering = Redelivering(rig.database, rig.told, lambda: rig.now_us)
    calls = DeliveryCalls(rig, MongoDeliveries(rig.database), redelivering, lambda: rig.now_us)
    # What is said of subscriptions and types is not asked here.
    nothing: Any = None
    servicer = NotifierServicer(nothing, calls, nothing)
    async with AsyncExitStack() as stack:
        server = await rpc.serve(
            stack,
            settings,
            Tracing("notifier", None),
            Readiness(),
            listen="127.0.0.1:0",
            services=[SERVICE],
            register=partial(add_NotifierServiceServicer_to_server, servicer),
        )
        channel = rpc.connect(f"127.0.0.1:{server.port}", settings)
        stack.push_async_callback(channel.close)
        yield NotifierServiceStub(channel)


def tried(number: int, **fields: Any) -> dict[str, Any]:
    """An attempt as it is stored."""
    return {
        "number": number,
        "at_us": NOW_US + number,
        "us": 1500,
        "status": 200,
        "error": "",
        "text": "The endpoint answered 200.",
        "answer": "ok",
        "request": "POST https://example.com/hook",
        **fields,
    }


async def refusal_of(call: Any) -> BackhaulError:
    """The error of a call."""
    try:
        await call
    except BackhaulError as exc:
        return exc
    raise AssertionError("It was not refused.")
