"""What of a batch cannot be read or stored: it is filed or said, and the rest goes on."""

from __future__ import annotations

from typing import Any

import pytest
from backhaul_common.names import (
    DEAD_LETTERS_COLLECTION,
    EVENTS_COLLECTION,
    MESSAGES_COLLECTION,
    callbacks_subject,
)
from backhaul_normalizer.normalize import MAX_PARTS
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_testing import make
from consumer_rig import FailingStore
from normalizer_rig import RigFactory
from structlog.testing import capture_logs


@pytest.mark.parametrize("together", [True, False])
async def test_an_event_that_cannot_be_stored_is_found_and_filed(
    rig_factory: RigFactory, consuming: Any, together: bool
) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        bodies = [make.twilio(sid, "sent") for sid in ("SM1", "SM2", "SMpoison", "SM3")]
        callbacks = [make.callback(acme, body) for body in (*bodies, "unreadable")]
        for some in [callbacks] if together else [[one] for one in callbacks]:
            await rig.publish(acme, *some)
        async with consuming(rig, wrap_store=FailingStore):
            await rig.drained()
        stored = await rig.rows(EVENTS_COLLECTION)
        assert len(stored) == 3
        assert {event.id for event in await rig.published()} == {row["_id"] for row in stored}
        letters = {letter["reason"]: letter for letter in await rig.rows(DEAD_LETTERS_COLLECTION)}
        assert len(letters) == 2
        letter = letters["It could not be stored: ValueError."]
        assert Callback.FromString(letter["callback"]).body.decode() == bodies[2]


async def test_a_callback_full_of_rubbish_is_one_dead_letter(rig_factory: RigFactory, consuming: Any) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        some, many, more = ("[" + ",".join(map(str, range(n))) + "]" for n in (3, 101, MAX_PARTS + 1))
        for body in (some, many, more):
            await rig.publish(acme, make.callback(acme, body, channel="sendgrid"))
        async with consuming(rig):
            await rig.drained()
        letters = [
            (Callback.FromString(letter["callback"]).body.decode(), letter["reason"])
            for letter in await rig.rows(DEAD_LETTERS_COLLECTION)
        ]
        assert {"0", "1", "2", many, more} == {body for body, _ in letters}
        assert len(letters) == 5
        assert next(reason for body, reason in letters if body == many).startswith("101 of its events cannot be read.")
        assert str(MAX_PARTS) in next(reason for body, reason in letters if body == more)


async def test_what_is_merged_of_two_callbacks_and_cannot_be_stored_is_a_dead_letter(
    rig_factory: RigFactory, consuming: Any
) -> None:
    tenant = make.tenant("acme")
    async with rig_factory(copies=0) as rig:
        await rig.register(tenant)
        forged = make.callback(
            tenant, make.twilio("SMpoison", "sent"), verification=callback_pb2.VERIFICATION_OBSERVED_INVALID
        )
        genuine = make.callback(tenant, make.twilio("SMpoison", "sent", ErrorCode="1"))
        await rig.publish(tenant, forged, genuine)
        async with consuming(rig, wrap_store=FailingStore):
            await rig.drained()
        (letter,) = await rig.rows(DEAD_LETTERS_COLLECTION)
        assert Callback.FromString(letter["callback"]).id == genuine.id


async def test_what_is_no_batch_of_callbacks_is_said_and_passed_over(rig_factory: RigFactory, consuming: Any) -> None:
    acme = make.tenant("acme")
    async with rig_factory(copies=0) as rig:
        await rig.register(acme)
        ack = await rig.nats.jetstream().publish(callbacks_subject(acme.queue_path, "twilio"), b"\xff\xff no protobuf")
        await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent")))
        with capture_logs() as lines:
            async with consuming(rig):
                await rig.drained()
        assert [row["message_id"] for row in await rig.rows(MESSAGES_COLLECTION)] == ["SM1"]
    (line,) = [line for line in lines if line["event"] == "not_a_callback_batch"]
    assert (line["stream_seq"], line["path"], line["log_level"]) == (ack.seq, acme.queue_path, "error")
