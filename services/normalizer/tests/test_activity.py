"""When something was last sent and heard on each channel, whoever tells it and in whatever order."""

from __future__ import annotations

import time
from typing import Any

import pytest
from backhaul_channels.sends import Send, SendStatus, encoded
from backhaul_common.errors import unavailable
from backhaul_common.names import CHANNEL_ACTIVITY_COLLECTION
from backhaul_common.sendercallbacks import sender_callback
from backhaul_common.tenants import Tenant
from backhaul_normalizer import activity
from backhaul_normalizer.activity import Activity, Noted, Sends, Where
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_BACKFILL, SOURCE_REPLAY, Callback
from backhaul_proto.normalizer.v1 import records_pb2 as pb
from backhaul_testing import make
from backhaul_testing.waiting import until
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from normalizer_rig import Rig

TO = "+15005550010"
WHERE = Where("acme", "acme.1", "twilio")


def now_us() -> int:
    return time.time_ns() // 1000


def sends(of: Tenant, *told: Send, at_us: int = 0, channel: str = "twilio") -> Callback:
    parts = [encoded(one) for one in told]
    return sender_callback(of, channel, parts, received_at_us=at_us or now_us(), traceparent="")


@pytest.fixture
def kept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "KEEP_S", 0.05)


async def listed(rig: Rig, of: str = "acme") -> dict[str, tuple[int, int, int]]:
    """Heard, sent, and unanswered since, by channel."""
    answer = await rig.records.ListActivity(pb.ListActivityRequest(tenant_id=of))
    return {one.channel: (one.heard_at_us, one.sent_at_us, one.unanswered_since_us) for one in answer.channels}


async def becomes(rig: Rig, channel: str, expected: tuple[int, int, int], of: str = "acme") -> None:
    async def so() -> bool:
        return (await listed(rig, of)).get(channel) == expected

    await until(f"{channel} of {of} to be {expected}", so)


@pytest.mark.usefixtures("kept_often")
async def test_what_is_sent_is_unanswered_until_something_is_heard(rig: Rig) -> None:
    acme, globex = make.tenant("acme"), make.tenant("globex")
    await rig.register(acme, globex)
    assert await listed(rig) == {}
    first, second = now_us(), now_us() + 1_000_000
    await rig.publish(acme, sends(acme, Send(message_id="SM1", recipient=TO), at_us=first))
    await rig.publish(acme, sends(acme, Send(message_id="SM2", recipient=TO), at_us=second))
    await rig.drained()
    # Sends are stored before they are acknowledged.
    assert await listed(rig) == {"twilio": (0, second, first)}
    callback = make.callback(acme, make.twilio("SM1", "sent"))
    callback.received_at_us = second + 1
    await rig.publish(acme, callback)
    await becomes(rig, "twilio", (second + 1, second, 0))
    # A sender tells late of what was sent before that.
    await rig.publish(acme, sends(acme, Send(message_id="SM3", recipient=TO), at_us=second))
    await rig.publish(acme, sends(acme, Send(message_id="SM4", recipient=TO), at_us=second + 2))
    await becomes(rig, "twilio", (second + 1, second + 2, second + 2))
    assert await listed(rig, "globex") == {}
    # Both in one message of the stream.
    callback.received_at_us += 1
    last = sends(acme, Send(message_id="SM5", recipient=TO), at_us=second + 3)
    await rig.publish(acme, callback, last)
    await becomes(rig, "twilio", (second + 2, second + 3, second + 3))


@pytest.mark.usefixtures("kept_often")
async def test_who_tells_decides_what_it_is(rig: Rig) -> None:
    """A sender's refusals and failures are nothing that callbacks are awaited of; what the API tells is sent and not
    heard, unless a person wrote it; a replay is neither."""
    acme = make.tenant("acme")
    await rig.register(acme)
    at_us = now_us()
    refused = [
        Send(recipient=TO, status=SendStatus.REFUSED, id="1"),
        Send(recipient=TO, status=SendStatus.NOT_GENERATED, id="2"),
    ]
    inbound = make.twilio("SM7", "received", SmsStatus="received", Body="hello")
    replayed = make.callback(acme, make.twilio("SM8", "sent"), source=SOURCE_REPLAY)
    found = make.callback(acme, inbound, source=SOURCE_BACKFILL)
    await rig.publish(acme, sends(acme, *refused))
    await rig.publish(acme, found)
    await rig.publish(acme, replayed)
    await rig.drained()
    assert await listed(rig) == {}
    told = make.callback(acme, make.twilio("SM9", "delivered"), source=SOURCE_BACKFILL)
    told.received_at_us = at_us
    await rig.publish(acme, told)
    await rig.drained()
    assert await listed(rig) == {"twilio": (0, at_us, at_us)}


@pytest.mark.usefixtures("kept_often")
async def test_what_is_held_is_heard(rig: Rig) -> None:
    acme = make.tenant("acme")
    held = acme.channels["twilio"].model_copy(update={"processing": "held"})
    acme = acme.model_copy(update={"channels": {**acme.channels, "twilio": held}})
    await rig.register(acme)
    callback = make.callback(acme, make.twilio("SM1", "sent"))
    await rig.publish(acme, callback)
    await becomes(rig, "twilio", (callback.received_at_us, 0, 0))


async def test_a_send_that_cannot_be_noted_comes_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    sent = Activity.sent
    refused = 0

    async def refusing(self: Activity, told: Sends) -> None:
        nonlocal refused
        refused += 1
        if refused == 1:
            raise unavailable("MongoDB")
        await sent(self, told)

    monkeypatch.setattr(Activity, "sent", refusing)
    at_us = now_us()
    await rig.publish(acme, sends(acme, Send(message_id="SM1", recipient=TO), at_us=at_us))
    await rig.drained()
    assert refused > 1
    assert await listed(rig) == {"twilio": (0, at_us, at_us)}


async def test_nothing_is_noted_of_a_registration_that_is_gone(town: Rig) -> None:
    one = Activity(town.database)
    one.heard(WHERE._replace(registration="acme.0"), 5)
    one.heard(WHERE, 7)
    await one.keep()
    rows = await town.database[CHANNEL_ACTIVITY_COLLECTION].find().to_list(None)
    assert [row["registration"] for row in rows] == ["acme.1"]
    assert [row["channel"] for row in await one.of("acme.1")] == ["twilio"]
    assert await one.of("acme.0") == []


async def test_what_was_heard_is_kept_until_it_can_be_stored(town: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Activity(town.database)
    one.heard(WHERE, 7)

    async def refusing(*_: Any) -> None:
        raise unavailable("MongoDB")

    with monkeypatch.context() as patch:
        patch.setattr(Activity, "_store", refusing)
        with pytest.raises(type(unavailable(""))):
            await one.keep()
    await one.keep()
    (row,) = await one.of("acme.1")
    assert row["heard_at_us"] == 7


@pytest.mark.timeout(300)
@settings(
    max_examples=settings.default.max_examples // 2 if settings.default else 50,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["heard", "sent", "keep"]), st.integers(1, 9), st.integers(1, 9)),
        max_size=12,
    )
)
async def test_two_copies_lose_no_unanswered_send(town: Rig, happened: list[tuple[int, str, int, int]]) -> None:
    await town.database[CHANNEL_ACTIVITY_COLLECTION].delete_many({})
    copies = [Activity(town.database), Activity(town.database)]
    heard, sent = [0], []
    for copy, what, first, last in happened:
        if what == "heard":
            copies[copy].heard(WHERE, first)
            heard.append(first)
        elif what == "sent":
            told = Sends()
            told.noted[WHERE] = Noted(0, min(first, last), max(first, last))
            await copies[copy].sent(told)
            sent += [first, last]
        else:
            await copies[copy].keep()
    for one in copies:
        await one.keep()
    rows = await copies[0].of("acme.1")
    assert len(rows) == bool(sent or len(heard) > 1)
    row = rows[0] if rows else {}
    assert (row.get("heard_at_us", 0), row.get("sent_at_us", 0)) == (max(heard), max(sent, default=0))
    later = [at_us for at_us in sent if at_us > max(heard)]
    assert ("unanswered_since_us" in row) == bool(later)
    assert row.get("watched_since_us") == row.get("unanswered_since_us")
    if later:
        assert row["unanswered_since_us"] in later
