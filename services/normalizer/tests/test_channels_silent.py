"""A channel of which nothing is heard is named: once each time, and only if that is so."""

from __future__ import annotations

import time

import pytest
from backhaul_channels.sends import Send
from backhaul_common.names import CHANNEL_ACTIVITY_COLLECTION
from backhaul_common.tenants import Tenant
from backhaul_normalizer import activity, silence
from backhaul_normalizer.activity import Activity, Noted, Sends, Where, activity_key
from backhaul_normalizer.silence import SILENT
from backhaul_proto.normalizer.v1 import records_pb2 as pb
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_testing import make
from backhaul_testing.streams import noticed
from backhaul_testing.waiting import until
from normalizer_rig import Rig
from test_activity import TO, becomes, listed, sends

AFTER_S = 0.3


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "KEEP_S", 0.05)
    monkeypatch.setattr(silence, "AFTER_S", AFTER_S)
    monkeypatch.setattr(silence, "LOOK_S", 0.1)


async def send(rig: Rig, of: Tenant, message_id: str, channel: str = "twilio") -> int:
    at_us = time.time_ns() // 1000
    await rig.publish(of, sends(of, Send(message_id=message_id, recipient=TO), at_us=at_us, channel=channel))
    return at_us


async def told(rig: Rig, number: int) -> list[Notice]:
    async def all_of_them() -> list[Notice] | None:
        found = await noticed(rig.nats)
        return found if len(found) >= number else None

    return await until(f"{number} notices", all_of_them)


async def silent_since(rig: Rig, of: str = "acme") -> int:
    """As whoever asks is told; 0 where the channel is not silent."""
    answer = await rig.records.ListActivity(pb.ListActivityRequest(tenant_id=of))
    return next(one.silent_since_us for one in answer.channels if one.channel == "twilio")


async def test_a_silent_channel_is_named_once_each_time(rig: Rig) -> None:
    acme, globex = make.tenant("acme"), make.tenant("globex")
    await rig.register(acme, globex)
    async with rig.another():
        first = await send(rig, acme, "SM1")
        (notice,) = await told(rig, 1)
        assert (notice.type, notice.tenant_id, notice.registration) == (SILENT, "acme", "acme.1")
        assert notice.about.channel == "twilio"
        assert notice.occurred_at_us >= first + AFTER_S * 1e6
        assert {one.name: one.value for one in notice.attributes} == {
            "unanswered_since_us": str(first),
            "heard_at_us": "0",
        }
        # It goes on, and nothing more is said of it; also by a sender who tells late of an earlier one.
        await send(rig, acme, "SM2")
        await rig.publish(acme, sends(acme, Send(message_id="SM3", recipient=TO), at_us=first - 1000))
        # Whatever else was to be said is before the notice of another.
        await send(rig, globex, "SM1")
        assert [one.tenant_id for one in await told(rig, 2)] == ["acme", "globex"]
        assert (await listed(rig))["twilio"][2] == first - 1000
        assert await silent_since(rig) == first

        callback = make.callback(acme, make.twilio("SM1", "sent"))
        await rig.publish(acme, callback)
        sent = (await listed(rig))["twilio"][1]
        await becomes(rig, "twilio", (callback.received_at_us, sent, 0))
        assert await silent_since(rig) == 0
        again = await send(rig, acme, "SM4")
        last = (await told(rig, 3))[-1]
        attributes = {one.name: one.value for one in last.attributes}
        assert attributes == {"unanswered_since_us": str(again), "heard_at_us": str(callback.received_at_us)}
        assert last.id != notice.id
        assert await silent_since(rig) == again


async def test_a_channel_is_silent_from_when_that_is_said(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """For however long what is unanswered was so before that."""
    monkeypatch.setattr(silence, "AFTER_S", 7200)
    acme = make.tenant("acme")
    await rig.register(acme)
    sent = time.time_ns() // 1000 - 3_600_000_000
    await rig.publish(acme, sends(acme, Send(message_id="SM1", recipient=TO), at_us=sent))
    await rig.drained()
    assert (await listed(rig))["twilio"] == (0, sent, sent)
    assert await silent_since(rig) == 0
    monkeypatch.setattr(silence, "AFTER_S", AFTER_S)
    (notice,) = await told(rig, 1)
    assert await silent_since(rig) == sent
    assert {one.name: one.value for one in notice.attributes}["unanswered_since_us"] == str(sent)


async def test_nobody_is_told_of_channels_that_are_only_polled_or_gone(rig: Rig) -> None:
    acme, globex = make.tenant("acme", twilio={"reconcile": {"poll_only": True}}), make.tenant("globex")
    await rig.register(acme, globex)
    polled = await send(rig, acme, "SM1")
    gone = Sends()
    gone.noted[Where("acme", "acme.1", "generic")] = Noted(0, polled, polled)
    await Activity(rig.database).sent(gone)
    await rig.drained()
    await send(rig, globex, "SM1")
    (notice,) = await told(rig, 1)
    assert notice.tenant_id == "globex"
    assert (await listed(rig))["twilio"][2] == polled
    # It is told of as soon as callbacks are expected.
    await rig.register(make.tenant("acme").model_copy(update={"revision": 2}))
    assert (await told(rig, 2))[1].tenant_id == "acme"
    assert await silent_since(rig) == polled
    # Nor is it silent while they are not.
    await rig.register(acme.model_copy(update={"revision": 3}))

    async def not_silent() -> bool:
        return await silent_since(rig) == 0

    await until("the channel not to be silent", not_silent)
    assert (await listed(rig))["twilio"][2] == polled


async def test_what_a_copy_heard_and_did_not_note_is_heard(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    acme, globex = make.tenant("acme"), make.tenant("globex")
    await rig.register(acme, globex)
    with monkeypatch.context() as patch:
        patch.setattr(Activity, "heard", lambda *_: None)
        sent = time.time_ns() // 1000
        callback = make.callback(acme, make.twilio("SM1", "sent"))
        await rig.publish(acme, sends(acme, Send(message_id="SM1", recipient=TO), at_us=sent), callback)
        await rig.drained()
    await becomes(rig, "twilio", (callback.received_at_us, sent, 0))
    await send(rig, globex, "SM1")
    assert [one.tenant_id for one in await told(rig, 1)] == ["globex"]


async def test_a_sender_who_tells_late_names_no_silent_channel(rig: Rig) -> None:
    """Everything was heard of the message before its sender told of it, and did not say when it was sent."""
    acme, globex = make.tenant("acme"), make.tenant("globex")
    await rig.register(acme, globex)
    callback = make.callback(acme, make.twilio("SM1", "delivered"))
    await rig.publish(acme, callback)
    await rig.drained()
    sent = await send(rig, acme, "SM1")
    await becomes(rig, "twilio", (callback.received_at_us, sent, 0))
    await send(rig, globex, "SM1")
    assert [one.tenant_id for one in await told(rig, 1)] == ["globex"]
    # The next one is unanswered again.
    await send(rig, acme, "SM2")
    assert [one.tenant_id for one in await told(rig, 2)] == ["globex", "acme"]


async def test_what_is_said_of_a_tenant_who_is_being_deleted_is_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "AFTER_S", 3600)
    acme, globex = make.tenant("acme"), make.tenant("globex")
    await rig.register(acme, globex)
    await send(rig, acme, "SM1")
    await rig.drained()
    await rig.register(acme.model_copy(update={"status": "deleting", "revision": 2}))
    monkeypatch.setattr(silence, "AFTER_S", AFTER_S)
    await send(rig, globex, "SM1")
    assert [one.tenant_id for one in await told(rig, 1)] == ["globex"]
    row = await rig.database[CHANNEL_ACTIVITY_COLLECTION].find_one({"_id": activity_key("acme.1", "twilio")})
    assert row is not None
    assert "watched_since_us" in row
