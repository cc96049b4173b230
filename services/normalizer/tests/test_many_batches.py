"""People who are in very many batches, and addresses that very many people have: what a message is for is found without
reading of all of them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from backhaul_channels import EventKind
from backhaul_common.names import MEMBERS_COLLECTION, MESSAGES_COLLECTION
from backhaul_normalizer.communications import concerned, finding
from normalizer_rig import Rig
from rosters import Copy, Rosters
from tellings import ARRIVED_US, batch_of, told

PEOPLE, BATCHES = 12, 8
SECOND_US = 1_000_000


async def registered(rig: Rig) -> tuple[Rosters, Copy]:
    """A communication with a batch each ten seconds, in which several people have one address."""
    rosters, copy = Rosters(rig), Copy(rig)
    await rosters.communication("spring")
    for number in range(BATCHES):
        await rosters.batch("spring", f"b{number}", at_us=ARRIVED_US + 10 * number * SECOND_US)
        for person in reversed(range(PEOPLE)):
            destinations = [("sendgrid", "one@example.com"), ("sendgrid", f"{person}@example.com")]
            # Who has no destination on the channel is none of those whom a message may be for.
            on = destinations if number % 3 else [("twilio", "")]
            await rosters.member(copy, f"b{number}", f"k{person:02}", on)
    return rosters, copy


def sent(number: int, at_us: int, **more: Any) -> Any:
    query = "communicationId=spring" + "".join(
        f"&{name}={more.pop(name)}" for name in list(more) if name != "recipient"
    )
    return told(key=f"{number}", kind=EventKind.SENT, name=f"M{number}", at=at_us, arrived=at_us, query=query, **more)


@pytest.mark.parametrize("most", [3, 10_000])
async def test_the_nearest_is_found_of_many(town: Rig, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(finding, "MAX_CANDIDATES", most)
    rosters, copy = await registered(town)
    number = 0
    for offset in (-1, 0, 9, 10, 34, 35, 1000):
        for recipient in ("one@example.com", "3@example.com", "nobody@example.com"):
            for named in ({}, {"memberKey": "k04"}, {"batchId": "b4"}, {"batchId": "b4", "memberKey": "k05"}):
                fact = sent(number, ARRIVED_US + offset * SECOND_US, recipient=recipient, **named)
                await copy.store.commit([fact], [])
                number += 1
    counted = await rosters.checked()
    assert {batch for batch, states in counted.items() if states} == {"b1", "b2", "b4", "b7"}


async def test_what_is_read_does_not_grow_with_those_who_have_the_address(
    town: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "MAX_CANDIDATES", 3)
    rosters, copy = await registered(town)
    await town.database.command("profile", 2)
    for number, offset in enumerate((-1, 34)):
        await copy.store.commit([sent(number, ARRIVED_US + offset * SECOND_US, recipient="one@example.com")], [])
    await town.database.command("profile", 0)
    of_members = {"ns": f"{town.database.name}.{MEMBERS_COLLECTION}", "op": {"$in": ["query", "getmore"]}}
    read = await town.database["system.profile"].find(of_members).to_list(None)
    assert read
    assert max(one.get("docsExamined", 0) for one in read) <= 4
    assert max(one.get("keysExamined", 0) for one in read) <= PEOPLE
    assert not [one for one in read if one.get("hasSortStage")]
    assert (await rosters.checked())["b2"] == {"Sent": 1}


async def test_very_many_messages_for_a_new_member_are_not_held_at_once(
    town: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concerned, "PAGE", 7)
    rosters, copy = Rosters(town), Copy(town)
    await rosters.communication("spring")
    await rosters.batch("spring", "b0", at_us=ARRIVED_US)
    facts = [sent(number, ARRIVED_US + number, recipient="one@example.com") for number in range(20)]
    await copy.store.commit(batch_of(facts), [])
    await town.database.command("profile", 2)
    await rosters.member(copy, "b0", "k0", [("sendgrid", "one@example.com")])
    await town.database.command("profile", 0)
    of_messages = {"ns": f"{town.database.name}.{MESSAGES_COLLECTION}", "op": {"$in": ["query", "getmore"]}}
    read = await town.database["system.profile"].find(of_messages).sort("ts", 1).to_list(None)
    # Those that look up ids alone, and not whether there are any.
    asked = [(one.get("originatingCommand") or one["command"], one["nreturned"]) for one in read]
    ids = [count for command, count in asked if command.get("projection") == {"_id": 1} and "limit" not in command]
    assert [count for count in ids if count] == [7, 7, 6]
    assert (await rosters.checked())["b0"] == {"Sent": 1}


async def linked_anew(rig: Rig, batch_id: str, key: str, recipient: str) -> int:
    """Messages that are linked when a member is added."""
    of_messages = {"ns": f"{rig.database.name}.{MESSAGES_COLLECTION}", "op": {"$in": ["query", "getmore"]}}
    await rig.database.command("profile", 1, filter=of_messages)
    await Rosters(rig).member(Copy(rig), batch_id, key, [("sendgrid", recipient)])
    await rig.database.command("profile", 0, filter="unset")
    read = await rig.database["system.profile"].find(of_messages).to_list(None)
    await rig.database["system.profile"].drop()
    assert read
    assert not [one for one in read if "COLLSCAN" in one["planSummary"]]
    return sum(one["nreturned"] for one in read if "txnNumber" in one["command"])


@pytest.mark.parametrize("named", [{}, {"memberKey": "k0"}, {"batchId": "", "memberKey": "k0"}])
async def test_what_was_sent_for_earlier_batches_is_not_linked_anew(town: Rig, named: dict[str, str]) -> None:
    rosters, copy = Rosters(town), Copy(town)
    await rosters.communication("spring")
    for number in range(BATCHES):
        await rosters.batch("spring", f"b{number}", at_us=ARRIVED_US + 20 * number * SECOND_US)
    for number in range(BATCHES):
        batch = {"batchId": f"b{number}"} if "batchId" in named else {}
        at_us = ARRIVED_US + (20 * number + 1) * SECOND_US
        assert await linked_anew(town, f"b{number}", "k0", "a@example.com") == 0
        await copy.store.commit([sent(number, at_us, recipient="a@example.com", **named | batch)], [])
    counted = await rosters.checked()
    assert counted == {f"b{number}": {"Sent": 1} for number in range(BATCHES)}


async def test_what_is_to_an_address_of_very_many_is_not_linked_anew_for_each(town: Rig) -> None:
    rosters, copy = Rosters(town), Copy(town)
    await rosters.communication("spring")
    await rosters.batch("spring", "b0", at_us=ARRIVED_US)
    await rosters.member(copy, "b0", "k1", [("sendgrid", "one@example.com")])
    facts = [sent(number, ARRIVED_US + number, recipient="one@example.com") for number in range(20)]
    await copy.store.commit(batch_of(facts), [])
    assert await linked_anew(town, "b0", "k2", "one@example.com") == 0
    assert (await rosters.checked())["b0"] == {"Sent": 1}
    # Of several it is the one whose key comes first.
    assert await linked_anew(town, "b0", "k0", "one@example.com") >= 20
    assert (await rosters.checked())["b0"] == {"Sent": 1}


@pytest.mark.parametrize("seed", range(16))
async def test_members_who_come_late_get_what_is_theirs(town: Rig, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """People of few addresses, of batches registered long before, while and after messages were sent."""
    monkeypatch.setattr(concerned, "MAX_LATER", 1 if seed % 4 == 0 else 16)
    chance = random.Random(seed)  # noqa: S311  # an order that can be repeated, no secret
    rosters, copy = Rosters(town), Copy(town)
    await rosters.communication("spring")
    at_s = {"b0": -95 * 24 * 3600, "b1": 0, "b2": 20, "b3": 40, "b4": 41, "b5": 60}
    for batch, registered_s in at_s.items():
        await rosters.batch("spring", batch, at_us=ARRIVED_US + registered_s * SECOND_US)
    addresses = ["one@example.com", "two@example.com", ""]
    for number in range(50):
        if chance.random() < 0.5:
            some = chance.sample(addresses, chance.choice([1, 1, 2]))
            destinations = [("sendgrid", one) for one in some]
            await rosters.member(copy, chance.choice(list(at_s)), f"k{chance.randrange(4)}", destinations)
        else:
            sent_s = at_s[chance.choice(list(at_s))] + chance.choice([-30, -10, -1, 0, 1, 10])
            names = {"batchId": chance.choice(list(at_s)), "memberKey": f"k{chance.randrange(4)}"}
            named = {name: value for name, value in names.items() if chance.random() < 0.3}
            fact = sent(number, ARRIVED_US + sent_s * SECOND_US, recipient=chance.choice(addresses), **named)
            await copy.store.commit([fact], [])
        await rosters.checked()
