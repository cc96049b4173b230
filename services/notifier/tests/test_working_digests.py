"""Mail that tells of several events: not sooner than its time, as one, whoever works its endpoint by then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from backhaul_notifier.documents import ALERT
from backhaul_notifier.schedules import Outcome
from backhaul_notifier.working.calls import MAX_DIGEST
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing.waiting import until
from working_rig import SECOND_US, Copy, Rig, rigged

SOON_S = 0.5
"""For so long nothing happens where nothing is to happen."""


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


async def by_mail(rig: Rig, id_: str = "sub_1", **mail: Any) -> None:
    """A subscription that people are told of."""
    made = await rig.subscribe(id_)
    definition = pb.Definition(types=["*"], mail=pb.MailDestination(addresses=["ops@example.com"], **mail))
    await rig.subscriptions.put(replace(made, definition=definition))


async def read(rig: Rig) -> None:
    """Until a copy has looked at what waits, of which it sends nothing: what another endpoint is told afterwards is
    sent."""
    await rig.subscribe("sub_other")
    await rig.enqueue(to="sub_other")
    await rig.calls.until(1)
    await asyncio.sleep(SOON_S)
    assert {made.subscription for made in rig.calls.made} == {"sub_other"}
    rig.calls.made.clear()


@pytest.mark.parametrize(("given", "minutes"), [({}, 10), ({"every_minutes": 1}, 1), ({"every_minutes": 1440}, 1440)])
async def test_what_happens_within_its_minutes_is_one_mail(rig: Rig, given: dict[str, Any], minutes: int) -> None:
    await by_mail(rig, **given)
    await rig.copy()
    first = await rig.enqueue(number=3)
    await read(rig)
    rig.move(minutes * 60 - 20)
    await rig.enqueue(number=2)
    await asyncio.sleep(SOON_S)
    assert rig.calls.made == []
    rig.move(20)
    await rig.calls.until(1)
    await rig.until_none_waits()
    (mail,) = rig.calls.made
    assert mail.orders == sorted(mail.orders)
    assert len(mail.orders) == 5
    assert mail.at_us - (await rig.row(first[0]))["created_at_us"] >= minutes * 60 * SECOND_US


async def test_one_follows_another_after_so_many_minutes_however_old_it_is(rig: Rig) -> None:
    await by_mail(rig)
    long_ago = rig.clock.now_us() - 3600 * SECOND_US
    await rig.enqueue(number=300, created_at_us=long_ago)
    await rig.copy()
    await rig.calls.until(1)
    await rig.enqueue(number=5, created_at_us=long_ago)
    await asyncio.sleep(SOON_S)
    first_mails = len(rig.calls.made)
    assert first_mails == 1
    rig.move(601)
    await rig.until_none_waits()
    assert sum(len(made.deliveries) for made in rig.calls.made) == 305
    assert len(rig.calls.made) == 2


async def test_as_many_as_fill_one_do_not_wait(rig: Rig) -> None:
    await by_mail(rig)
    await rig.copy()
    await rig.enqueue(number=MAX_DIGEST + 3)
    await rig.calls.until(1)
    await asyncio.sleep(SOON_S)
    assert [len(made.deliveries) for made in rig.calls.made] == [MAX_DIGEST]
    rig.move(601)
    await rig.until_none_waits()
    assert [len(made.deliveries) for made in rig.calls.made] == [MAX_DIGEST, 3]


async def test_what_has_waited_is_one_mail_however_much_is_read_at_once(rig: Rig) -> None:
    await by_mail(rig, every_minutes=1)
    await rig.enqueue(number=600, created_at_us=rig.clock.now_us() - 3600 * SECOND_US)
    await rig.copy()
    await rig.until_none_waits()
    (mail,) = rig.calls.made
    assert len(mail.orders) == 600


async def _holds_none(copy: Copy) -> bool:
    return copy.working.held == 0


async def test_nobody_holds_what_gathers_for_long_and_whoever_comes_sends_it_in_time(rig: Rig) -> None:
    await by_mail(rig)
    copy = await rig.copy("first", hold_s=0.1)
    first = await rig.enqueue(number=2)
    await until("it is taken and given back", lambda: _due_later(rig))
    await until("the copy holds none", lambda: _holds_none(copy))
    created_us = (await rig.row(first[0]))["created_at_us"]
    assert (await rig.endpoints.find_one({"_id": "sub_1"}))["due_at_us"] == created_us + 600 * SECOND_US  # type: ignore[index]  # it is there
    await copy.die()
    await rig.enqueue(number=1, says=False)
    await rig.copy("second")
    rig.move(600)
    await rig.until_none_waits()
    assert [(made.copy, len(made.deliveries)) for made in rig.calls.made] == [("second", 3)]


async def test_what_the_mail_server_did_not_take_is_tried_again_as_it_was(rig: Rig) -> None:
    await by_mail(rig)
    await rig.copy()
    first = await rig.enqueue(number=4)
    await read(rig)
    rig.calls.answer = lambda _: Outcome(error="mail_server_away")
    rig.move(600)
    await rig.calls.until(1)
    await rig.until_row(first[3], attempts=1)
    rig.calls.answer = lambda _: Outcome(200)
    await rig.enqueue(number=1)
    rig.move(30)
    await rig.calls.until(2)
    one, again = rig.calls.made
    assert (again.webhook_id, again.orders) == (one.webhook_id, one.orders)
    await until("the first four are written down", lambda: _waits(rig, 1))


async def test_what_an_application_was_to_be_told_before_is_one_mail_as_well(rig: Rig) -> None:
    """Where a subscription tells people in the place of its application, which was away: each event would be a mail of
    its own, and all would be judged by how often the first was tried."""
    rig.calls.answer = lambda _: Outcome(error="mail_refused")
    await by_mail(rig, every_minutes=1)
    made_us = rig.clock.now_us() - 86_400 * SECOND_US
    tried = await rig.enqueue(number=9, created_at_us=made_us, attempts=9, counted=9)
    (never,) = await rig.enqueue(created_at_us=made_us)
    await rig.copy()
    row = await rig.until_row(never, attempts=1)
    (mail,) = rig.calls.made
    assert len(mail.orders) == 10
    assert row["state"] == "waiting"
    for id_ in tried:
        assert (await rig.until_row(id_, attempts=10))["due_at_us"] == row["due_at_us"]


async def test_an_alert_does_not_wait(rig: Rig) -> None:
    await by_mail(rig, ALERT + "sub_1")
    await rig.copy()
    await rig.enqueue(to=ALERT + "sub_1", number=2)
    await rig.calls.until(2)
    assert [len(made.deliveries) for made in rig.calls.made] == [1, 1]


async def _waits(rig: Rig, number: int) -> bool:
    return await rig.deliveries.count_documents({"state": "waiting"}) == number


async def _due_later(rig: Rig) -> bool:
    row = await rig.endpoints.find_one({"_id": "sub_1"}) or {}
    return row.get("due_at_us", 0) > rig.clock.now_us() and not row.get("owner")
