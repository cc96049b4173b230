"""What no notice has told is found at the normalizer: communications that were disabled, or enabled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import grpc
import pytest
from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import SUBSCRIPTIONS_COLLECTION, SWITCHED_COLLECTION, TENANTS_COLLECTION
from backhaul_common.rpc import connect
from backhaul_common.settings import CommonSettings
from backhaul_notifier.documents import switched_id
from backhaul_notifier.holding.comparing import Comparing
from backhaul_notifier.holding.switches import Switch, Switching, apply
from backhaul_notifier.model import Subscription
from backhaul_notifier.schedules import DISPATCH, STANDARD
from backhaul_proto.normalizer.v1 import communications_pb2 as communications
from backhaul_proto.normalizer.v1.communications_pb2_grpc import (
    CommunicationServiceServicer,
    CommunicationServiceStub,
    add_CommunicationServiceServicer_to_server,
)
from backhaul_testing import make
from backhaul_testing.waiting import until
from working_rig import REGISTRATION, TENANT, Copy, Rig, rigged

Switched = communications.Switched


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        tenant = make.tenant(TENANT).model_copy(update={"registration": REGISTRATION})
        await made.database[TENANTS_COLLECTION].insert_one({"_id": TENANT} | tenant.to_document())
        yield made


class Answers(CommunicationServiceServicer):
    """What the normalizer knows of each communication: how it was switched, the latest first. Two are of a page."""

    def __init__(self) -> None:
        self.switched: dict[str, Sequence[Switched]] = {}
        self.asked: list[str] = []
        self.refuses: grpc.StatusCode | None = None

    def _info(self, id_: str) -> communications.CommunicationInfo:
        return communications.CommunicationInfo(id=id_, switched=self.switched[id_])

    async def ListCommunications(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        self.asked.append(request.tenant_id)
        if self.refuses is not None:
            await context.abort(self.refuses, "as the test says")
        assert request.status == communications.COMMUNICATION_STATUS_DISABLED
        disabled = sorted(id_ for id_, of in self.switched.items() if of[0].disabled)
        begin = int(request.page_token or 0)
        more = str(begin + 2) if disabled[begin + 2 :] else ""
        found = map(self._info, disabled[begin : begin + 2])
        return communications.ListCommunicationsResponse(communications=found, next_page_token=more)

    async def DescribeCommunication(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        self.asked.append(request.communication_id)
        if request.communication_id not in self.switched:
            await context.abort(grpc.StatusCode.NOT_FOUND, "none")
        return communications.DescribeCommunicationResponse(communication=self._info(request.communication_id))


@pytest.fixture
async def answers() -> Any:
    return cast(Any, Answers)()


@asynccontextmanager
async def comparing(rig: Rig, copy: Copy, answers: Answers) -> AsyncIterator[Comparing]:
    server = grpc.aio.server()
    add_CommunicationServiceServicer_to_server(answers, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def subscriptions() -> Sequence[Subscription]:
        return list(rig.subscriptions.all.values())

    try:
        async with connect(f"127.0.0.1:{port}", CommonSettings()) as channel:
            note = Switching(rig.database, copy.switched, copy.client, rig.clock.now_us).note
            stub = cast(Any, CommunicationServiceStub(channel))
            yield Comparing(stub, subscriptions, copy.switched, note, rig.clock.now_us)
    finally:
        await server.stop(None)


async def known(rig: Rig) -> dict[str, bool]:
    rows = rig.database[SWITCHED_COLLECTION].find({})
    return {row["communication_id"]: row["disabled"] async for row in rows}


async def hear(rig: Rig, communication_id: str, at_us: int) -> None:
    """That it was disabled, as the enqueuer hears it."""
    switch = Switch(TENANT, REGISTRATION, communication_id, True, at_us)

    def work(database: mongo.ThreadDatabase, session: mongo.Session) -> list[str]:
        return apply(database, session, switch, rig.clock.now_us())

    await mongo.in_transaction(rig.database, work)


async def until_state(rig: Rig, state: str, count: int) -> None:
    async def probe() -> bool:
        return await rig.deliveries.count_documents({"state": state}) == count

    await until(f"{count} are {state}", probe)


async def test_what_was_disabled_before_anybody_listened_is_held(rig: Rig, answers: Answers) -> None:
    await rig.subscribe(policy=DISPATCH)
    await rig.database[SUBSCRIPTIONS_COLLECTION].insert_one({"_id": "sub_1", "revision": 1})
    copy = await rig.copy()
    for id_ in "abcde":
        answers.switched[id_] = [Switched(disabled=True, at_us=5), Switched(at_us=4)]
    answers.switched["open"] = [Switched(at_us=5), Switched(disabled=True, at_us=4)]
    async with comparing(rig, copy, answers) as compare:
        await compare.once()
        assert await known(rig) == dict.fromkeys("abcde", True)
        assert answers.asked == [TENANT] * 3
        for id_ in "ace":
            await rig.enqueue(communication_id=id_)
        await rig.enqueue(communication_id="open")
        await until_state(rig, "held", 3)
        await until_state(rig, "delivered", 1)
        # Where nothing differs nothing is written.
        before = [row async for row in rig.database[SWITCHED_COLLECTION].find({})]
        await compare.once()
        assert [row async for row in rig.database[SWITCHED_COLLECTION].find({})] == before


async def test_what_was_enabled_and_nobody_said_so_is_released(rig: Rig, answers: Answers) -> None:
    await rig.subscribe(policy=DISPATCH)
    await rig.database[SUBSCRIPTIONS_COLLECTION].insert_one({"_id": "sub_1", "revision": 1})
    for id_ in ("enabled", "gone", "disabled"):
        await hear(rig, id_, 5)
    copy = await rig.copy()
    for id_ in ("enabled", "gone", "disabled"):
        await rig.enqueue(number=3, communication_id=id_)
    await until_state(rig, "held", 9)
    answers.switched["enabled"] = [Switched(at_us=6), Switched(disabled=True, at_us=5)]
    answers.switched["disabled"] = [Switched(disabled=True, at_us=5)]
    async with comparing(rig, copy, answers) as compare:
        await copy.switched.refresh()
        await compare.once()
    await until_state(rig, "delivered", 6)
    assert await known(rig) == {"enabled": False, "gone": False, "disabled": True}
    assert copy.switched.values[switched_id(REGISTRATION, "disabled")].disabled


async def test_nobody_is_asked_for_what_is_not_held(rig: Rig, answers: Answers) -> None:
    other = await rig.subscribe(policy=STANDARD)
    rig.subscriptions.all["sub_2"] = replace(other, id="sub_2", policy=DISPATCH, deleted=True)
    await hear(rig, "sale", 5)
    copy = await rig.copy()
    async with comparing(rig, copy, answers) as compare:
        await compare.once()
    assert answers.asked == []


async def test_one_tenant_that_cannot_be_told_of_keeps_no_other_waiting(rig: Rig, answers: Answers) -> None:
    made = await rig.subscribe(policy=DISPATCH)
    rig.subscriptions.all["sub_2"] = replace(made, id="sub_2", tenant="globex", registration="globex.1")
    copy = await rig.copy()
    async with comparing(rig, copy, answers) as compare:
        answers.refuses = grpc.StatusCode.NOT_FOUND
        await compare.once()
        assert sorted(answers.asked) == [TENANT, "globex"]
        answers.refuses = grpc.StatusCode.UNAVAILABLE
        with pytest.raises(BackhaulError) as raised:
            await compare.once()
        assert raised.value.code is Code.UNAVAILABLE
