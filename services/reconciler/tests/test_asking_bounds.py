"""However much there is, no more than so much of it is held at once, and none of it is passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from backhaul_channels.pull import Listing
from backhaul_common.metrics import RECONCILER_CHANNELS
from backhaul_common.names import RECONCILED_CHANNELS_COLLECTION
from backhaul_reconciler import comparing
from backhaul_reconciler.knowing import Knowing, Known, Unasked
from backhaul_reconciler.model import ChannelOf
from backhaul_reconciler.passes import opened
from provider_api import Messages

if TYPE_CHECKING:
    from asking_rig import Rig
    from backhaul_common.tenants import Channel, Tenant

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US


class Wide(Messages):
    lists = (Listing("messages", "api", whole=True, rows=1_000),)


async def turns(rig: Rig, at_us: int) -> None:
    copy = rig.copy()
    await copy.channels.sync()
    await rig.due()
    await copy.until_done(at_us=at_us)
    await rig.normalizer.process()


async def test_of_many_open_messages_the_latest_are_read_and_no_others(
    asking: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "PAGE", 10)
    acme, now_us = await asking.register(), asking.now_us()
    for place in range(100):
        state = "queued" if place % 3 else "sent"
        asking.normalizer.hear("acme", f"M{place:03}", state, now_us - place * SECOND_US)
    of = ChannelOf("acme", acme.registration, "twilio")
    records = comparing.GrpcRecords(asking.records, asking.normalizer_stub)
    found = await records.open_messages(of, (0, now_us + 1), 25)
    assert [one.message_id for one in found] == [f"M{place:03}" for place in range(25)]
    assert asking.normalizer.listed <= 2 * 30


async def test_more_open_messages_than_fit_may_all_be_named_by_the_list(
    asking: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "MAX_MESSAGES", 40)
    asking.api.page_rows = 1_000
    asking.ask(Wide())
    await asking.register()
    now_us = asking.now_us()
    await turns(asking, now_us)
    for place in range(60):
        at_us = now_us + place * SECOND_US
        asking.normalizer.hear("acme", f"M{place:02}", "sent", at_us + SECOND_US)
        asking.api.send(f"M{place:02}", "delivered", at_us)
    await turns(asking, now_us + 20 * MINUTE_US)
    assert [run["state"] for run in await asking.runs()] == ["done", "done"]
    assert len(asking.normalizer.backfilled) == 60
    assert not asking.api.asked("/message/")


async def test_a_tenant_that_is_as_it_was_is_not_looked_into(asking: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    channel = Knowing.channel

    def counted(self: Knowing, tenant: Tenant, of: Channel) -> Known | Unasked:
        looked.append(tenant.id)
        return channel(self, tenant, of)

    monkeypatch.setattr(Knowing, "channel", counted)
    for tenant_id in ("acme", "globex"):
        await asking.register(tenant_id)
    copy = asking.copy()
    await copy.channels.sync()
    assert sorted(looked) == ["acme", "globex"]
    await copy.channels.sync()
    assert len(looked) == 2
    await asking.register("globex", account="A2")
    await copy.channels.sync()
    assert looked[2:] == ["globex"]
    assert (await asking.channel("globex"))["account"] == "twilio/A2"
    del asking.directory.tenants["acme"]
    await copy.channels.sync()
    assert await asking.database[RECONCILED_CHANNELS_COLLECTION].count_documents({"tenant": "acme"}) == 0


async def test_what_is_due_is_found_without_reading_what_is_not(asking: Rig) -> None:
    await asking.register()
    copy = asking.copy()
    await copy.channels.sync()
    later_us = asking.now_us() + 86_400 * SECOND_US
    others = [
        {"_id": f"other.1/{place}", "account": f"twilio/B{place}", "due_at_us": later_us, "standing": "asked"}
        for place in range(500)
    ]
    await asking.database[RECONCILED_CHANNELS_COLLECTION].insert_many(others)
    await asking.database.command({"profile": 2})
    assert [one.account for one in await copy.channels.due()] == ["twilio/A1"]
    await asking.database.command({"profile": 0})
    (told,) = await asking.database["system.profile"].find({"command.aggregate": {"$exists": True}}).to_list(None)
    assert told["keysExamined"] <= 5
    assert told["docsExamined"] <= 2


async def test_channels_are_not_counted_at_each_look(asking: Rig) -> None:
    await asking.register()
    copy = asking.copy()
    await copy.channels.sync()
    later = {"$set": {"due_at_us": asking.now_us() + 86_400 * SECOND_US}}
    await asking.database[RECONCILED_CHANNELS_COLLECTION].update_many({}, later)
    await asking.database.command({"profile": 2})
    for _ in range(3):
        await copy.asking.look()
    await asking.database.command({"profile": 0})
    counted = {"command.pipeline.0.$group._id": "$standing"}
    assert await asking.database["system.profile"].count_documents(counted) == 1
    told = copy.metrics.render().decode().splitlines()
    (counted_line,) = [line for line in told if line.startswith(f"{RECONCILER_CHANNELS.name}{{")]
    assert 'standing="asked"' in counted_line
    assert counted_line.endswith(" 1.0")
