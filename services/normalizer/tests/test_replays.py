"""Callbacks of a span go through the pipeline again: what is known stays, what is new is added, and nothing twice."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import pytest
from backhaul_common.documents import Document
from backhaul_common.names import (
    CALLBACKS_STREAM,
    DEAD_LETTERS_COLLECTION,
    MESSAGES_COLLECTION,
)
from backhaul_common.tenants import Tenant
from backhaul_normalizer.model import Outgoing, Rejection
from backhaul_normalizer.replays import callbacks
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_REPLAY
from backhaul_proto.event.v1.event_pb2 import CONSENT_ACTION_OPT_OUT, Event
from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from backhaul_proto.tenantdata.v1.tenantdata_pb2 import EraseRecipientRequest
from backhaul_testing import make
from normalizer_rig import Rig
from replay_rig import ACME, GLOBEX, MAPPING, correspondence, everything, forgotten, replayed
from reply_rig import inbound
from storedbooks import stored_books


@pytest.fixture
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "PAGE_MESSAGES", 7)


@pytest.mark.usefixtures("_small_pages")
async def test_a_replay_of_everything_changes_nothing(rig: Rig) -> None:
    await rig.register(ACME, GLOBEX)
    for one in correspondence(ACME):
        await rig.publish(ACME, one)
    await rig.publish(ACME, make.callback(ACME, make.sendgrid({"event": "delivered"}), channel="sendgrid"))
    await rig.drained()
    before = await everything(rig)
    assert len(before[0]["event_rows"]) == 80
    found = await replayed(rig)
    assert await everything(rig) == before
    counts = pb.ReplayCounts(callbacks=121, events=found.counts.events, unreadable=1)
    assert found.counts == counts
    assert found.counts.events >= 80
    # Of what a replay told EVENTS there is nothing, so a second one has nothing else to say.
    assert (await replayed(rig)).counts == counts


@pytest.mark.usefixtures("_small_pages")
async def test_what_was_not_made_is_made_and_a_dry_run_says_so_before(rig: Rig) -> None:
    await rig.register(ACME, GLOBEX)
    for one in correspondence(ACME):
        await rig.publish(ACME, one)
    await rig.publish(GLOBEX, make.callback(GLOBEX, make.twilio("SM1", "delivered")))
    await rig.drained()
    should_be, published = (await stored_books(rig)).message_rows, await rig.published()
    await forgotten(rig)
    before = await everything(rig)
    dry = await replayed(rig, dry_run=True)
    assert await everything(rig) == before
    assert dry.counts.new == 80
    assert {one.event_kind for one in dry.examples if one.outcome == pb.REPLAY_OUTCOME_NEW} == {"sent", "delivered"}
    real = await replayed(rig)
    assert real.counts == dry.counts
    after = await stored_books(rig)
    strip = {"version"}
    assert {
        key: {name: value for name, value in row.items() if name not in strip}
        for key, row in after.message_rows.items()
    } == {key: {name: value for name, value in row.items() if name not in strip} for key, row in should_be.items()}
    # Each is told once more, and globex's are not.
    told_again = await rig.published()
    assert sorted(event.id for event in told_again) == sorted(
        event.id for event in published if event.tenant_id == "acme"
    )
    assert {event.source for event in told_again} == {SOURCE_REPLAY}
    assert (await replayed(rig)).counts.new == 0


def _without_versions(rows: Mapping[str, Document]) -> dict[str, Document]:
    # How often a message was written depends on what came together.
    return {key: {name: value for name, value in row.items() if name != "version"} for key, row in rows.items()}


async def test_a_span_takes_what_arrived_in_it_and_the_rest_is_left(rig: Rig) -> None:
    await rig.register(ACME)
    first, second, third = (make.callback(ACME, make.twilio(f"SM{n}", "sent")) for n in (1, 2, 3))
    for one in (first, second, third):
        await rig.publish(ACME, one)
    await rig.drained()
    await forgotten(rig)
    found = await replayed(rig, from_us=second.received_at_us, to_us=third.received_at_us)
    assert (found.counts.callbacks, found.counts.new) == (1, 1)
    assert [row["message_id"] for row in await rig.rows(MESSAGES_COLLECTION)] == ["SM2"]
    # What is left of the stream is said.
    assert found.stored_since_us <= second.received_at_us + 300_000_000


async def test_what_has_left_the_stream_is_said(rig: Rig) -> None:
    await rig.register(ACME)
    seq = await rig.publish(ACME, make.callback(ACME, make.twilio("SM1", "sent")))
    kept = make.callback(ACME, make.twilio("SM2", "sent"))
    await rig.publish(ACME, kept)
    await rig.drained()
    await rig.nats.jetstream().delete_msg(CALLBACKS_STREAM, seq)
    found = await replayed(rig, to_us=kept.received_at_us)
    assert (found.counts.callbacks, found.from_us) == (0, 1)
    assert found.stored_since_us >= kept.received_at_us


REPORT = '{"data": {"ref": "m1", "outcome": "arrived"}}'


async def test_a_dead_letter_of_what_can_be_read_now_is_closed(rig: Rig) -> None:
    wrong = make.tenant("acme", mpulse={})
    await rig.register(wrong)
    await rig.publish(wrong, make.callback(wrong, REPORT, channel="mpulse"))
    await rig.drained()
    assert await letters(rig) == ["open"]
    assert (await replayed(rig, channel="mpulse")).counts == pb.ReplayCounts(callbacks=1, unreadable=1)
    assert await letters(rig) == ["open"]
    await rig.register(make.tenant("acme", mpulse=MAPPING).model_copy(update={"revision": 2}))
    dry = await replayed(rig, channel="mpulse", dry_run=True)
    assert dry.counts == pb.ReplayCounts(callbacks=1, events=1, new=1, dead_letters=1)
    assert await letters(rig) == ["open"]
    assert (await replayed(rig, channel="mpulse")).counts == dry.counts
    assert await letters(rig) == ["replayed"]
    assert [row["state"] for row in await rig.rows(MESSAGES_COLLECTION)] == ["delivered"]
    assert len(await rig.published()) == 1
    # All is known now, and nothing is contradicted.
    again = await replayed(rig, channel="mpulse", dry_run=True)
    assert again.counts == pb.ReplayCounts(callbacks=1, events=1)


WHO = '{"data": {"ref": "m1", "outcome": "arrived", "who": "+15005550001", "other": "+15005550002"}}'


def mapped(recipient: str, revision: int) -> Tenant:
    own = {**MAPPING["mapping"], **({"recipient": recipient} if recipient else {})}
    return make.tenant("acme", mpulse={**MAPPING, "mapping": own}).model_copy(update={"revision": revision})


async def test_what_would_be_told_otherwise_is_counted_and_stays(rig: Rig) -> None:
    await rig.register(mapped("data.who", 1))
    await rig.publish(ACME, make.callback(ACME, WHO, channel="mpulse"))
    await rig.drained()
    before = await everything(rig)
    # Of two that are trusted alike the least stands: see docs/decisions/0015.
    await rig.register(mapped("data.other", 2))
    dry = await replayed(rig, channel="mpulse", dry_run=True)
    assert dry.counts == pb.ReplayCounts(callbacks=1, events=1, contradicted=1)
    assert [(one.outcome, one.event_kind) for one in dry.examples] == [(pb.REPLAY_OUTCOME_CONTRADICTED, "delivered")]
    assert (await replayed(rig, channel="mpulse")).counts == pb.ReplayCounts(callbacks=1, events=1)
    assert await everything(rig) == before


async def test_what_an_event_lacked_completes_it(rig: Rig) -> None:
    await rig.register(mapped("", 1))
    await rig.publish(ACME, make.callback(ACME, WHO, channel="mpulse"))
    await rig.drained()
    await rig.register(mapped("data.who", 2))
    expected = pb.ReplayCounts(callbacks=1, events=1, completed=1)
    assert (await replayed(rig, channel="mpulse", dry_run=True)).counts == expected
    assert (await replayed(rig, channel="mpulse")).counts == expected
    assert [row["recipient"] for row in await rig.rows(MESSAGES_COLLECTION)] == ["+15005550001"]
    told = [(event.recipient, event.revision) for event in await rig.published()]
    assert told == [("", 0), ("+15005550001", 1)]
    assert (await replayed(rig, channel="mpulse")).counts == pb.ReplayCounts(callbacks=1, events=1)


async def letters(rig: Rig) -> list[str]:
    return [row["state"] for row in await rig.rows(DEAD_LETTERS_COLLECTION)]


PERSON = "+15005550001"


async def erase(rig: Rig, address: str) -> None:
    request = EraseRecipientRequest(
        tenant_id="acme", registration="acme.1", address=address, before_us=time.time_ns() // 1000
    )
    await rig.data.EraseRecipient(request)


@pytest.mark.parametrize("were_stored", [True, False])
async def test_who_is_erased_does_not_come_back(rig: Rig, were_stored: bool) -> None:
    await rig.register(ACME)
    for sid, status in (("SM1", "sent"), ("SM1", "delivered"), ("SM2", "sent")):
        await rig.publish(ACME, make.callback(ACME, make.twilio(sid, status, To=PERSON)))
    await rig.publish(ACME, make.callback(ACME, make.twilio("SM3", "sent", To="+15005550009")))
    await rig.publish(ACME, make.callback(ACME, f"To={quote(PERSON)}"))
    await rig.drained()
    if not were_stored:
        await forgotten(rig)
    await erase(rig, PERSON)
    before = await everything(rig)
    published = len(before[2])
    found = await replayed(rig)
    assert found.counts.erased == 3
    assert found.counts.new == (0 if were_stored else 1)
    after = await everything(rig)
    if were_stored:
        assert after == before
    assert PERSON not in str(after[:2])
    assert quote(PERSON) not in str(after[:2])
    assert not [event for event in after[2][published:] if event.recipient == PERSON]


async def test_an_opt_out_of_who_is_erased_is_heard_and_erased(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.register(ACME)
    await rig.publish(ACME, make.callback(ACME, inbound("SM1", "STOP", From=PERSON)))
    await rig.drained()
    await forgotten(rig)
    await erase(rig, PERSON)
    told: list[Outgoing] = []

    async def heard(_: object, events: Sequence[Outgoing], *__: object) -> None:
        # JetStream would take it for what it was told a moment ago.
        told.extend(events)

    monkeypatch.setattr(callbacks, "publish_all", heard)
    found = await replayed(rig)
    assert (found.counts.new, found.counts.erased) == (1, 0)
    event = Event.FromString(told[0].payload)
    assert (event.recipient, event.consent.action) == (PERSON, CONSENT_ACTION_OPT_OUT)
    assert PERSON not in str((await everything(rig))[:2])


async def test_a_redelivery_does_not_say_again_what_an_erased_dead_letter_said(rig: Rig) -> None:
    await rig.register(ACME)
    seq = await rig.publish(ACME, make.callback(ACME, f"MessageStatus=sent&To={quote(PERSON)}"))
    await rig.drained()
    await erase(rig, PERSON)
    [before] = await rig.rows(DEAD_LETTERS_COLLECTION)
    assert before["state"] == "discarded"
    rejection = Rejection(
        before["_id"], "acme", "acme.1", "path-acme", "twilio", "twilio", f"{PERSON} is no id.", b"", 1, seq
    )
    await MongoEventStore(rig.client, rig.database).commit([], [rejection])
    assert await rig.rows(DEAD_LETTERS_COLLECTION) == [before]
