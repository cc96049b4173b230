"""What befalls a subscription is told to people, too: once, and by an endpoint that is not the subscription's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from backhaul_common.names import ENDPOINTS_COLLECTION, NOTICES_STREAM, NOTIFIER_POSITIONS_COLLECTION
from backhaul_notifier.documents import ALERT, delivery_id
from backhaul_proto.notice.v1.notice_pb2 import About, Notice
from enqueuing_rig import ACME, OTHER, Rig, wanting

OPS = {"alert_addresses": ["ops@example.com"]}


def befalls(name: str, subscription: str, type_: str = "subscription.paused", notify: Sequence[str] = ()) -> Notice:
    """A notice about a subscription of acme."""
    about = About(reference=subscription, communication_id="sale" if type_.startswith("communication") else "")
    return Notice(id=name, tenant_id=ACME.id, registration=ACME.registration, type=type_, about=about, notify=notify)


async def test_people_are_told_of_a_subscription_that_is_paused_or_disabled(enqueuing: Rig) -> None:
    failing = await enqueuing.subscribe("*", state="paused", definition=wanting("*") | OPS)
    other = await enqueuing.subscribe("subscription.*", name="b")
    await enqueuing.start(NOTICES_STREAM)
    paused, disabled = befalls("1", failing), befalls("2", failing, "subscription.disabled")
    await enqueuing.publish_notice(paused)
    last = await enqueuing.publish_notice(disabled)
    await enqueuing.told_up_to(last, NOTICES_STREAM)
    alerts = await enqueuing.deliveries(ALERT + failing)
    assert [(row["type"], row["event_id"], row["notice"]) for row in alerts] == [
        ("subscription.paused", "1", True),
        ("subscription.disabled", "2", True),
    ]
    assert alerts[0]["_id"] == delivery_id(ALERT + failing, "1", 0)
    assert Notice.FromString(alerts[0]["payload"]) == paused
    endpoint = await enqueuing.endpoint(ALERT + failing)
    assert endpoint.pop("due_at_us") == alerts[0]["due_at_us"]
    # It is served whatever became of the other one.
    assert endpoint == {
        "_id": ALERT + failing,
        "tenant": "acme",
        "registration": ACME.registration,
        "active": True,
        "told": 2,
    }
    assert await enqueuing.deliveries(failing) == []
    assert [row["event_id"] for row in await enqueuing.deliveries(other)] == ["1", "2"]


async def test_people_are_told_of_a_communication_by_the_subscription_that_it_was_disabled_for(enqueuing: Rig) -> None:
    for_it = await enqueuing.subscribe("message.*")
    await enqueuing.subscribe("message.*", name="b", definition=wanting("message.*") | OPS)
    await enqueuing.start(NOTICES_STREAM)
    await enqueuing.publish_notice(befalls("1", for_it, "communication.disabled", notify=["ann@example.com"]))
    await enqueuing.publish_notice(befalls("2", for_it, "communication.disabled"))
    last = await enqueuing.publish_notice(befalls("3", "", "communication.disabled", notify=["ann@example.com"]))
    await enqueuing.told_up_to(last, NOTICES_STREAM)
    (row,) = await enqueuing.deliveries()
    assert (row["subscription"], row["event_id"], row["communication_id"]) == (ALERT + for_it, "1", "sale")


async def test_nobody_is_told_whom_the_subscription_does_not_name_or_that_is_anothers(enqueuing: Rig) -> None:
    silent = await enqueuing.subscribe("message.*")
    theirs = await enqueuing.subscribe("message.*", of=OTHER, definition=wanting("message.*") | OPS)
    gone = await enqueuing.subscribe("message.*", name="c", deleted=True, definition=wanting("message.*") | OPS)
    await enqueuing.start(NOTICES_STREAM)
    for number, id_ in enumerate((silent, theirs, gone)):
        last = await enqueuing.publish_notice(befalls(str(number), id_))
    await enqueuing.told_up_to(last, NOTICES_STREAM)
    assert await enqueuing.deliveries() == []
    assert await enqueuing.database[ENDPOINTS_COLLECTION].count_documents({"_id": {"$regex": f"^{ALERT}"}}) == 0


async def test_each_alert_is_made_once_by_copies_that_stop_and_of_notices_that_come_again(enqueuing: Rig) -> None:
    failing = await enqueuing.subscribe("message.*", definition=wanting("message.*") | OPS)
    first, second = await enqueuing.start(NOTICES_STREAM), await enqueuing.start(NOTICES_STREAM)
    for number in range(60):
        await enqueuing.publish_notice(befalls(str(number), failing))
        last = await enqueuing.publish_notice(befalls(str(number // 2), failing))
        if number == 20:
            # In the middle of what it does: another one goes on from what is stored.
            await enqueuing.told_up_to(last - 10, NOTICES_STREAM)
            holder = first if first.enqueuers[NOTICES_STREAM].at_it else second
            for task in holder.running:
                task.cancel()
            await asyncio.gather(*holder.running, return_exceptions=True)
    # One that reads them all again, as if nothing had been told.
    await enqueuing.told_up_to(last, NOTICES_STREAM, within_s=40)
    await first.stop()
    await second.stop()
    told = [row["event_id"] for row in await enqueuing.deliveries(ALERT + failing)]
    assert told == [str(number) for number in range(60)]
    assert (await enqueuing.endpoint(ALERT + failing))["told"] == 60
    await enqueuing.database[NOTIFIER_POSITIONS_COLLECTION].update_one(
        {"_id": NOTICES_STREAM}, {"$set": {"position": 0}}
    )
    again = await enqueuing.start(NOTICES_STREAM)
    await enqueuing.told_up_to(last, NOTICES_STREAM)
    assert len(await enqueuing.deliveries(ALERT + failing)) == 60
    assert again.counts.given_up.value(NOTICES_STREAM) == 0
