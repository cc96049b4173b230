"""Communications and batches as senders register them, over gRPC."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_normalizer.communications.documents import DEADLINE_S, MAX_DEADLINE_S, MAX_NAME, MAX_NOTIFIED
from backhaul_normalizer.communications.validation import MAX_AUTHOR, MAX_EXPECTED
from backhaul_normalizer.facts import MAX_KEY
from backhaul_proto.event.v1.event_pb2 import Attribute
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from normalizer_rig import Rig
from register_rig import Register, member, register_of

HOUR_US = 3_600_000_000
TWICE = [pb.Environment(mode="live"), pb.Environment(mode="live")]


@pytest.fixture
async def register(rig: Rig) -> AsyncIterator[Register]:
    async with register_of(rig) as made:
        yield made


async def test_a_communication_is_registered_once_and_replaced_as_a_whole(register: Register) -> None:
    live = pb.Environment(mode="live", variables=[Attribute(name="shop", value="Berlin")])
    told: dict[str, Any] = {
        "name": "Sale",
        "mode": "live",
        "notify": ["a@example.com"],
        "deadline_s": 3600,
        "environments": [live],
    }
    first = await register.communication(**told, completes_on=pb.COMPLETES_ON_FINAL)
    assert first.created
    assert first.communication.status == pb.COMMUNICATION_STATUS_ACTIVE
    assert first.communication.settings == pb.CommunicationSettings(
        **told, channel="twilio", completes_on=pb.COMPLETES_ON_FINAL
    )
    assert first.communication.created_at_us == first.communication.updated_at_us > 0

    again = await register.communication(**told, completes_on=pb.COMPLETES_ON_FINAL)
    assert not again.created
    assert again.communication == first.communication

    replaced = (await register.communication(name="Other")).communication
    assert replaced.settings == pb.CommunicationSettings(
        name="Other", channel="twilio", deadline_s=DEADLINE_S, completes_on=pb.COMPLETES_ON_PROCESSED
    )
    assert replaced.updated_at_us > replaced.created_at_us == first.communication.created_at_us


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"channel": "Nowhere"}, "settings.channel"),
        ({"name": "x" * (MAX_NAME + 1)}, "settings.name"),
        ({"mode": "$live"}, "settings.mode"),
        ({"mode": "a\0b"}, "settings.mode"),
        ({"notify": ["a@example.com", "a@b@example.com"]}, "settings.notify[1]"),
        ({"notify": ["Me <a@example.com>"]}, "settings.notify[0]"),
        # What a mail would leave out, too.
        ({"notify": ["änn@example.com"]}, "settings.notify[0]"),
        ({"notify": ["a@example.com", "ann@exämple.de"]}, "settings.notify[1]"),
        ({"notify": ["=?utf-8?q?a?=@example.com"]}, "settings.notify[0]"),
        ({"notify": [f"{n}@example.com" for n in range(MAX_NOTIFIED + 1)]}, "settings.notify"),
        ({"deadline_s": 59}, "settings.deadline_s"),
        ({"deadline_s": MAX_DEADLINE_S + 1}, "settings.deadline_s"),
        ({"completes_on": 7}, "settings.completes_on"),
        ({"environments": TWICE}, "settings.environments[1].mode"),
        (
            {"environments": [pb.Environment(mode="a", variables=[Attribute(name="x"), Attribute(name="x")])]},
            "settings.environments[0].variables",
        ),
    ],
)
async def test_what_is_wrong_with_a_communication_is_told_by_field(
    register: Register, settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(BackhaulError) as caught:
        await register.communication(**settings)
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, field)
    assert caught.value.fix


async def test_ids_have_a_length(register: Register) -> None:
    await register.communication("x" * MAX_KEY)
    for wrong in ("", "x" * (MAX_KEY + 1)):
        with pytest.raises(BackhaulError) as caught:
            await register.communication(wrong)
        assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "communication_id")
        with pytest.raises(BackhaulError) as caught:
            await register.put_batch(wrong, of="x" * MAX_KEY)
        assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "batch_id")


async def test_a_batch_is_registered_once_and_counted_in_its_communication(register: Register) -> None:
    await register.communication(deadline_s=3600, completes_on=pb.COMPLETES_ON_FINAL)
    first = await register.put_batch(label="First", expected_members=3)
    assert first.created
    assert first.batch.status == pb.BATCH_STATUS_OPEN
    assert first.batch.completes_on == pb.COMPLETES_ON_FINAL
    assert first.batch.deadline_at_us == first.batch.created_at_us + HOUR_US

    again = await register.put_batch(label="First", expected_members=3)
    assert not again.created
    assert again.batch == first.batch
    later = time.time_ns() // 1000 + 2 * HOUR_US
    changed = await register.put_batch(label="Second", expected_members=4, deadline_at_us=later)
    assert (changed.batch.label, changed.batch.expected_members) == ("Second", 4)
    assert changed.batch.deadline_at_us == later
    # It keeps the deadline that it has where none is told.
    assert (await register.put_batch(label="Third", expected_members=4)).batch.deadline_at_us == later
    info = (await register.describe()).communication
    assert (info.batches, info.batches_complete) == (1, 0)


async def test_a_batch_belongs_to_one_communication_that_is_registered(register: Register) -> None:
    with pytest.raises(BackhaulError) as caught:
        await register.put_batch()
    assert (caught.value.code, caught.value.field) == (Code.NOT_FOUND, "communication_id")
    await register.communication()
    await register.communication("other")
    await register.put_batch()
    with pytest.raises(BackhaulError) as caught:
        await register.put_batch(of="other")
    assert (caught.value.code, caught.value.field) == (Code.CONFLICT, "batch_id")
    assert (await register.describe("other")).communication.batches == 0


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ({"label": "x" * (MAX_NAME + 1)}, "label"),
        ({"expected_members": -1}, "expected_members"),
        ({"expected_members": MAX_EXPECTED + 1}, "expected_members"),
        ({"deadline_at_us": 1}, "deadline_at_us"),
        ({"deadline_at_us": 1 << 61}, "deadline_at_us"),
    ],
)
async def test_what_is_wrong_with_a_batch_is_told_by_field(
    register: Register, told: dict[str, Any], field: str
) -> None:
    await register.communication()
    with pytest.raises(BackhaulError) as caught:
        await register.put_batch(**told)
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, field)


async def test_closing_waits_for_what_is_expected_and_leaves_the_label_alone(register: Register) -> None:
    await register.communication()
    await register.put_batch(expected_members=3)
    await register.add([member(1), member(2)])
    with pytest.raises(BackhaulError) as caught:
        await register.close()
    assert (caught.value.code, caught.value.field) == (Code.FAILED_PRECONDITION, "expected_members")

    # So many are there: it closes by that.
    closed = (await register.put_batch(expected_members=2)).batch
    assert closed.closed_at_us > 0
    assert closed.status != pb.BATCH_STATUS_OPEN
    assert (await register.close()).closed_at_us == closed.closed_at_us
    assert (await register.put_batch(expected_members=2, label="Done")).batch.label == "Done"
    changes: list[dict[str, Any]] = [
        {"expected_members": 3},
        {"expected_members": 2, "deadline_at_us": closed.deadline_at_us + 1},
    ]
    for told in changes:
        with pytest.raises(BackhaulError) as caught:
            await register.put_batch(**told)
        assert (caught.value.code, caught.value.field) == (Code.FAILED_PRECONDITION, "batch_id")


async def test_a_communication_is_disabled_and_enabled_with_reason_and_author(register: Register) -> None:
    async def switch(*, disabled: bool, **told: str) -> pb.CommunicationInfo:
        names = {"tenant_id": "acme", "communication_id": "sale", **told}
        if disabled:
            request = pb.DisableCommunicationRequest(**names)
            return (await register.stub.DisableCommunication(request)).communication
        return (await register.stub.EnableCommunication(pb.EnableCommunicationRequest(**names))).communication

    with pytest.raises(BackhaulError) as caught:
        await switch(disabled=True, reason="Wrong price", author="ann")
    assert (caught.value.code, caught.value.field) == (Code.NOT_FOUND, "communication_id")
    await register.communication()
    for told, field in (({"author": "ann"}, "reason"), ({"reason": "x", "author": "x" * (MAX_AUTHOR + 1)}, "author")):
        with pytest.raises(BackhaulError) as caught:
            await switch(disabled=True, **told)
        assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, field)

    disabled = await switch(disabled=True, reason="Wrong price", author="ann")
    assert disabled.status == pb.COMMUNICATION_STATUS_DISABLED
    assert [(one.disabled, one.reason, one.author) for one in disabled.switched] == [(True, "Wrong price", "ann")]
    assert await switch(disabled=True, reason="Again", author="bob") == disabled
    # It takes batches as ever.
    await register.put_batch()
    enabled = await switch(disabled=False, author="bob")
    assert enabled.status == pb.COMMUNICATION_STATUS_ACTIVE
    assert [(one.disabled, one.author) for one in enabled.switched] == [(False, "bob"), (True, "ann")]
    assert enabled.batches == 1
