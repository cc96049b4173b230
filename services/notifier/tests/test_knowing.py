"""What is asked of the normalizer, over gRPC, and how seldom. Its own answers are tested where it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.rpc import connect
from backhaul_common.settings import CommonSettings
from backhaul_notifier.calling.knowing import ASKED_WITHIN_S, KEPT_S, UNKNOWN_S, AwayError, GrpcKnowing
from backhaul_notifier.variables import Known, Variables
from backhaul_proto.event.v1.event_pb2 import Answered, Attribute, Event
from backhaul_proto.normalizer.v1 import communications_pb2 as communications
from backhaul_proto.normalizer.v1 import normalizer_pb2 as normalizer
from backhaul_proto.normalizer.v1.communications_pb2_grpc import (
    CommunicationServiceServicer,
    CommunicationServiceStub,
    add_CommunicationServiceServicer_to_server,
)
from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import (
    NormalizerServiceServicer,
    NormalizerServiceStub,
    add_NormalizerServiceServicer_to_server,
)
from backhaul_proto.notice.v1.notice_pb2 import About, Notice
from calling_rig import http, subscription

OURS = subscription(http("https://example.com/"))
EVENT = Event(id="e", channel="twilio", message_id="SM1", registration=OURS.registration)


class Answers(CommunicationServiceServicer, NormalizerServiceServicer):
    """What is registered: messages by channel and id, members by batch and key, environments by communication."""

    def __init__(self) -> None:
        self.messages: dict[tuple[str, str], list[normalizer.Message]] = {}
        self.members: dict[tuple[str, str], communications.Member] = {}
        self.settings: dict[str, communications.CommunicationSettings] = {}
        self.asked: list[str] = []
        self.fails: grpc.StatusCode | None = None
        self.held: asyncio.Event | None = None

    async def _begin(self, what: str, context: Any) -> None:
        self.asked.append(what)
        if self.held is not None:
            await self.held.wait()
        if self.fails is not None:
            await context.abort(self.fails, "as the test says")

    async def GetMember(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(f"member {request.tenant_id} {request.batch_id} {request.member_key}", context)
        found = self.members.get((request.batch_id, request.member_key))
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "none")
        return communications.GetMemberResponse(member=found)

    async def DescribeCommunication(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(f"communication {request.communication_id}", context)
        found = self.settings.get(request.communication_id)
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "none")
        info = communications.CommunicationInfo(id=request.communication_id, settings=found)
        return communications.DescribeCommunicationResponse(communication=info)

    async def ListMessages(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(f"message {request.channel} {request.message_id}", context)
        return normalizer.ListMessagesResponse(messages=self.messages.get((request.channel, request.message_id), []))


def nothing() -> Answers:
    """One that knows nothing yet; of both services it has only what is asked here."""
    return cast(Callable[[], Answers], Answers)()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    def __init__(self, answers: Answers, knowing: GrpcKnowing, clock: Clock) -> None:
        self.answers = answers
        self.knowing = knowing
        self.clock = clock

    async def known(self, said: Event | Notice, *names: str) -> Known:
        return await self.knowing.known(OURS, said, "message.delivered", names)

    async def values(self, said: Event | Notice, *names: str) -> list[str | None]:
        known = await self.known(said, *names)
        return [Variables(said, "message.delivered", known).get(name) for name in names]


@asynccontextmanager
async def normalizer_of(answers: Answers) -> AsyncIterator[tuple[Rig, grpc.aio.Server]]:
    server = grpc.aio.server()
    add_CommunicationServiceServicer_to_server(answers, server)
    add_NormalizerServiceServicer_to_server(answers, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    clock = Clock()
    try:
        async with connect(f"127.0.0.1:{port}", CommonSettings()) as channel:
            knowing = GrpcKnowing(
                cast(Any, NormalizerServiceStub(channel)), cast(Any, CommunicationServiceStub(channel)), clock
            )
            yield Rig(answers, knowing, clock), server
            await knowing.close()
    finally:
        await server.stop(0)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    answers = nothing()
    answers.messages["twilio", "SM1"] = [
        normalizer.Message(message_id="SM1", communication_id="sale", batch_id="b1", member_key="anna")
    ]
    answers.members["b1", "anna"] = communications.Member(
        key="anna",
        attributes=[Attribute(name="name", value="Anna"), Attribute(name="id", value="7")],
        destinations=[
            communications.Destination(channel="sms"),
            communications.Destination(channel="twilio", message=normalizer.Message(message_id="SM1")),
        ],
    )
    answers.settings["sale"] = communications.CommunicationSettings(
        mode="live",
        environments=[
            communications.Environment(mode="test", variables=[Attribute(name="shop", value="test-shop")]),
            communications.Environment(mode="live", variables=[Attribute(name="shop", value="live-shop")]),
        ],
    )
    async with normalizer_of(answers) as (made, _):
        yield made


async def test_a_message_leads_to_its_member_and_its_communication(rig: Rig) -> None:
    names = ("name", "id", "memberId", "member.name", "environment.shop", "batchId", "communicationId")
    assert await rig.values(EVENT, *names) == ["Anna", "7", "SM1", "Anna", "live-shop", "b1", "sale"]
    assert rig.answers.asked == ["message twilio SM1", "member acme b1 anna", "communication sale"]


async def test_an_event_that_names_its_member_needs_no_message(rig: Rig) -> None:
    said = Event(communication_id="sale", batch_id="b1", member_key="anna", channel="twilio", message_id="SM1")
    assert await rig.values(said, "name", "shop") == ["Anna", "live-shop"]
    assert rig.answers.asked == ["member acme b1 anna", "communication sale"]


async def test_a_member_that_is_named_and_not_registered_is_looked_for_by_the_message(rig: Rig) -> None:
    said = Event(batch_id="other", member_key="nobody", channel="twilio", message_id="SM1")
    assert await rig.values(said, "name", "batchId") == ["Anna", "other"]


async def test_nothing_is_asked_that_is_not_needed(rig: Rig) -> None:
    said = Event(communication_id="sale", batch_id="b1", channel="twilio", message_id="SM1")
    assert await rig.values(said, "communicationId", "batchId", "memberId") == ["sale", "b1", "SM1"]
    assert rig.answers.asked == []
    said.member_key = "anna"
    assert await rig.values(said, "name", "member.name") == ["Anna", "Anna"]
    assert rig.answers.asked == ["member acme b1 anna"]


async def test_a_reply_is_of_whom_it_answers(rig: Rig) -> None:
    said = Event(channel="twilio", message_id="SM9", answered=Answered(channel="twilio", message_id="SM1"))
    assert await rig.values(said, "name", "memberId", "communicationId") == ["Anna", "SM9", "sale"]


async def test_the_communication_is_asked_for_where_it_became_known_later(rig: Rig) -> None:
    async def found(said: Event | Notice) -> str:
        return await rig.knowing.communication_of(OURS, said)

    assert await found(EVENT) == "sale"
    assert await found(Event(channel="twilio", message_id="SM9", answered=Answered(channel="twilio", message_id="SM1")))
    assert rig.answers.asked == ["message twilio SM1"]
    assert await found(Event(channel="twilio", message_id="SM2")) == ""
    # What it says itself needs no asking, nor what is of no message.
    rig.answers.asked.clear()
    assert await found(Event(channel="twilio", message_id="SM1", communication_id="own")) == "own"
    assert await found(Notice(about=About(communication_id="own"))) == "own"
    assert await found(Notice(about=About(channel="twilio"))) == ""
    assert rig.answers.asked == []
    # Whoever cannot say has it asked again.
    rig.answers.fails = grpc.StatusCode.UNAVAILABLE
    with pytest.raises(BackhaulError) as raised:
        await found(Event(channel="twilio", message_id="SM3"))
    assert raised.value.code is Code.UNAVAILABLE


async def test_a_notice_of_a_member_has_the_first_message_of_it(rig: Rig) -> None:
    notice = Notice(
        type="member.processed",
        about=About(communication_id="sale", reference="b1"),
        attributes=[Attribute(name="member_key", value="anna")],
    )
    assert await rig.values(notice, "memberId", "name", "batchId") == ["SM1", "Anna", "b1"]
    assert rig.answers.asked == ["member acme b1 anna"]


async def test_what_nobody_registered_has_no_value(rig: Rig) -> None:
    said = Event(channel="twilio", message_id="SM2", communication_id="none")
    assert await rig.values(said, "name", "environment.shop", "batchId") == [None, None, None]


async def test_a_reference_of_two_messages_is_neithers(rig: Rig) -> None:
    rig.answers.messages["twilio", "ref"] = [
        normalizer.Message(message_id=one, batch_id="b1", member_key="anna") for one in ("SM1", "SM2")
    ]
    assert await rig.values(Event(channel="twilio", message_id="ref"), "name") == [None]


async def test_answers_are_kept_for_a_while_and_what_is_not_known_for_less(rig: Rig) -> None:
    for _ in range(5):
        await rig.known(EVENT, "name")
    assert len(rig.answers.asked) == 2
    rig.clock.now += KEPT_S
    await rig.known(EVENT, "name")
    assert len(rig.answers.asked) == 4
    unknown = Event(channel="twilio", message_id="SM2")
    await rig.known(unknown, "name")
    rig.answers.messages["twilio", "SM2"] = rig.answers.messages["twilio", "SM1"]
    assert await rig.values(unknown, "name") == [None]
    rig.clock.now += UNKNOWN_S
    assert await rig.values(unknown, "name") == ["Anna"]
    # It is not known yet whose one is that is there.
    rig.answers.messages["twilio", "SM3"] = [normalizer.Message(message_id="SM3")]
    assert await rig.values(Event(channel="twilio", message_id="SM3"), "name") == [None]
    rig.answers.messages["twilio", "SM3"] = rig.answers.messages["twilio", "SM1"]
    rig.clock.now += UNKNOWN_S
    assert await rig.values(Event(channel="twilio", message_id="SM3"), "name") == ["Anna"]


async def test_those_who_ask_at_once_ask_once(rig: Rig) -> None:
    rig.answers.held = asyncio.Event()
    running = [asyncio.create_task(rig.values(EVENT, "name")) for _ in range(20)]
    while not rig.answers.asked:
        await asyncio.sleep(0.001)
    rig.answers.held.set()
    assert await asyncio.gather(*running) == [["Anna"]] * 20
    assert len(rig.answers.asked) == 2


@pytest.mark.parametrize(
    "code",
    [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNKNOWN],
)
async def test_whatever_else_it_says_is_an_outage_and_kept_by_nobody(rig: Rig, code: grpc.StatusCode) -> None:
    rig.answers.fails = code
    with pytest.raises(AwayError):
        await rig.known(EVENT, "name")
    rig.answers.fails = None
    assert await rig.values(EVENT, "name") == ["Anna"]


async def test_a_server_that_is_gone_is_an_outage() -> None:
    async with normalizer_of(nothing()) as (rig, server):
        await server.stop(0)
        with pytest.raises(AwayError):
            await rig.known(EVENT, "name")


async def test_a_server_that_hangs_is_an_outage_within_its_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ASKED_WITHIN_S <= 5
    monkeypatch.setattr("backhaul_notifier.calling.knowing.ASKED_WITHIN_S", 0.2)
    rig.answers.held = asyncio.Event()
    with pytest.raises(AwayError, match="in time"):
        await rig.known(EVENT, "name")
    rig.answers.held.set()
