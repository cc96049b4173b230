"""Errors can be consumed by their code, and nobody can fill the broker with codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from backhaul_channels import EventKind
from backhaul_common.errors import BackhaulError, unavailable
from backhaul_common.names import CODED_KINDS, EVENTS_STREAM, events_of, events_subject
from backhaul_normalizer import subjects as subjects_module
from backhaul_normalizer.model import Outgoing
from backhaul_normalizer.subjects import ASK_AGAIN_S, MAX_CODED_SUBJECTS, EventSubjects
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from backhaul_testing import make
from normalizer_rig import RigFactory


class Broker:
    """What EVENTS holds, and how often that was asked."""

    def __init__(self) -> None:
        self.stored: set[str] = set()
        self.asked: list[str] = []
        self.away = False
        self.now = 0.0

    async def __call__(self, path: str) -> set[str]:
        if self.away:
            raise unavailable("JetStream")
        self.asked.append(path)
        return {subject for subject in self.stored if subject.startswith(f"events.{path}.")}

    async def publish(self, subjects: EventSubjects, code: str, path: str = "acme", kind: str = "undelivered") -> str:
        subject = await subjects.of(path, "twilio", kind, code)
        self.stored.add(subject)
        return subject


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def subjects(broker: Broker) -> EventSubjects:
    return EventSubjects(broker, lambda: broker.now)


def test_kinds_with_codes_are_kinds() -> None:
    assert {str(kind.value) for kind in EventKind} >= CODED_KINDS
    documented = (Path(__file__).parents[3] / "docs" / "consuming-events.md").read_text()
    listed = documented.partition("that something went wrong (")[2].partition(")")[0]
    assert set(listed.replace("\n", " ").split(", ")) == CODED_KINDS


async def test_usual_events_ask_nothing(broker: Broker, subjects: EventSubjects) -> None:
    assert await broker.publish(subjects, "30006", kind="delivered") == "events.acme.twilio.delivered"
    assert await broker.publish(subjects, "") == "events.acme.twilio.undelivered.none"
    assert broker.asked == []
    for _ in range(3):
        assert await broker.publish(subjects, "30006") == "events.acme.twilio.undelivered.30006"
    assert broker.asked == ["acme"]


async def test_invented_codes_share_a_subject_when_there_are_too_many(broker: Broker, subjects: EventSubjects) -> None:
    assert await broker.publish(subjects, "30006") == "events.acme.twilio.undelivered.30006"
    last = ""
    for number in range(3 * MAX_CODED_SUBJECTS):
        last = await broker.publish(subjects, f"invented-{number}")
        await broker.publish(subjects, f"invented-{number}", kind="failed")
    assert last == "events.acme.twilio.undelivered.other"
    assert len(broker.stored) == MAX_CODED_SUBJECTS + 2
    assert broker.asked == ["acme"]
    # What was there before keeps its subject, and another tenant has its own bound.
    assert await broker.publish(subjects, "30006") == "events.acme.twilio.undelivered.30006"
    assert await broker.publish(subjects, "1", "globex") == "events.globex.twilio.undelivered.1"
    # A process that starts anew knows what there is.
    anew = EventSubjects(broker, lambda: broker.now)
    assert await broker.publish(anew, "new") == "events.acme.twilio.undelivered.other"
    # What has aged out of the stream makes room.
    broker.stored = {"events.acme.twilio.undelivered.30006", "events.acme.twilio.undelivered.other"}
    assert await broker.publish(anew, "new") == "events.acme.twilio.undelivered.other"
    broker.now += ASK_AGAIN_S
    assert await broker.publish(anew, "new") == "events.acme.twilio.undelivered.new"


async def test_a_broker_that_is_away_is_asked_again(broker: Broker, subjects: EventSubjects) -> None:
    broker.away = True
    with pytest.raises(BackhaulError, match="JetStream is away"):
        await subjects.of("acme", "twilio", "failed", "1")
    broker.away = False
    assert await subjects.of("acme", "twilio", "failed", "1") == "events.acme.twilio.failed.1"


async def test_one_code_is_consumed_alone_by_a_plain_consumer(rig_factory: RigFactory) -> None:
    async with rig_factory() as rig:
        acme, globex = make.tenant("acme"), make.tenant("globex")
        await rig.register(acme, globex)
        for tenant in (acme, globex):
            await rig.publish(
                tenant,
                *(
                    make.callback(tenant, make.twilio(f"SM{number}", status, **({"ErrorCode": code} if code else {})))
                    for number, (status, code) in enumerate(
                        [
                            ("undelivered", "30006"),
                            ("undelivered", "30003"),
                            ("undelivered", "30006"),
                            ("failed", "30006"),
                            ("undelivered", ""),
                            ("delivered", ""),
                        ]
                    )
                ),
            )
        await rig.drained()
        js = rig.nats.jetstream()
        for subject, expected in (
            ("events.*.*.*.30006", {("acme", "SM0"), ("acme", "SM2"), ("acme", "SM3")}),
            ("events.*.twilio.undelivered.none", {("acme", "SM4")}),
            ("events.*.*.undelivered.>", {("acme", f"SM{number}") for number in (0, 1, 2, 4)}),
            ("events.*.*.delivered", {("acme", "SM5")}),
        ):
            consumer = await js.pull_subscribe(subject, stream=EVENTS_STREAM)
            messages = await consumer.fetch(100, timeout=1)
            events = [event for message in messages for event in EventBatch.FromString(message.data).events]
            assert {(event.tenant_id, event.message_id) for event in events} == {
                *expected,
                *(("globex", message_id) for _, message_id in expected),
            }
            assert len(events) == 2 * len(expected)
            await consumer.unsubscribe()


async def test_a_copy_that_starts_anew_keeps_to_the_bound(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subjects_module, "MAX_CODED_SUBJECTS", 3)
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme"))
        for number in range(6):
            publisher = await rig.publisher()
            payload = Event(id=str(number), registration="acme.1").SerializeToString()
            await publisher.publish(
                [Outgoing(str(number), 0, "path-acme", "twilio", "failed", payload, "acme.1", str(number))], ""
            )
        info = await rig.nats.jetstream().stream_info(EVENTS_STREAM, subjects_filter=events_of("path-acme"))
        assert info.state.subjects == {
            **{events_subject("path-acme", "twilio", "failed", code): 1 for code in ("0", "1", "2")},
            events_subject("path-acme", "twilio", "failed", "other"): 3,
        }
        assert len(await rig.published()) == 6
