"""A person is erased: nothing of them is left, nothing comes back, and all that is counted stays as it was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import bson
import pytest
from backhaul_channels import EventKind
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import (
    DEAD_LETTERS_COLLECTION,
    ENTRIES_COLLECTION,
    MESSAGES_COLLECTION,
    NORMALIZER_ERASURES_COLLECTION,
)
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenantdata import Asked, Erasures
from backhaul_common.tenants import Tenant
from backhaul_normalizer import erasing
from backhaul_normalizer.erasing import Erasing
from backhaul_normalizer.model import Fact
from backhaul_normalizer.refs import MAX_REFS
from backhaul_normalizer.store import INDEXES, MongoEventStore
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.tenantdata.v1.tenantdata_pb2 import EraseRecipientRequest, EraseRecipientResponse
from backhaul_testing import make
from normalizer_rig import Rig
from reply_rig import inbound
from rosters import Copy, Rosters
from tellings import OPT_OUT, told

PERSON, OTHER = "+15005550001", "+15005550009"
ACME, GLOBEX = make.tenant("acme"), make.tenant("globex")


def now_us() -> int:
    return time.time_ns() // 1000


def correspondence(of: Tenant) -> list[Callback]:
    """A person in many spellings, and somebody else."""
    bodies = [
        make.twilio("SM1", "delivered", To=PERSON),
        make.twilio("SM2", "failed", To=f"whatsapp:{PERSON}", ErrorCode="63024", ErrorMessage=f"No {PERSON}."),
        make.twilio("SM3", "sent", To=f"rcs:{PERSON}"),
        make.twilio("SM4", "delivered", To=OTHER),
        inbound("SM5", "STOP"),
        inbound("SM6", "I live at 5 High Street"),
        inbound("SM7", "hello", From=OTHER),
    ]
    mails = make.sendgrid(
        {"event": "delivered", "email": "Ann@Example.com", "sg_message_id": "m1.x", "sg_event_id": "1", "timestamp": 1},
    )
    unread = make.callback(of, f"[{{'phone': '{PERSON}'}}", channel="sendgrid")
    return [
        *(make.callback(of, body, query="communicationId=spring&who=ann") for body in bodies),
        make.callback(of, mails, channel="sendgrid"),
        unread,
    ]


async def publish(rig: Rig, of: Tenant, callbacks: Sequence[Callback]) -> None:
    for one in callbacks:
        await rig.publish(of, one)
    await rig.drained()


async def erase(rig: Rig, of: str, address: str, before_us: int = 0) -> EraseRecipientResponse:
    request = EraseRecipientRequest(
        tenant_id=of, registration=f"{of}.1", address=address, before_us=before_us or now_us()
    )
    answer: EraseRecipientResponse = await rig.data.EraseRecipient(request)
    assert answer.supported
    return answer


async def documents(rig: Rig, registration: str) -> dict[str, list[Document]]:
    found = {}
    for name in sorted(INDEXES):
        cursor = rig.database[name].find({"registration": registration}).sort("_id", 1)
        found[name] = await cursor.to_list(None)
    return found


async def holding(rig: Rig, registration: str, *texts: str) -> dict[str, int]:
    """How many documents of each collection hold one of these texts anywhere."""
    found = {}
    for name, rows in (await documents(rig, registration)).items():
        number = sum(any(text.encode() in bson.encode(row) for text in texts) for row in rows)
        if number:
            found[name] = number
    return found


async def messages_to(rig: Rig, of: str, recipient: str) -> list[str]:
    request = pb.ListMessagesRequest(tenant_id=of, recipient=recipient)
    return sorted(one.message_id for one in (await rig.stub.ListMessages(request)).messages)


async def counted(rig: Rig, of: str) -> tuple[Any, ...]:
    request = pb.GetCommunicationRequest(tenant_id=of, communication_id="spring")
    one = (await rig.stub.GetCommunication(request)).communication
    events = (await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id=of))).events
    return one, sorted((event.id, event.kind, event.revision) for event in events)


async def test_nothing_is_left_nothing_comes_back_and_counts_stay(rig: Rig) -> None:
    await rig.register(ACME, GLOBEX)
    of_acme = correspondence(ACME)
    for of, callbacks in ((ACME, of_acme), (GLOBEX, correspondence(GLOBEX))):
        await publish(rig, of, callbacks)
    assert (await holding(rig, "acme.1", PERSON[1:]))[DEAD_LETTERS_COLLECTION] == 1
    before, others = await counted(rig, "acme"), await documents(rig, "globex.1")
    published = len(await rig.published())

    answer = await erase(rig, "acme", "00 1 (500) 555-0001")
    assert {one.kind: one.count for one in answer.erased} == {"dead_letters": 1, "events": 5, "messages": 5}
    assert {one.kind for one in answer.kept} == {"events", "messages"}
    assert await holding(rig, "acme.1", PERSON[1:], "High Street") == {}
    assert await counted(rig, "acme") == before
    assert await messages_to(rig, "acme", PERSON) == []
    assert await messages_to(rig, "acme", OTHER) == ["SM4", "SM7"]
    assert await documents(rig, "globex.1") == others
    # By what it was, and not by what it says, a message is still found.
    one = await rig.stub.GetMessage(pb.GetMessageRequest(tenant_id="acme", channel="twilio", message_id="SM2"))
    assert (one.message.recipient, one.message.error_code, len(one.timeline)) == ("", "63024", 1)
    assert not one.timeline[0].raw

    # Mail, in another case; and once more, which changes nothing.
    assert {one.kind: one.count for one in (await erase(rig, "acme", "ANN@example.COM")).erased} == {
        "events": 1,
        "messages": 1,
    }
    assert (await holding(rig, "acme.1", "xample.com")).keys() <= {DEAD_LETTERS_COLLECTION}
    kept = await documents(rig, "acme.1")
    assert (await erase(rig, "acme", PERSON)).erased == answer.erased

    # The stream brings all of it again, and a replay what was a dead letter.
    await publish(rig, ACME, of_acme)
    assert await holding(rig, "acme.1", PERSON[1:], "High Street") == {}
    assert await counted(rig, "acme") == before
    again = await documents(rig, "acme.1")
    for row in (*again[MESSAGES_COLLECTION], *kept[MESSAGES_COLLECTION]):
        del row["version"]
        row.pop("erased_before_us", None)
    assert again[MESSAGES_COLLECTION] == kept[MESSAGES_COLLECTION]
    # What was said is not published again without whom it is about: an opt-out would be taken back.
    assert all(event.recipient for event in (await rig.published())[published:])


async def test_what_waited_while_they_were_erased_is_erased_when_it_is_stored(rig: Rig) -> None:
    """And what arrived since is a new life, which can be erased like the first."""
    await rig.register(ACME)
    early = make.callback(ACME, make.twilio("SM1", "sent", To=PERSON), query="communicationId=spring")
    waiting = [
        make.callback(ACME, make.twilio("SM1", "delivered", To=PERSON), query="communicationId=spring"),
        make.callback(ACME, make.twilio("SM2", "delivered", To=f"whatsapp:{PERSON}"), query="communicationId=spring"),
        make.callback(ACME, inbound("SM3", "STOP"), query="communicationId=spring"),
    ]
    await publish(rig, ACME, [early])
    await erase(rig, "acme", PERSON)
    await publish(rig, ACME, waiting)
    assert await holding(rig, "acme.1", PERSON[1:]) == {}
    assert await messages_to(rig, "acme", PERSON) == []
    request = pb.GetCommunicationRequest(tenant_id="acme", communication_id="spring")
    fulfilment = (await rig.stub.GetCommunication(request)).communication.fulfilment
    assert sum(one.count for one in fulfilment) == 2
    # Whoever keeps opt-outs is told of this one all the same.
    assert [event.recipient for event in await rig.published() if event.text == "STOP"] == [PERSON]

    since = make.callback(ACME, make.twilio("SM1", "read", To=PERSON))
    await publish(rig, ACME, [since, make.callback(ACME, make.twilio("SM9", "sent", To=PERSON))])
    assert await messages_to(rig, "acme", PERSON) == ["SM1", "SM9"]
    events = (await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme", recipient=PERSON))).events
    assert sorted(event.recipient for event in events if event.message_id == "SM1") == ["", "", PERSON]
    await erase(rig, "acme", PERSON)
    assert await holding(rig, "acme.1", PERSON[1:]) == {}


async def test_callbacks_that_arrive_meanwhile_are_before_or_after(rig: Rig) -> None:
    await rig.register(ACME)
    posted: list[Callback] = []
    stop = asyncio.Event()

    async def provider() -> None:
        while not stop.is_set():
            number = len(posted)
            one = make.callback(
                ACME, make.twilio(f"SM{number // 3}", ("sent", "delivered", "read")[number % 3], To=PERSON)
            )
            posted.append(one)
            await rig.publish(ACME, one)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(provider())
        while len(posted) < 50:  # counted by the other task
            await asyncio.sleep(0.01)
        answers = [await erase(rig, "acme", PERSON) for _ in range(3)]
        there = len(posted)
        while len(posted) < there + 20:  # likewise
            await asyncio.sleep(0.01)
        stop.set()
    await rig.drained(timeout_s=60)
    before_us = answers[-1].erased_before_us
    alive = {one.id for one in posted if one.received_at_us >= before_us}
    assert 0 < len(alive) < len(posted)
    assert await rig.events_of("acme.1") == len(posted)
    named = set()
    for row in await rig.rows("events", registration="acme.1"):
        event = Event.FromString(row["payload"])
        if event.recipient or event.raw:
            named.add(event.callback_id)
    assert named == alive
    await erase(rig, "acme", PERSON)
    assert await holding(rig, "acme.1", PERSON[1:]) == {}


def of_store(rig: Rig, *, erase_s: float = 15.0) -> tuple[MongoEventStore, Erasing]:
    tombstones = Erasures(rig.database, StoreFormat(rig.database), NORMALIZER_ERASURES_COLLECTION, 60)
    own = Erasing(rig.database, tombstones, erase_s=erase_s)
    return MongoEventStore(rig.client, rig.database, erasing=own), own


def fact(number: int, **more: Any) -> Fact:
    one: dict[str, Any] = {"key": str(number), "recipient": PERSON, "kind": EventKind.CLICKED, "arrived": 100}
    return told(**{**one, "name": f"M{number}", **more})


async def test_what_one_call_cannot_erase_the_next_ones_do(town: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "MAX_MESSAGES", 1)
    monkeypatch.setattr(erasing, "MAX_ENTRIES", 1)
    store, own = of_store(town)
    await store.commit([fact(n) for n in range(5)] + [fact(n, name="") for n in range(10, 15)], [])
    calls = 0
    lefts = []

    class Clock:
        """A call has time for four questions."""

        asked = 0

        def monotonic(self) -> float:
            self.asked += 1
            return float(self.asked)

    while True:
        calls += 1
        clock = Clock()
        monkeypatch.setattr(erasing, "time", clock)
        own = of_store(town, erase_s=5.0)[1]
        try:
            receipt = await own.erase(Asked("acme", "acme.1", PERSON, now_us()))
        except BackhaulError as exc:
            assert exc.retry_after_s == 1  # noqa: PT017  # most calls raise it
            lefts.append(sum((await holding(town, "acme.1", PERSON[1:])).values()))
        else:
            break
        assert calls < 50
    assert calls > 2
    assert lefts == sorted(lefts, reverse=True)
    assert receipt.erased == {"events": 10, "messages": 5}
    assert await holding(town, "acme.1", PERSON[1:]) == {}


async def test_a_message_of_very_many_events_is_erased_as_a_whole(town: Rig) -> None:
    store, own = of_store(town)
    number = MAX_REFS + 40
    await store.commit([fact(n, name="M1") for n in range(number)], [])
    receipt = await own.erase(Asked("acme", "acme.1", PERSON, now_us()))
    assert receipt.erased == {"events": number, "messages": 1}
    assert await holding(town, "acme.1", PERSON[1:]) == {}
    # What names nobody is of nobody, whenever it comes.
    await store.commit([fact(number, name="M1", recipient="", text="Ann", arrived=now_us())], [])
    assert await holding(town, "acme.1", "Ann") == {}
    assert await town.database[ENTRIES_COLLECTION].count_documents({"registration": "acme.1"}) == 41


async def test_members_lose_their_addresses_and_batches_keep_their_counts(town: Rig) -> None:
    copy, rosters = Copy(town), Rosters(town)
    await copy.store.prepare()
    await rosters.communication("spring")
    await rosters.batch("spring", "1", at_us=1)
    await rosters.members(
        copy,
        "1",
        {
            "ann": [("sendgrid", "Ann@example.com"), ("twilio", f"whatsapp:{PERSON}")],
            "ben": [("sendgrid", "ben@example.com")],
        },
    )
    _, own = of_store(town)
    before = await rosters.counted()
    receipt = await own.erase(Asked("acme", "acme.1", PERSON, now_us()))
    assert receipt.erased == {"members": 1}
    assert await holding(town, "acme.1", PERSON[1:], "Ann@example.com") == {}
    assert await holding(town, "acme.1", "ben@example.com") == {"members": 1}
    assert await rosters.counted() == before


async def test_a_tombstone_tells_no_address_and_ends(town: Rig) -> None:
    _, own = of_store(town)
    await own.erase(Asked("acme", "acme.1", PERSON, now_us()))
    rows = await town.database[NORMALIZER_ERASURES_COLLECTION].find().to_list(None)
    assert len(rows) == 2
    for row in rows:
        assert PERSON[1:].encode() not in bson.encode(row)
        assert row["registration"] == "acme.1"
        assert row["ends_at"].timestamp() < time.time() + 61
    await MongoEventStore(town.client, town.database).prepare()
    indexes = await town.database[NORMALIZER_ERASURES_COLLECTION].index_information()
    assert [one["key"] for one in indexes.values() if one.get("expireAfterSeconds") == 0] == [[("ends_at", 1)]]


@pytest.mark.parametrize(
    ("registration", "address", "code"),
    [
        ("", PERSON, Code.INVALID_ARGUMENT),
        ("acme.1", " ", Code.INVALID_ARGUMENT),
        ("acme.2", PERSON, Code.FAILED_PRECONDITION),
    ],
)
async def test_what_is_refused(rig: Rig, registration: str, address: str, code: Code) -> None:
    await rig.register(ACME)
    with pytest.raises(BackhaulError) as caught:
        await rig.data.EraseRecipient(
            EraseRecipientRequest(tenant_id="acme", registration=registration, address=address, before_us=1)
        )
    assert caught.value.code is code
    assert await rig.database[NORMALIZER_ERASURES_COLLECTION].count_documents({}) == 0


async def test_an_opt_out_whose_copy_died_is_told_with_whom_it_is_of(town: Rig) -> None:
    """It was stored, and erased, before it was published. Redelivered, it is published as it came."""
    stop = fact(1, kind=EventKind.INBOUND, name="R1", provisional=False, text="STOP", consent=OPT_OUT)
    await MongoEventStore(town.client, town.database).commit([stop], [])
    store, own = of_store(town)
    await own.erase(Asked("acme", "acme.1", PERSON, now_us()))
    (told_again,) = (await store.commit([stop], [])).outgoing
    event = Event.FromString(told_again.payload)
    assert (event.id, event.recipient, event.text) == (stop.id, PERSON, "STOP")
    assert await holding(town, "acme.1", PERSON[1:]) == {}


async def test_what_completes_an_erased_event_is_erased_and_not_published(town: Rig) -> None:
    store, own = of_store(town)
    await store.commit([fact(1, text="Elm Row")], [])
    await own.erase(Asked("acme", "acme.1", PERSON, now_us()))
    more = fact(1, seq=2, arrived=now_us(), text="Elm Row 5", attributes=[("street", "Elm Row")])
    committed = await store.commit([more], [])
    assert (committed.revisions, committed.outgoing) == (1, [])
    assert await holding(town, "acme.1", PERSON[1:], "Elm Row") == {}
