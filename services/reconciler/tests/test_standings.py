"""How it stands with a tenant's channels: asked or not, silent or not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from backhaul_common.errors import Code
from backhaul_common.names import RECONCILED_CHANNELS_COLLECTION
from backhaul_proto.normalizer.v1.records_pb2 import ChannelActivity, ListActivityRequest
from backhaul_proto.reconciler.v1 import reconciler_pb2 as pb
from books_rig import CREDENTIALS, MINUTE_US, NOW_US, THEIRS, TWILIO, Rig, World, refused, serving


@pytest.fixture
def world(books: Rig) -> World:
    return World(books)


async def standing(world: World, channel: str = "twilio", tenant_id: str = "acme") -> pb.Channel:
    async with serving(world) as stub:
        answer = await stub.ListChannels(pb.ListChannelsRequest(tenant_id=tenant_id))
    assert [one.channel for one in answer.channels] == sorted(world.tenants[tenant_id].channels)
    found: pb.Channel = next(one for one in answer.channels if one.channel == channel)
    return found


async def test_channels_that_are_never_asked_say_why(world: World) -> None:
    found = await standing(world, "mpulse")
    assert (found.standing, found.text) == (
        pb.STANDING_NO_API,
        "mpulse has no API that tells what became of messages.",
    )
    found = await standing(world)
    assert (found.standing, found.text) == (
        pb.STANDING_NO_CREDENTIALS,
        "The channel has no pull_credentials. PUT the channel with pull_credentials; twilio takes: account, token.",
    )
    world.set_channel("twilio", pull_credentials=CREDENTIALS, settings={"reconcile": {"enabled": False}})
    found = await standing(world)
    assert (found.standing, "reconcile.enabled" in found.text) == (pb.STANDING_OFF, True)
    world.set_channel("twilio", settings={"reconcile": 1})
    assert (await standing(world)).standing == pb.STANDING_FAILING
    world.set_channel("twilio", provider="tomorrows")
    found = await standing(world)
    assert (found.standing, found.text) == (pb.STANDING_FAILING, "This version knows no provider tomorrows.")


async def test_a_channel_that_is_asked(world: World) -> None:
    world.set_channel("twilio", pull_credentials=CREDENTIALS)
    found = await standing(world)
    assert (found.standing, found.due_at_us, "first time" in found.text) == (pb.STANDING_ASKED, 0, True)
    lists: dict[str, Any] = {"messages": {"to_us": NOW_US - 5}, "blocks": {"to_us": NOW_US - 9, "cursor": "x"}}
    await world.rig.channel(
        standing="credentials_refused", text="Status 401.", asked_at_us=NOW_US - 1, run="1" * 32, lists=lists
    )
    await world.rig.channel(THEIRS, standing="waiting")
    assert await standing(world) == pb.Channel(
        channel="twilio",
        standing=pb.STANDING_CREDENTIALS_REFUSED,
        text="Status 401.",
        asked_at_us=NOW_US - 1,
        due_at_us=NOW_US + MINUTE_US,
        discovered_to_us=NOW_US - 9,
        silence=pb.SILENCE_CANNOT_BE_TOLD,
        report_id="1" * 32,
    )


async def test_a_channel_that_is_due_at_once_is_due_since_then(world: World) -> None:
    world.set_channel("twilio", pull_credentials=CREDENTIALS)
    await world.rig.channel(due_at_us=1, changed_at_us=NOW_US - 7)
    assert (await standing(world)).due_at_us == NOW_US - 7
    # Its provider is asked within the account's budget: nobody knows when.
    await world.rig.database[RECONCILED_CHANNELS_COLLECTION].update_one(
        {"_id": TWILIO.id}, {"$set": {"due_at_us": 0, "called": {"asked_at_us": NOW_US - 5}}}
    )
    assert (await standing(world)).due_at_us == NOW_US - 5


async def test_credentials_that_do_not_open_say_so(world: World) -> None:
    world.set_channel("twilio", pull_credentials="not ours")
    found = await standing(world)
    assert (found.standing, "pull_credentials" in found.text) == (pb.STANDING_FAILING, True)


async def test_what_was_asked_stays_known_when_it_is_switched_off(world: World) -> None:
    world.set_channel("twilio", pull_credentials=CREDENTIALS, settings={"reconcile": {"enabled": False}})
    await world.rig.channel(TWILIO, asked_at_us=7, run="1" * 32, lists={"messages": {"to_us": 5}})
    found = await standing(world)
    # Of its second list nothing is known, so nothing is of both.
    assert (found.standing, found.due_at_us, found.discovered_to_us) == (pb.STANDING_OFF, 0, 0)
    assert (found.asked_at_us, found.report_id) == (7, "1" * 32)


@pytest.mark.parametrize(
    ("activity", "silence", "since_us"),
    [
        ({}, pb.SILENCE_CANNOT_BE_TOLD, 0),
        ({"heard_at_us": 5}, pb.SILENCE_CANNOT_BE_TOLD, 0),
        ({"heard_at_us": 7, "sent_at_us": 5}, pb.SILENCE_NONE, 0),
        # Nobody but the normalizer says for how long what is unanswered may be so.
        ({"sent_at_us": 5, "unanswered_since_us": 1}, pb.SILENCE_NONE, 0),
        ({"sent_at_us": 5, "unanswered_since_us": 1, "silent_since_us": 2}, pb.SILENCE_SILENT, 2),
    ],
)
async def test_silence(world: World, activity: dict[str, int], silence: int, since_us: int) -> None:
    world.normalizer.channels = [
        ChannelActivity(channel="sendgrid", sent_at_us=1, silent_since_us=1),
        *([ChannelActivity(channel="mpulse", **activity)] if activity else []),
    ]
    # Also of a channel that is never asked.
    found = await standing(world, "mpulse")
    assert (found.silence, found.silent_since_us) == (silence, since_us)
    assert world.normalizer.asked == [ListActivityRequest(tenant_id="acme")]


async def test_nobody_waits_for_callbacks_of_a_channel_that_is_only_asked(world: World) -> None:
    world.normalizer.channels = [ChannelActivity(channel="twilio", sent_at_us=1, silent_since_us=1)]
    assert (await standing(world)).silence == pb.SILENCE_SILENT
    world.set_channel("twilio", settings={"reconcile": {"poll_only": True}}, updated_at=datetime.now(UTC))
    found = await standing(world)
    assert (found.silence, found.silent_since_us) == (pb.SILENCE_UNSPECIFIED, 0)


async def test_channels_of_nobody(world: World) -> None:
    async with serving(world) as stub:
        assert (await refused(stub.ListChannels(pb.ListChannelsRequest(tenant_id="nobody")))).code is Code.NOT_FOUND


async def test_a_standing_that_only_a_newer_copy_knows_is_not_said(world: World) -> None:
    world.set_channel("twilio", pull_credentials=CREDENTIALS)
    await world.rig.channel(standing="tomorrows", text="Newer.")
    found = await standing(world)
    assert (found.standing, found.text) == (pb.STANDING_UNSPECIFIED, "Newer.")
