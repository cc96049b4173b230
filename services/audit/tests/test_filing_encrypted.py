"""Channels that encrypt, with copies as processes on real servers: who is erased is in no file, whatever is killed."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from backhaul_audit.decrypting import Decrypting
from backhaul_audit.lines import Lines
from backhaul_audit.model import SealedFile
from backhaul_audit.tenancy import AuditTenantData
from backhaul_common.names import AUDIT_PEOPLE_COLLECTION
from backhaul_common.store_format import StoreFormat
from backhaul_local.mongod import MongoServer
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_testing.waiting import until
from filing_rig import Objects, Rig, asking, event
from people_rig import Copy
from people_rig import Rig as People

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ADA, BOB = "ada.lovelace@example.com", "bob@example.com"


def keys(filing: Rig) -> Copy:
    """Of people, as one more copy would see them."""
    return People(filing.database).copy()


async def decrypted(filing: Rig, file: SealedFile) -> bytes:
    """What a tenant reads."""

    async def stored() -> AsyncIterator[bytes]:
        yield filing.bytes_of(file)

    return b"".join([part async for part in Decrypting(keys(filing).people).content_of(file, stored())])


async def lines(filing: Rig, *, tenant: str = "acme") -> dict[str, Any]:
    """All lines of a tenant's sealed files, by event. Each event has one."""
    found: dict[str, Any] = {}
    for file in await filing.files():
        if file.plan.tenant_id == tenant:
            assert file.plan.shape.encrypted
            some = {line["event"]["id"]: line for line in filing.lines_of(file)}
            assert len(some) == file.content.events
            assert not some.keys() & found.keys()
            found |= some
    return found


async def read(filing: Rig, *, tenant: str = "acme") -> list[Any]:
    """The same as their tenant reads them."""
    files = [file for file in await filing.files() if file.plan.tenant_id == tenant]
    return [json.loads(line) for file in files for line in (await decrypted(filing, file)).splitlines()]


async def everything_stored(filing: Rig) -> bytes:
    """What lies in the bucket, inflated, the names of objects included, and what audit has in its database."""
    told: list[bytes] = []
    for one in filing.s3.list_objects(filing.bucket, recursive=True, include_user_meta=True):
        name = one.object_name or ""
        response = filing.s3.get_object(bucket_name=filing.bucket, object_name=name)
        data = response.read()
        told += [
            name.encode(),
            repr(dict(response.headers)).encode(),
            gzip.decompress(data) if name.endswith(".gz") else data,
        ]
        response.close()
        response.release_conn()
    for collection in await filing.database.list_collection_names():
        if collection.startswith("audit_"):
            told += [repr(row).encode() async for row in filing.database[collection].find({})]
    return b"\n".join(told)


@pytest.mark.parametrize("with_event", [False, True])
async def test_nothing_of_a_person_stands_in_clear_and_their_tenant_reads_all(filing: Rig, with_event: bool) -> None:
    acme = asking("acme", gzip=True, encrypt_people=True, with_event=with_event)
    await filing.register(acme)
    personal: dict[str, Any] = {
        "recipient": ADA,
        "message_id": "SM-unmistakable-77",
        "text": "an unspeakable answer",
        "sender": "Byron <sales@acme.example>",
        "error_text": "nobody called Lovelace",
    }
    raw = json.dumps({**personal, "name": "Augusta Ada King"}).encode()
    first = event(acme, "mail", raw=raw, communication_id="spring-7", **personal)
    first.vars.add(name="nickname", value="Enchantress")
    twilio: dict[str, Any] = {"channel": "twilio", "recipient": "+14155550123"}
    spoken = event(acme, "call", raw=b"To=%2B14155550123", recipient_family=event_pb2.ADDRESS_FAMILY_VOICE, **twilio)
    twilio["recipient"] = "+1 (415) 555-0123"
    written = event(acme, "sms", raw=b"Body=Hello", recipient_family=event_pb2.ADDRESS_FAMILY_PHONE, **twilio)
    await filing.publish(acme, first)
    await filing.publish(acme, spoken, written)
    filing.start()
    await filing.sealed(3)
    stored = await everything_stored(filing)
    lowered = stored.lower()
    for secret in (ADA, "lovelace", "augusta", "unspeakable", "unmistakable", "byron", "enchantress", "4155550123"):
        assert secret.encode() not in lowered
    for secret in (personal["text"], ADA):
        for shift in range(3):
            # Wherever it began, this would be in the middle of it.
            assert base64.b64encode(b"x" * shift + secret.encode())[4:-4] not in stored
    assert b"spring-7" in stored
    plain = Lines().of([first, spoken, written], with_event=with_event)
    contents = b"".join([await decrypted(filing, file) for file in await filing.files()])
    assert sorted(contents.splitlines()) == sorted(plain)
    found = await lines(filing)
    assert found[spoken.id]["person"] == found[written.id]["person"] != found[first.id]["person"]


async def test_erased_while_copies_file(filing: Rig) -> None:
    """The copy that files has the key in memory; soon it files nothing of them, nor does the next one."""
    acme, globex = asking("acme", encrypt_people=True), asking("globex", encrypt_people=True)
    await filing.register(acme, globex)
    first = filing.start()
    before, others = event(acme, "before", recipient=ADA), event(acme, "others", recipient=BOB)
    theirs = event(globex, "theirs", recipient=ADA)
    await filing.publish(acme, before, others)
    await filing.publish(globex, theirs)
    await filing.sealed(3)
    filing.start()
    was = (await lines(filing))[before.id]["person"]
    erased = await keys(filing).people.erase(acme.registration, "Ada.Lovelace@EXAMPLE.com")
    assert erased.destroyed

    filed: list[Event] = []

    async def nothing_more() -> bool:
        one = event(acme, f"after-{len(filed)}", recipient=ADA)
        filed.append(one)
        await filing.publish(acme, one)
        await filing.sealed(3 + len(filed))
        return (await lines(filing))[one.id]["person"] is None

    await until("a line without a key", nothing_more, within_s=30, pause_s=0.5)
    filing.kill(first)
    late = [event(acme, f"late-{one}", recipient=f" {ADA.upper()}") for one in range(5)]
    # What the second copy does not know from anywhere but the database.
    new = event(acme, "new", recipient=ADA, received_at_us=erased.before_us)
    await filing.publish(acme, *late, new)
    await filing.sealed(3 + len(filed) + len(late) + 1)
    found = await lines(filing)
    assert {found[one.id]["person"] for one in filed} <= {was, None}
    assert {found[one.id]["encrypted"] for one in late} == {None}
    assert found[new.id]["person"] not in (was, None)
    assert found.keys() == {one.id for one in (before, others, *filed, *late, new)}
    readable = [line["name"] for line in await read(filing) if "name" in line]
    assert sorted(readable) == ["new", "others"]
    assert [line["name"] for line in await read(filing, tenant="globex")] == ["theirs"]


@pytest.mark.parametrize("step", ["after_record", "before_upload", "after_upload", "before_seal"])
async def test_erased_between_a_death_and_the_seal(filing: Rig, step: str) -> None:
    """What is in its place is sealed as it is there, under a key that is gone; what is not is made without them."""
    acme = asking("acme", gzip=True, encrypt_people=True)
    await filing.register(acme)
    events = [event(acme, f"{number}", recipient=(ADA, BOB)[number % 2]) for number in range(20)]
    await filing.publish(acme, *events)
    await filing.died(filing.start_until(step))
    erased = await keys(filing).people.erase(acme.registration, ADA)
    assert erased.destroyed
    filing.start()
    (file,) = await filing.sealed(20)
    uploaded = step in ("after_upload", "before_seal")
    found = await lines(filing)
    assert found.keys() == {one.id for one in events}
    for number, one in enumerate(events):
        line = found[one.id]
        assert (line["encrypted"] is None) == (number % 2 == 0 and not uploaded)
    # ``content_of`` compares what is there with the hashes that were sealed.
    readable = [line["name"] for line in await read(filing) if "name" in line]
    assert readable == [str(number) for number in range(1, 20, 2)]
    assert [one.object_name for one in filing.s3.list_objects(filing.bucket, prefix="tenants/", recursive=True)] == [
        file.plan.key
    ]


async def test_the_database_away_while_keys_are_needed(filing: Rig, mongo_server: MongoServer) -> None:
    acme = asking("acme", encrypt_people=True)
    await filing.register(acme)
    filing.start()
    events: Sequence[Event] = [event(acme, f"first-{one}", recipient=f"{one}@example.com") for one in range(20)]
    await filing.publish(acme, *events)
    await filing.sealed(20)
    mongo_server.kill_blocking()
    try:
        more = [event(acme, f"more-{one}", recipient=f"new-{one}@example.com") for one in range(300)]
        for start in range(0, len(more), 30):
            await filing.publish(acme, *more[start : start + 30])
    finally:
        mongo_server.start_blocking()
    events = [*events, *more]
    await filing.sealed(len(events), within_s=120)
    assert (await lines(filing)).keys() == {one.id for one in events}
    readable = [line["name"] for line in await read(filing)]
    assert sorted(readable) == sorted(json.loads(one.raw)["name"] for one in events)


async def test_a_tenant_that_goes_takes_the_keys_of_its_people_with_it(filing: Rig) -> None:
    acme, globex = asking("acme", encrypt_people=True), asking("globex", encrypt_people=True)
    await filing.register(acme, globex)
    filing.start()
    for one in (acme, globex):
        await filing.publish(one, event(one, "one", recipient=ADA), event(one, "nobody"))
    await filing.sealed(4)
    people = filing.database[AUDIT_PEOPLE_COLLECTION]
    assert await people.count_documents({"registration": acme.registration}) == 3
    await filing.register(acme.model_copy(update={"status": "deleting", "revision": 2}))
    data = AuditTenantData(filing.database, StoreFormat(filing.database), Objects())
    await data.purge(acme.id, acme.registration)
    # What still comes of it makes no new ones.
    last, marker = event(acme, "last", recipient=BOB), event(globex, "marker", recipient=BOB)
    await filing.publish(acme, last)
    await filing.publish(globex, marker)

    async def filed() -> bool:
        return marker.id in await lines(filing, tenant="globex")

    await until("what came behind it", filed, within_s=60)
    assert await people.count_documents({"registration": acme.registration}) == 0
    assert sorted(line["name"] for line in await read(filing, tenant="globex")) == ["marker", "nobody", "one"]


async def test_a_channel_that_begins_to_encrypt_leaves_what_it_has_as_it_is(filing: Rig) -> None:
    """Files of before stay plain, and say so; a file is of one kind."""
    acme = asking("acme")
    await filing.register(acme)
    filing.start()
    await filing.publish(acme, event(acme, "plain", recipient=ADA))
    await filing.sealed(1)
    await filing.register(asking("acme", encrypt_people=True).model_copy(update={"revision": acme.revision + 1}))

    count = 1

    async def encrypted() -> bool:
        nonlocal count
        await filing.publish(acme, event(acme, f"later-{count}", recipient=ADA))
        count += 1
        files = await filing.sealed(count)
        return files[-1].plan.shape.encrypted

    await until("an encrypted file", encrypted, within_s=60)
    files = await filing.files()
    assert not files[0].plan.shape.encrypted
    for file in files:
        assert {"encrypted" in line for line in filing.lines_of(file)} == {file.plan.shape.encrypted}


async def test_copies_are_killed_at_random_while_people_are_erased(filing: Rig) -> None:
    """Each event lies in one file, and can be read if, and only if, it arrived after its person's last erasure."""
    acme = asking("acme", gzip=True, encrypt_people=True)
    await filing.register(acme)
    chance = random.Random(11)  # noqa: S311  # a test's order, no secret
    people = [f"person-{number}@example.com" for number in range(6)]
    settings = {"audit_max_file_age_s": 0.4, "audit_max_file_events": 50}
    copies = [filing.start(**settings), filing.start(**settings)]
    of, events, erased_before = keys(filing).people, list[Event](), dict[str, int]()
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            at = len(events)
            some = [
                event(acme, f"{at}-{one}", recipient=chance.choice(people)) for one in range(chance.randrange(1, 20))
            ]
            await filing.publish(acme, *some)
            events.extend(some)
            await asyncio.sleep(0.02)

    loading = asyncio.create_task(load())
    try:
        await filing.sealed(100)
        for _ in range(3):
            for person in chance.sample(people[:4], 2):
                erased_before[person] = (await of.erase(acme.registration, person)).before_us
                await asyncio.sleep(chance.uniform(0.1, 0.8))
            copy = chance.choice(copies)
            filing.kill(copy)
            copies[copies.index(copy)] = filing.start(**settings)
            before = sum(one.content.events for one in await filing.files())
            await filing.sealed(before + 50)

        async def over() -> bool:
            return events[-1].received_at_us > max(erased_before.values()) + 1_000_000

        await until("something that arrived later", over, within_s=60)
    finally:
        stop.set()
        await loading
    await filing.sealed(len(events), within_s=90)
    assert (await lines(filing)).keys() == {one.id for one in events}
    readable = {line["id"] for line in await read(filing) if "name" in line}
    assert readable == {one.id for one in events if one.received_at_us >= erased_before.get(one.recipient, 0)}
    assert len(readable) < len(events)
