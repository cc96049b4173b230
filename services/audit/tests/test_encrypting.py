"""Lines that are encrypted: the same by whichever copy, under the person's key, and telling nothing of the person."""

from __future__ import annotations

import itertools
import json
import random
from base64 import b64decode
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from backhaul_audit.books import Books
from backhaul_audit.counts import Counts
from backhaul_audit.encrypting import MAX_TEXT, EncryptedLines
from backhaul_audit.keyring import KEPT_S, Keyring
from backhaul_audit.lines import Lines
from backhaul_audit.model import Shape
from backhaul_audit.people import MongoPeople
from backhaul_audit.peoplesecrets import Name, Person
from backhaul_audit.piles import Limits, Piles
from backhaul_audit.plans import Ask
from backhaul_audit.taking import Taking
from backhaul_common import mongo
from backhaul_common.metering import Metrics
from backhaul_common.names import AUDIT_PEOPLE_COLLECTION, events_subject
from backhaul_common.store_format import StoreFormat
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from people_rig import Copy, Rig, now_us

if TYPE_CHECKING:
    from backhaul_audit.asking import Asking

ADA = "ada@example.com"
AT_US = 1_700_000_000_000_000


@dataclass
class Counted:
    """Keys, and how often they were asked for."""

    people: MongoPeople
    found: list[int] = field(default_factory=list)
    made: list[int] = field(default_factory=list)

    async def find(self, names: Collection[Name]) -> Mapping[Name, Person]:
        self.found.append(len(names))
        return await self.people.find(names)

    async def make(self, names: Collection[Name]) -> Mapping[Name, Person]:
        self.made.append(len(names))
        return await self.people.make(names)


@dataclass
class Filer:
    """A copy that writes lines, by a clock that the test sets."""

    copy: Copy
    store: Counted
    keyring: Keyring
    lines: EncryptedLines
    now: float = 0.0

    async def of(self, registration: str, *events: Event) -> list[Any]:
        lines = await self.lines.of(registration, events, with_event=False)
        assert not any(b"\n" in line or b"\r" in line for line in lines)
        return [json.loads(line) for line in lines]


def filer(people: Rig, *, max_kept: int = 100, at_us: int = AT_US) -> Filer:
    copy = people.copy(clock=lambda: at_us)
    store = Counted(copy.people)
    keyring = Keyring(store, copy.secrets, clock=lambda: made.now, max_kept=max_kept)
    made = Filer(copy, store, keyring, EncryptedLines(Lines(), keyring))
    return made


def told(recipient: str, number: int = 0, **fields: Any) -> Event:
    values: dict[str, Any] = {"raw": b'{"to":"someone"}', "received_at_us": AT_US, "channel": "twilio", **fields}
    return Event(id=f"{number:032x}", recipient=recipient, **values)


async def opened(of: Filer, registration: str, event: Event, line: Any) -> bytes:
    (key,) = (await of.copy.people.by_id(registration, [line["person"]])).values()
    about = [event.id.encode(), str(event.revision).encode()]
    return AESSIV(key).decrypt(b64decode(line["encrypted"], validate=True), about)


@dataclass
class Asks:
    """What channels ask for, by their keys."""

    asks: dict[str, Ask]

    async def of(self, tenant_id: str, registration: str, channel: str) -> Ask | None:
        return self.asks.get(channel)


@pytest.fixture
async def people(mongo_server: Any, mongo_database: str) -> AsyncIterator[Rig]:
    client = mongo.connect(mongo_server.uri)
    rig = Rig(mongo.database(client, mongo_database))
    await StoreFormat(rig.database).ensure()
    await rig.prepare()
    yield rig
    client.close()


async def test_a_line_is_the_same_by_any_copy_and_opens_to_what_it_would_be(people: Rig) -> None:
    acme = await people.register("acme")
    first, second = filer(people), filer(people)
    events = [
        told(ADA, 1, raw=b"Body=Hello&From=%2B1415", text="Hello"),
        told("ADA@example.com", 2, revision=3),
        told("+14155550123", 3, recipient_family=event_pb2.ADDRESS_FAMILY_PHONE),
        told("+1 415 555 0123", 4, recipient_family=event_pb2.ADDRESS_FAMILY_VOICE, raw=b"\xff\x00"),
        told("whatsapp:+14155550123", 5),
        told("", 6),
    ]
    for with_event in (False, True):
        lines = await first.lines.of(acme, events, with_event=with_event)
        assert await second.lines.of(acme, events, with_event=with_event) == lines
        plain = Lines().of(events, with_event=with_event)
        read = [json.loads(line) for line in lines]
        for event, line, wanted in zip(events, read, plain, strict=True):
            assert await opened(second, acme, event, line) == wanted
        ada, also, phone, voice, whatsapp, nobody = (line["person"] for line in read)
        assert ada == also
        assert phone == voice == whatsapp
        assert len({ada, phone, nobody}) == 3


async def test_only_public_fields_stand_in_clear(people: Rig) -> None:
    acme = await people.register("acme")
    event = told(
        ADA,
        7,
        kind=event_pb2.EVENT_KIND_BOUNCED,
        provider="twilio",
        provider_status="bounced",
        error_code="30003",
        error_class=event_pb2.ERROR_CLASS_HARD,
        error_text="no such ada",
        message_id="SM-ada",
        sender="sales@acme.example",
        communication_id="spring-7",
        text="my answer",
        occurred_at_us=AT_US,
        by_machine=True,
        callback_id="cb",
        references=["ada-1"],
    )
    event.vars.add(name="first_name", value="Ada")
    event.attributes.add(name="url", value="https://example.com/?u=ada")
    (line,) = await filer(people).of(acme, event)
    assert line["event"] == {
        "id": f"{7:032x}",
        "channel": "twilio",
        "provider": "twilio",
        "kind": "bounced",
        "provider_status": "bounced",
        "communication_id": "spring-7",
        "error_code": "30003",
        "occurred_at": "2023-11-14T22:13:20.000000Z",
        "received_at": "2023-11-14T22:13:20.000000Z",
        "source": None,
        "revision": 0,
        "by_machine": True,
        "error_class": "hard",
    }
    (whole,) = Lines().of([event], with_event=True)
    full = json.loads(whole)["event"]
    assert {name: full[name] for name in line["event"]} == line["event"]


@pytest.mark.parametrize("name", ["provider_status", "error_code", "communication_id"])
async def test_texts_that_name_the_person_are_no_public_ones(people: Rig, name: str) -> None:
    """A provider, or a tenant, may put anything there."""
    acme = await people.register("acme")
    cases = [
        (ADA, "550 <Ada@Example.com> unknown", None),
        (ADA, "for bob@example.org", None),
        ("+14155550123", "sent to 14155550123", None),
        ("whatsapp:+14155550123", "14155550123", None),
        (ADA, "x" * (MAX_TEXT + 1), None),
        (ADA, "x" * MAX_TEXT, "x" * MAX_TEXT),
        ("7", "error 7", "error 7"),
        ("", "delivered", "delivered"),
    ]
    events = [told(recipient, number, **{name: text}) for number, (recipient, text, _) in enumerate(cases)]
    lines = await filer(people).of(acme, *events)
    assert [line["event"][name] for line in lines] == [shown for _, _, shown in cases]


async def test_hostile_recipients(people: Rig) -> None:
    """Whatever the text, there is a key, the line is one line, and nothing of it stands in clear or is remembered."""
    acme = await people.register("acme")
    chance = random.Random(7)  # noqa: S311  # a test's texts, no secret
    odd = ["".join(chr(chance.randrange(1, 0xD800)) for _ in range(chance.randrange(1, 40))) for _ in range(200)]
    recipients = [
        "x" * 300_000 + "@example.com",
        "+" + "1" * 300_000,
        '","person":"0000000000000000","x":"',
        "a\r\nb\x00c@example.com",
        "\u202eada@example.com",
        "ada@" + "ü" * 500,
        "\U0010ffff\U0001f600",
        "secrets/acme.1",
        "$where",
        *odd,
    ]
    of = filer(people, max_kept=10)
    events = [told(recipient, number) for number, recipient in enumerate(recipients)]
    lines = await of.of(acme, *events)
    for event, line in zip(events, lines, strict=True):
        assert await opened(of, acme, event, line) == event.raw
        assert set(line) == {"event", "person", "encrypted"}
    stored = await people.rows()
    assert all(len(repr(row)) < 1000 for row in stored)
    # Once more, from another copy that remembers nothing.
    assert await filer(people).of(acme, *events) == lines


async def test_what_arrived_before_an_erasure_is_not_filed_and_what_comes_later_is(people: Rig) -> None:
    acme, globex = await people.register("acme"), await people.register("globex")
    of, other = filer(people), filer(people)
    old, theirs = told(ADA, 1), told(ADA, 1)
    (before,) = await of.of(acme, old)
    (kept,) = await of.of(globex, theirs)
    erased = await other.copy.people.erase(acme, "Ada@Example.com")
    late, new = told(ADA, 2, received_at_us=erased.before_us - 1), told(ADA, 3, received_at_us=erased.before_us)
    gone, gone_too, again = await other.of(acme, old, late, new)
    assert (gone["person"], gone["encrypted"]) == (gone_too["person"], gone_too["encrypted"]) == (None, None)
    assert gone["event"] == before["event"]
    assert again["person"] not in (None, before["person"])
    assert await opened(other, acme, new, again) == new.raw
    assert await other.copy.people.by_id(acme, [before["person"]]) == {}
    assert await opened(other, globex, theirs, kept) == theirs.raw
    # The copy that had the key in memory goes on with it for a while, of what arrived before.
    assert await of.of(acme, old) == [before]
    of.now += KEPT_S - 0.1
    assert await of.of(acme, old) == [before]
    of.now += 0.1
    assert await of.of(acme, old, late, new) == [gone, gone_too, again]


async def test_who_is_erased_gets_no_new_key_before_something_new_arrives(people: Rig) -> None:
    acme = await people.register("acme")
    of = filer(people)
    await of.copy.people.erase(acme, ADA)
    (line,) = await of.of(acme, told(ADA))
    assert line["person"] is None
    assert of.store.made == []
    row = await people.database[AUDIT_PEOPLE_COLLECTION].find_one({"erased_before_us": {"$exists": True}})
    assert row is not None
    assert "key_id" not in row


async def test_keys_are_asked_for_once_in_ten_seconds_and_together(people: Rig) -> None:
    acme, globex = await people.register("acme"), await people.register("globex")
    of = filer(people)
    ours = [told(f"{number}@example.com", number) for number in range(20)]
    theirs = [told(f"{number}@example.com", number) for number in range(10)]
    await of.lines.expect([(acme, ours), (globex, theirs), (acme, ours[:5])])
    assert (of.store.found, of.store.made) == ([30], [30])
    await of.of(acme, *ours)
    await of.of(globex, *theirs)
    assert (of.store.found, of.store.made) == ([30], [30])
    of.now += KEPT_S
    await of.of(acme, *ours)
    assert (of.store.found, of.store.made) == ([30, 20], [30])


async def test_no_more_keys_are_kept_than_may_be(people: Rig) -> None:
    acme = await people.register("acme")
    of = filer(people, max_kept=10)
    some: Sequence[Event] = [told(f"{number}@example.com", number) for number in range(25)]
    lines = await of.of(acme, *some)
    assert of.keyring.kept == 10
    assert await of.of(acme, *some) == lines
    assert of.store.found == [25, 15]
    assert of.keyring.kept == 10


async def test_a_tenant_that_is_gone_has_no_people(people: Rig) -> None:
    initech = await people.register("initech", status="deleting")
    (line,) = await filer(people).of(initech, told(ADA))
    assert (line["person"], line["encrypted"]) == (None, None)
    acme = await people.register("acme")
    of = filer(people)
    (known,) = await of.of(acme, told(ADA))
    await people.register("acme", status="deleting")
    kept, new = await of.of(acme, told(ADA), told("bob@example.com"))
    assert kept == known
    assert new["person"] is None


async def test_keys_are_expected_of_channels_that_encrypt_and_of_no_others(people: Rig) -> None:
    """One look-up for all messages of a batch, and none for a channel that does not want it, or not any more."""
    acme = await people.register("acme")
    of = filer(people)
    wanted = {"a": True, "b": True, "plain": False}
    asks = {channel: Ask("acme", "", "bucket", Shape("events", encrypted=one)) for channel, one in wanted.items()}
    limits = Limits(file_bytes=1 << 20, file_events=1000, file_age_s=60, memory_bytes=1 << 30)
    piles = Piles(limits, lambda: "1" * 32)
    books = Books(people.database, now_us)
    metrics = Metrics("audit")
    taking = Taking(piles, cast("Asking", Asks(asks)), books, {}, Counts(metrics), Lines(), of.lines, traced=False)
    positions = itertools.count(1)

    def message(channel: str, *recipients: str) -> Any:
        of_acme = {"channel": channel, "registration": acme, "tenant_id": "acme"}
        batch = EventBatch(events=[told(one, number, **of_acme) for number, one in enumerate(recipients)])
        subject = events_subject("acme", channel, "sent")
        return SimpleNamespace(
            subject=subject, data=batch.SerializeToString(), stream_seq=next(positions), stored_at_us=0, again=False
        )

    async def take(*messages: Any) -> None:
        await taking.expect(messages)
        for one in messages:
            await taking.take(one, 0.0)

    await take(message("plain", ADA), message("plain", ADA))
    assert of.store.found == []
    await take(message("a", "1@example.com"), message("b", "2@example.com"))
    assert of.store.found == [1, 1]
    await take(message("a", "3@example.com"), message("b", "4@example.com"), message("plain", "5@example.com"))
    assert of.store.found == [1, 1, 2]
    del asks["a"], asks["b"]
    await take(message("a", "6@example.com"), message("b", "7@example.com"))
    made = len(await people.rows())
    await take(message("a", "8@example.com"), message("b", "9@example.com"))
    assert len(await people.rows()) == made
    metrics.close()
