"""What a provider's API tells, compared over gRPC with what its callbacks have told, and then backfilled."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import DEAD_LETTERS_COLLECTION, ENTRIES_COLLECTION, EVENTS_COLLECTION, MESSAGES_COLLECTION
from backhaul_common.tenants import Tenant
from backhaul_normalizer.records import comparing
from backhaul_normalizer.records.comparing import MAX_RECORDS, MAX_RECORDS_BYTES
from backhaul_normalizer.records.equals import SAME_US, by_address, newest
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_BACKFILL, VERIFICATION_VERIFIED, Callback
from backhaul_proto.event.v1.event_pb2 import (
    EVENT_KIND_BOUNCED,
    EVENT_KIND_DELIVERED,
    EVENT_KIND_FAILED,
    EVENT_KIND_SENT,
    EVENT_KIND_UNKNOWN,
    EVENT_KIND_UNSPECIFIED,
    EVENT_KIND_UNSUBSCRIBED,
)
from backhaul_proto.normalizer.v1 import normalizer_pb2
from backhaul_proto.normalizer.v1 import records_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig, RigFactory

KNOWN, MISSING, BETTER = pb.VERDICT_KNOWN, pb.VERDICT_MISSING, pb.VERDICT_BETTER
IGNORED, UNREADABLE = pb.VERDICT_IGNORED, pb.VERDICT_UNREADABLE
AT_S = 1_760_000_000


async def compare(
    rig: Rig, *records: str, channel: str = "twilio", of: str = "acme", read_at_us: int = 0
) -> list[pb.Comparison]:
    request = pb.CompareRecordsRequest(
        tenant_id=of,
        channel=channel,
        records=[record.encode() for record in records],
        read_at_us=read_at_us or time.time_ns() // 1000,
    )
    return list((await rig.records.CompareRecords(request)).comparisons)


def backfilled(of: Tenant, record: str, channel: str = "twilio") -> Callback:
    """A record as the reconciler publishes it."""
    made = make.callback(of, record, channel=channel, source=SOURCE_BACKFILL, verification=VERIFICATION_VERIFIED)
    made.url = "backfill:messages"
    return made


def mail(number: int, event: str = "delivered", **more: Any) -> dict[str, Any]:
    return {"event": event, "email": f"{number}@example.com", "timestamp": AT_S + number, **more}


def posted(number: int, event: str = "delivered", **more: Any) -> dict[str, Any]:
    """As SendGrid's webhook tells it."""
    return mail(number, event, sg_event_id=f"{event}-{number}", sg_message_id=f"mail{number}.recvd-1", **more)


async def rows(rig: Rig) -> list[Any]:
    collections = (EVENTS_COLLECTION, MESSAGES_COLLECTION, DEAD_LETTERS_COLLECTION, ENTRIES_COLLECTION)
    return [await rig.database[name].find().sort("_id", 1).to_list(None) for name in collections]


async def test_every_verdict(rig: Rig) -> None:
    acme = make.tenant("acme", google_rbm={})
    await rig.register(acme)
    heard = [
        make.callback(acme, make.twilio("SM1", "delivered")),
        make.callback(acme, make.twilio("SM2", "sent")),
        make.callback(acme, make.twilio("SM3", "failed")),
        make.callback(acme, make.twilio("SM4", "delivered")),
    ]
    for callback in heard:
        await rig.publish(acme, callback)
    await rig.drained()
    long_ago = "2025-10-09T08:53:20Z"
    before = await rows(rig)
    known, missing, new, better, by_time, unreadable = await compare(
        rig,
        make.twilio("SM1", "delivered"),
        make.twilio("SM2", "undelivered", ErrorCode="30003"),
        make.twilio("SM9", "delivered", Timestamp=long_ago),
        make.twilio("SM3", "failed", ErrorCode="30006"),
        make.twilio("SM4", "delivered", Timestamp=long_ago),
        "neither=a&message=b",
    )
    assert await rows(rig) == before

    assert (known.verdict, known.message_id, known.message_known) == (KNOWN, "SM1", True)
    assert (known.told_state, known.stored_state, known.state_after) == (EVENT_KIND_DELIVERED,) * 3
    assert (known.heard_at_us, known.occurred_at_us) == (heard[0].received_at_us, 0)

    assert (missing.verdict, missing.message_id, missing.message_known) == (MISSING, "SM2", True)
    assert (missing.told_error_code, missing.stored_error_code, missing.heard_at_us) == ("30003", "", 0)
    assert missing.stored_state == EVENT_KIND_SENT
    assert missing.state_after == missing.told_state != missing.stored_state

    assert (new.verdict, new.message_id, new.message_known) == (MISSING, "SM9", False)
    assert (new.stored_state, new.state_after) == (EVENT_KIND_UNSPECIFIED, EVENT_KIND_DELIVERED)
    assert new.occurred_at_us == AT_S * 1_000_000

    assert (better.verdict, better.told_error_code, better.stored_error_code) == (BETTER, "30006", "")
    assert (better.state_after, better.heard_at_us) == (EVENT_KIND_FAILED, heard[2].received_at_us)
    assert (by_time.verdict, by_time.occurred_at_us) == (BETTER, AT_S * 1_000_000)

    assert (unreadable.verdict, unreadable.message_id, unreadable.heard_at_us) == (UNREADABLE, "", 0)
    assert "MessageSid is missing" in unreadable.reason
    typing = json.dumps({"senderPhoneNumber": "+15005550001", "eventType": "IS_TYPING", "eventId": "e1"})
    (ignored,) = await compare(rig, typing, channel="google_rbm")
    assert (ignored.verdict, ignored.reason) == (IGNORED, "typing")


async def test_what_is_backfilled_is_known_and_what_is_known_changes_nothing(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    told = [make.twilio(f"SM{n}", word) for n in range(4) for word in ("sent", "delivered")[: n % 3]]
    for body in told:
        await rig.publish(acme, make.callback(acme, body, query="communicationId=spring"))
    await rig.drained()
    records = [make.twilio(f"SM{n}", "delivered") for n in range(5)] + ["neither=a&message=b"]
    first = await compare(rig, *records)
    assert [one.verdict for one in first] == [MISSING, MISSING, KNOWN, MISSING, MISSING, UNREADABLE]
    await rig.publish(acme, *(backfilled(acme, record) for record in records))
    await rig.drained()
    second = await compare(rig, *records)
    assert [one.verdict for one in second] == [*[KNOWN] * 5, UNREADABLE]
    assert {one.stored_state for one in second[:5]} == {EVENT_KIND_DELIVERED}
    # What only the API told was never heard of; and the dead letter is one already.
    assert [one.heard_at_us != 0 for one in second] == [False, False, True, False, False, True]

    stored, published = await rows(rig), await rig.published()
    # Whatever comes again, and from whom: the same record, and the callback that was late.
    await rig.publish(acme, *(backfilled(acme, record) for record in records[:5]))
    await rig.publish(acme, make.callback(acme, make.twilio("SM0", "delivered")))
    await rig.drained()
    late = await compare(rig, *records[:5])
    assert [one.verdict for one in late] == [KNOWN] * 5
    assert [one.state_after for one in late] == [EVENT_KIND_DELIVERED] * 5
    assert (await rows(rig))[0:2] == stored[0:2]
    assert await rig.published() == published


async def test_mails_are_known_by_their_names_and_kinds(rig: Rig) -> None:
    """The API's events have no ids of their own."""
    acme = make.tenant("acme")
    await rig.register(acme)
    smtp_id = "<abc@geopod-ismtpd-1>"
    named = posted(1, "processed", **{"smtp-id": smtp_id})
    await rig.publish(acme, make.callback(acme, make.sendgrid(named, posted(1), posted(2)), channel="sendgrid"))
    await rig.drained()
    by_first = mail(1, sg_message_id="mail1.recvd-1")
    by_further = mail(1, **{"smtp-id": smtp_id})
    tells_name = mail(2, sg_message_id="mail2.recvd-1", **{"smtp-id": "<def@geopod-ismtpd-1>"})
    both = json.dumps([mail(1, sg_message_id="mail1.recvd-1"), mail(1, "bounce", sg_message_id="mail1.recvd-1")])
    found = await compare(rig, *map(make.sendgrid, (by_first, by_further, tells_name)), both, channel="sendgrid")
    assert [one.verdict for one in found] == [KNOWN, KNOWN, BETTER, MISSING]
    assert [one.message_id for one in found] == ["mail1.recvd-1", "mail1.recvd-1", "mail2.recvd-1", "mail1.recvd-1"]
    assert found[3].state_after == found[3].told_state == EVENT_KIND_BOUNCED
    assert all(one.heard_at_us for one in found[:3])
    await rig.publish(acme, backfilled(acme, make.sendgrid(tells_name), "sendgrid"))
    await rig.drained()
    (again,) = await compare(rig, make.sendgrid(tells_name), channel="sendgrid")
    assert again.verdict == KNOWN


@pytest.mark.parametrize("named", [True, False])
async def test_a_row_without_a_message_is_known_by_address_kind_and_time(rig: Rig, named: bool) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    heard = posted(1, "group_unsubscribe", asm_group_id=7)
    if not named:
        del heard["sg_message_id"]
    await rig.publish(acme, make.callback(acme, make.sendgrid(heard), channel="sendgrid"))
    await rig.drained()
    row = mail(1, "group_unsubscribe", asm_group_id=7, email="1@Example.COM")
    close, beyond = SAME_US // 1_000_000, SAME_US // 1_000_000 + 1
    records = [
        row,
        {**row, "timestamp": row["timestamp"] + close},
        {**row, "timestamp": row["timestamp"] - close},
        {**row, "timestamp": row["timestamp"] + beyond},
        {**row, "email": "2@example.com"},
        # Whoever leaves two groups at one moment leaves both.
        {**row, "asm_group_id": 8},
        {**row, "event": "group_resubscribe"},
    ]
    found = await compare(rig, *map(make.sendgrid, records), channel="sendgrid")
    assert [one.verdict for one in found] == [KNOWN] * 3 + [MISSING] * 4
    assert (found[0].message_id, found[0].told_state) == ("", EVENT_KIND_UNSUBSCRIBED)
    assert [one.heard_at_us != 0 for one in found] == [True] * 3 + [False] * 4
    # What the row itself brought is known by what it says.
    await rig.publish(acme, backfilled(acme, make.sendgrid(records[3]), "sendgrid"))
    await rig.drained()
    (again,) = await compare(rig, make.sendgrid(records[3]), channel="sendgrid")
    assert (again.verdict, again.heard_at_us) == (KNOWN, 0)


async def test_a_failure_of_which_nobody_knows_why_is_no_row_that_does(rig: Rig) -> None:
    """It suppresses nothing, and the row does."""
    acme = make.tenant("acme")
    await rig.register(acme)
    unclear, invalid = posted(1, "dropped"), posted(2, "dropped", reason="Invalid")
    await rig.publish(acme, make.callback(acme, make.sendgrid(unclear, invalid), channel="sendgrid"))
    await rig.drained()
    rows_of_list = [
        json.dumps({"list": "invalid_emails", "row": {"created": AT_S + n, "email": f"{n}@example.com", "reason": "-"}})
        for n in (1, 2)
    ]
    found = await compare(rig, *rows_of_list, channel="sendgrid")
    assert [one.verdict for one in found] == [MISSING, KNOWN]


async def test_what_has_expired_is_known(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    callback = make.callback(acme, make.twilio("SM1", "failed"))
    await rig.publish(acme, callback)
    await rig.drained()
    await rig.database[EVENTS_COLLECTION].delete_many({})
    (found,) = await compare(rig, make.twilio("SM1", "failed", ErrorCode="30006"))
    assert (found.verdict, found.heard_at_us) == (KNOWN, callback.received_at_us)
    assert found.state_after == EVENT_KIND_FAILED


async def test_callbacks_that_are_held_are_not_known_yet(rig_factory: RigFactory) -> None:
    async with rig_factory() as rig:
        acme = make.tenant("acme")
        held = acme.channels["twilio"].model_copy(update={"processing": "held"})
        acme = acme.model_copy(update={"channels": {**acme.channels, "twilio": held}})
        await rig.register(acme)
        await rig.publish(acme, make.callback(acme, make.twilio("SM1", "delivered")))
        await rig.drained()
        (found,) = await compare(rig, make.twilio("SM1", "delivered"))
        assert (found.verdict, found.message_known) == (MISSING, False)


async def test_tenants_do_not_meet(rig: Rig) -> None:
    acme, globex = make.tenant("acme"), make.tenant("globex")
    await rig.register(acme, globex)
    await rig.publish(acme, make.callback(acme, make.twilio("SM1", "delivered")))
    unsubscribed = posted(1, "unsubscribe")
    await rig.publish(acme, make.callback(acme, make.sendgrid(unsubscribed), channel="sendgrid"))
    await rig.drained()
    for of, verdict in (("acme", KNOWN), ("globex", MISSING)):
        (message,) = await compare(rig, make.twilio("SM1", "delivered"), of=of)
        (row,) = await compare(rig, make.sendgrid(mail(1, "unsubscribe")), channel="sendgrid", of=of)
        assert (message.verdict, row.verdict) == (verdict, verdict)
        assert message.message_known == (of == "acme")
    # Another channel of the same tenant is another account.
    (other,) = await compare(rig, make.sendgrid(posted(7)), channel="sendgrid")
    assert other.verdict == MISSING


async def test_what_is_asked_is_bounded(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    record = make.twilio("SM1", "sent")
    assert len(await compare(rig, *[record] * MAX_RECORDS)) == MAX_RECORDS
    too_many, too_large = [record] * (MAX_RECORDS + 1), ["x" * (MAX_RECORDS_BYTES + 1)]
    for records in (too_many, too_large):
        with pytest.raises(BackhaulError) as refused:
            await compare(rig, *records)
        assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, "records")
    with pytest.raises(BackhaulError) as unsaid:
        await compare(rig, record, read_at_us=-1)
    assert (unsaid.value.code, unsaid.value.field) == (Code.INVALID_ARGUMENT, "read_at_us")
    for of, channel in (("acme", "nothing"), ("nobody", "twilio")):
        with pytest.raises(BackhaulError) as nowhere:
            await compare(rig, record, of=of, channel=channel)
        assert nowhere.value.code is Code.NOT_FOUND
    (unknown,) = await compare(rig, make.twilio("SM1", "a word of tomorrow"))
    assert (unknown.verdict, unknown.told_state) == (MISSING, EVENT_KIND_UNKNOWN)
    listed = await rig.stub.ListMessages(normalizer_pb2.ListMessagesRequest(tenant_id="acme"))
    assert not listed.messages


async def test_a_comparison_that_takes_too_long_ends(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.register(make.tenant("acme"))
    with monkeypatch.context() as patch:
        patch.setattr(comparing, "MAX_COMPARE_S", 0.001)
        with pytest.raises(BackhaulError) as late:
            await compare(rig, *[make.twilio(f"SM{n}", "sent") for n in range(MAX_RECORDS)])
    assert (late.value.code, late.value.field) == (Code.DEADLINE_EXCEEDED, "records")
    # Its turn is over, and the next one's comes.
    (found,) = await compare(rig, make.twilio("SM1", "sent"))
    assert found.verdict == MISSING


@pytest.mark.parametrize(
    ("collection", "time_field"), [(MESSAGES_COLLECTION, "created_at_us"), (ENTRIES_COLLECTION, "received_at_us")]
)
async def test_rows_without_a_message_are_looked_up_in_an_index(town: Rig, collection: str, time_field: str) -> None:
    command = {
        "explain": {
            "aggregate": collection,
            "pipeline": newest({"registration": "acme.1", "address": "a@example.com"}, time_field, {"channel": "x"}),
            "cursor": {},
            "hint": by_address(time_field),
        },
        "verbosity": "queryPlanner",
    }
    answer = await town.database.command(command)
    within = answer["stages"][0]["$cursor"] if "stages" in answer else answer
    plan = str(within["queryPlanner"]["winningPlan"])
    assert "IXSCAN" in plan
    assert "'address': 1" in plan
    assert "COLLSCAN" not in plan
    assert "'stage': 'SORT'" not in plan
