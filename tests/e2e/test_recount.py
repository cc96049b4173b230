"""Recounts of a whole installation: what is counted, listed and filed agrees, and each difference is told."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_client import FailedPreconditionError, UnreachableError
from backhaul_common.ids import derived_id
from backhaul_proto.event.v1 import event_pb2
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.waiting import until
from pymongo import AsyncMongoClient
from simulators.archive import ask_for_files, files_of, verified
from simulators.recounting import counts_of, recounted, recounted_until, spring

if TYPE_CHECKING:
    from backhaul_client.auditmodels import AuditRecount
    from backhaul_local.stack import Stack
    from simulators.people import Tenant, Town

Json = dict[str, Any]

MANY, A_FILE, A_BUCKET = 100_000, 50_000, 25
MAX_MANY_S, MAX_MANY_BYTES = 120, 64 << 20
"""How long many events may take on a slow machine, and by how much audit's memory may grow."""


@pytest.fixture
async def database(storing_installation: Stack) -> AsyncIterator[Any]:
    """What the installation stores, for whoever breaks it."""
    client: AsyncMongoClient[Json] = AsyncMongoClient(storing_installation.mongo_uri)
    async with client:
        yield client[storing_installation.mongo_database]


async def test_what_is_counted_is_listed_and_filed_and_each_difference_is_told(
    storing_town: Town, database: Any
) -> None:
    tenant, neighbour = [await storing_town.platform.register() for _ in range(2)]
    await ask_for_files(storing_town.platform, tenant)
    told = await spring(tenant)
    found = await recounted_until(
        tenant,
        "all of it in files",
        lambda one: one.equal and not one.waiting and sum(kind.audited for kind in one.kinds) >= told.events,
    )
    assert counts_of(found) == (told.counted,) * 3
    assert (found.not_asked, found.missing, found.moving, found.events) == (0, 0, False, told.events)
    # The blocking twin says the same.
    assert (await tenant.read("/v1/audits/recount", communication_id="spring"))["equal"] is True
    # What a reply's own callback says counts among the events there, and the reply counts here.
    elsewhere = await tenant.get("/v1/audits/recount", communication_id="elsewhere")
    assert elsewhere.json()["equal"] is True
    assert (await neighbour.get("/v1/audits/recount", communication_id="spring")).status_code == 404

    # The same communication of another tenant, whose channels do not all ask.
    await ask_for_files(storing_town.platform, neighbour, "Twilio")
    theirs = await spring(neighbour)
    other = await recounted_until(
        neighbour, "the neighbour's", lambda one: one.equal and not one.waiting and one.events >= theirs.events
    )
    counted, listed, audited = counts_of(other)
    assert (counted, listed) == (theirs.counted, theirs.counted)
    assert audited == {"delivered": 3, "sent": 4, "queued": 1, "inbound": 2}
    assert (other.not_asked, other.channels_not_asked) == (4, ("sendgrid",))

    await _broken_one_by_one(tenant, database, told.counted)
    assert counts_of(await recounted(neighbour)) == (counted, listed, audited)


async def _broken_one_by_one(tenant: Tenant, database: Any, counted: Json) -> None:
    of = {"registration": tenant.registration}
    # A file's list is lost: all that it held is missing.
    row = await database["audit_contents"].find_one({**of, "pile": f"{tenant.registration}/events/sendgrid"})
    held = [row["ids"][at : at + 16].hex() for at in range(0, len(row["ids"]), 16)]
    revisions = dict(zip(held, array("I", row["revisions"]), strict=True))
    expected = {
        event.id
        for event in await tenant.events(communication="spring")
        if revisions.get(event.id, -1) == event.revision
    }
    assert expected
    await database["audit_contents"].delete_one({"_id": row["_id"]})
    # What has only just arrived may still come to lie in one.
    found = await recounted_until(tenant, "what is missing", lambda one: not one.waiting)
    assert (found.equal, found.missing) == (False, len(expected))
    assert set(found.missing_event_ids) == expected
    assert counts_of(found)[:2] == (counted, counted)
    await database["audit_contents"].insert_one(row)

    # An event is lost: it is counted, and not listed.
    lost = bytes.fromhex((await tenant.events(communication="spring", kind="queued"))[0].id)
    bucket = await database["events"].find_one({**of, "events.id": lost})
    left = [None if one and one["id"] == lost else one for one in bucket["events"]]
    await database["events"].update_one({"_id": bucket["_id"]}, {"$set": {"events": left}})
    found = await recounted(tenant)
    assert (found.equal, found.missing) == (False, 0)
    assert counts_of(found)[:2] == (counted, {**counted, "queued": counted["queued"] - 1})
    await database["events"].replace_one({"_id": bucket["_id"]}, bucket)

    # A count is another: what is listed is not what is counted.
    counts = await database["counts"].find_one({**of, "communication_id": "spring"})
    field = f"hours.{min(counts['hours'])}.events.delivered"
    await database["counts"].update_one({"_id": counts["_id"]}, {"$inc": {field: 2}})
    found = await recounted(tenant)
    assert (found.equal, found.missing) == (False, 0)
    assert counts_of(found)[:2] == ({**counted, "delivered": counted["delivered"] + 2}, counted)
    await database["counts"].update_one({"_id": counts["_id"]}, {"$inc": {field: -2}})
    assert (await recounted(tenant)).equal


async def test_what_replays_bring_lies_in_files_of_its_own_chain_and_counts(storing_town: Town) -> None:
    """Of one mail a callback brings one event, and a replay another one later: two files, one in each chain."""
    platform = storing_town.platform
    tenant = await platform.register()
    audit = {"audit": {"enabled": True}}
    # The channel takes the message's id from an argument that is too long to be one.
    settings = {**audit, "message_id_from": ["own_id", "sg_message_id"]}
    await platform.client.put_channel(tenant.id, "SendGrid", settings=settings)
    mail = new_message_id()
    address = tenant.address("SendGrid", communicationId="spring")
    told: dict[str, Json] = {"processed": {}, "delivered": {"own_id": "x" * 600}}
    for word, more in told.items():
        await tenant.receive(tenant.sendgrid.batch(address, [tenant.sendgrid.event(mail, word, **more)]))

    async def refused() -> str | None:
        return next((letter.id for letter in await tenant.dead_letters()), None)

    letter = await until("the dead letter", refused)
    first = await recounted_until(tenant, "the first file", lambda one: one.equal and not one.waiting)
    assert counts_of(first)[2] == {"queued": 1}
    await platform.client.put_channel(tenant.id, "SendGrid", settings={**audit, "message_id_from": ["sg_message_id"]})

    # The normalizer hears of the change by a message of its own: replay until it has.
    async def replayed() -> bool:
        with suppress(FailedPreconditionError):
            await tenant.client.replay_dead_letter(letter)
        return (await tenant.message_with("sendgrid", mail, 1)).event_count == 2

    await until("the replayed event", replayed, pause_s=0.2)
    found = await recounted_until(tenant, "both files", lambda one: one.equal and not one.waiting and one.events == 2)
    assert counts_of(found) == ({"queued": 1, "delivered": 1},) * 3
    assert sorted(file.chain for file in await files_of(tenant)) == ["backfill", "events"]


async def test_without_the_normalizer_nothing_is_recounted_and_all_else_goes_on(
    storing_town: Town, storing_installation: Stack
) -> None:
    tenant = await storing_town.platform.register()
    await ask_for_files(storing_town.platform, tenant)
    await spring(tenant)
    await recounted_until(tenant, "all of it in files", lambda one: one.equal and not one.waiting)
    normalizer = storing_installation.member("normalizer")
    normalizer.pause()
    try:
        answers = await asyncio.gather(
            tenant.get("/v1/audits/recount", communication_id="spring"), tenant.get("/v1/audits")
        )
        assert [answer.status_code for answer in answers] == [503, 200]
        # The place is free again.
        assert (await tenant.get("/v1/audits/recount", communication_id="spring")).status_code == 503
        assert not (await verified(tenant)).invalid
    finally:
        normalizer.resume()
    await recounted_until(tenant, "the same again", lambda one: one.equal)


@pytest.mark.slow
async def test_a_hundred_thousand_events_take_little_time_and_memory(
    storing_town: Town, storing_installation: Stack, database: Any
) -> None:
    tenant = await storing_town.platform.register()
    await ask_for_files(storing_town.platform, tenant, "Twilio")
    await _many(database, tenant)
    audit, normalizer = (storing_installation.member(name) for name in ("audit", "normalizer"))
    begun, before = asyncio.get_running_loop().time(), _peak_bytes(audit.pid)
    told = [one async for one in tenant.client.recount_communication("many")]
    took_s, grown = asyncio.get_running_loop().time() - begun, _peak_bytes(audit.pid) - before
    last = told[-1]
    assert (last.done, last.equal, last.events, last.waiting) == (True, True, MANY, 0)
    assert counts_of(last) == ({"delivered": MANY},) * 3
    assert len(told) >= took_s
    assert took_s < MAX_MANY_S
    assert grown < MAX_MANY_BYTES

    # While it counts, the normalizer stops: that is said, and no half of a result.
    counting = tenant.client.recount_communication("many")
    assert not (await anext(counting)).done
    normalizer.pause()
    try:
        with pytest.raises(UnreachableError):
            await _the_rest(counting)
    finally:
        normalizer.resume()
    await storing_town.platform.delete(tenant, within_s=60)


async def _the_rest(counting: AsyncIterator[AuditRecount]) -> None:
    async for one in counting:
        assert not one.done


async def _many(database: Any, tenant: Tenant) -> None:
    """One communication with many events, each in one of some files, as the services would have stored them."""
    # An hour ago: nobody could take them for waiting.
    first_us = time.time_ns() // 1000 - 3_600_000_000
    names = [derived_id("many", tenant.id, str(number)) for number in range(MANY)]
    for start in range(0, MANY, A_FILE):
        some = names[start : start + A_FILE]
        arrivals = [first_us + (start + number) * 10_000 for number in range(len(some))]
        told = list(zip(some, arrivals, strict=True))
        buckets = [_bucket(tenant, start + at, told[at : at + A_BUCKET]) for at in range(0, len(told), A_BUCKET)]
        await database["events"].insert_many(buckets, ordered=False)
        await database["audit_contents"].insert_one(
            {
                "_id": derived_id("file", tenant.id, str(start)),
                "registration": tenant.registration,
                "pile": f"{tenant.registration}/events/twilio",
                "slots": sorted({at_us // 600_000_000 for at_us in arrivals}),
                "last_at_us": arrivals[-1],
                "ids": bytes.fromhex("".join(some)),
                "revisions": bytes(4 * len(some)),
            }
        )
    day, hour = divmod(first_us // 3_600_000_000, 24)
    await database["counts"].insert_one(
        {
            "_id": bytes.fromhex(derived_id(tenant.registration, "many")) + bytes(12),
            "registration": tenant.registration,
            "communication_id": "many",
            "channel": "twilio",
            "day": day,
            "hours": {str(hour): {"messages": 1, "events": {"delivered": MANY}}},
            "created_at_us": first_us,
            "last_event_at_us": first_us,
        }
    )


def _bucket(tenant: Tenant, number: int, told: Sequence[tuple[str, int]]) -> Json:
    """Events in one bucket, by their ids and arrivals; ``number`` is that of the first."""
    events = [
        {
            "id": bytes.fromhex(event_id),
            "communication_id": "many",
            "payload": event_pb2.Event(
                id=event_id,
                tenant_id=tenant.id,
                registration=tenant.registration,
                channel="twilio",
                kind=event_pb2.EVENT_KIND_DELIVERED,
                received_at_us=at_us,
                communication_id="many",
                raw=b"x" * 400,
            ).SerializeToString(),
        }
        for event_id, at_us in told
    ]
    first_us, last_us = told[0][1], told[-1][1]
    return {
        "_id": first_us.to_bytes(8, "big") + number.to_bytes(4, "big"),
        "registration": tenant.registration,
        "at_us": last_us,
        "first_us": first_us,
        "marks": ["*", "channel:twilio", "communication:many", "kind:delivered"],
        "events": events,
    }


def _peak_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) << 10
