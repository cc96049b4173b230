"""What is encrypted comes under the first key, whoever changes it meanwhile, and nothing else changes by it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.secretkeys import Kept, SecretRenewal, renewal
from backhaul_common.secrets import SecretBox
from backhaul_common.store_format import StoreFormat
from backhaul_proto.secretkeys.v1 import secretkeys_pb2 as pb
from cryptography.fernet import Fernet
from pymongo import MongoClient

OLD, NEW, LOST = (Fernet.generate_key().decode() for _ in range(3))
BEFORE, BOTH, AFTER = SecretBox([OLD]), SecretBox([NEW, OLD]), SecretBox([NEW])
FIELDS = ("channels.*.secrets.*", "channels.*.key", "private")


@pytest.fixture(autouse=True)
async def _format(collection: mongo.Collection) -> None:
    await StoreFormat(database_of(collection)).ensure()


def database_of(rows: mongo.Collection) -> mongo.Database:
    found: Any = rows.database  # which motor's types take for a collection
    database: mongo.Database = found
    return database


def document(id_: str, box: SecretBox = BEFORE) -> Document:
    channel = {
        "secrets": [box.encrypt("one"), "", box.encrypt("two")],
        "label": box.encrypt("no secret's place"),
        "key": box.encrypt("three"),
        "unknown": {"b": 1, "a": [2.5, None]},
    }
    return {"_id": id_, "whose": "acme", "revision": 3, "channels": {"twilio": channel, "empty": {}}, "name": "n"}


def of(rows: mongo.Collection, box: SecretBox = BOTH, *others: mongo.Collection, **more: Any) -> SecretRenewal:
    kept = [Kept(each, box, FIELDS, itemgetter("whose"), whose=["whose"], **more) for each in (rows, *others)]
    return SecretRenewal(BOTH, StoreFormat(database_of(rows)), kept)


async def whole(asked: SecretRenewal, *, look: bool = False) -> tuple[int, int, int, list[str]]:
    """Renewed, current, older, and what is unreadable, of all calls that it takes."""
    renewed, current, older, unreadable, after = 0, 0, 0, list[str](), ""
    while True:
        answer = await asked.some(pb.RenewSecretsRequest(key_id=BOTH.key_id, look=look, after=after))
        renewed, current, older = renewed + answer.renewed, current + answer.current, older + answer.older
        unreadable += [f"{one.tenant_id} {one.id} {one.field}" for one in answer.unreadable]
        if not (after := answer.next):
            return renewed, current, older, unreadable


async def stored(rows: mongo.Collection) -> list[Document]:
    return await rows.find({}).sort("_id", 1).to_list(None)


def opened(found: Sequence[Document], box: SecretBox) -> list[list[str]]:
    """The secrets of the channel, of each document."""
    channels = [each["channels"]["twilio"] for each in found]
    return [[box.decrypt(text) for text in (*filter(None, one["secrets"]), one["key"])] for one in channels]


async def test_what_an_older_key_encrypted_comes_under_the_first_and_nothing_else_changes(
    collection: mongo.Collection,
) -> None:
    await collection.insert_many([document("a"), document("b", BOTH), {"_id": "c", "name": "without"}])
    before = await stored(collection)
    assert await whole(of(collection, revised=True), look=True) == (0, 3, 3, [])
    assert await stored(collection) == before
    assert await whole(of(collection, revised=True)) == (3, 3, 0, [])
    after = await stored(collection)
    assert opened(after[:2], AFTER) == [["one", "two", "three"]] * 2
    assert after[1:] == before[1:]
    # The revision grows by what was written, and what is no secret's place is as it was.
    assert after[0]["revision"] == 4
    for one in (before[0], after[0]):
        channel = one["channels"]["twilio"]
        assert channel["secrets"][1] == ""
        del one["revision"], channel["secrets"], channel["key"]
    assert after[0] == before[0]
    assert list(after[0]["channels"]["twilio"]) == ["label", "unknown"]
    # Once more there is nothing to do.
    written = await stored(collection)
    assert await whole(of(collection, revised=True)) == (0, 6, 0, [])
    assert await stored(collection) == written


async def test_what_no_key_decrypts_is_named_and_left_and_the_rest_of_it_is_renewed(
    collection: mongo.Collection,
) -> None:
    lost, odd = document("lost"), document("odd")
    lost["channels"]["twilio"]["secrets"][2] = SecretBox([LOST]).encrypt("a secret that nobody has")
    lost["private"] = "é"
    odd["channels"] = {"twilio": 5, "sendgrid": {"secrets": "text", "key": 5}, "mpulse": {"secrets": [{"a": 1}, 7]}}
    await collection.insert_many([lost, odd])
    places = ["acme lost channels.twilio.secrets.2", "acme lost private"]
    assert await whole(of(collection)) == (2, 0, 0, places)
    assert await whole(of(collection)) == (0, 2, 0, places)
    after = await stored(collection)
    assert after[1] == odd
    assert after[0]["private"] == "é"
    assert after[0]["revision"] == 3
    assert AFTER.decrypt(after[0]["channels"]["twilio"]["secrets"][0]) == "one"


@pytest.mark.parametrize("bound", ["documents", "time", "unreadable"])
async def test_whoever_is_cut_short_goes_on_or_begins_anew(
    collection: mongo.Collection, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    other = collection.database["others"]
    for rows in (collection, other):
        await rows.insert_many([document(f"{number}") for number in range(5)] + [document("6", SecretBox([LOST]))])
    limits = {"documents": ("MAX_DOCUMENTS", 2), "time": ("MAX_CALL_S", -1.0), "unreadable": ("MAX_UNREADABLE", 0)}
    monkeypatch.setattr(renewal, *limits[bound])
    asked = of(collection, BOTH, other)
    # Two calls are answered, and whoever asked dies. The next one begins anew, and does what is left.
    first = await asked.some(pb.RenewSecretsRequest(key_id=BOTH.key_id))
    second = await asked.some(pb.RenewSecretsRequest(key_id=BOTH.key_id, after=first.next))
    assert first.next
    done = first.renewed + second.renewed
    assert 0 < done < 30
    renewed, current, older, unreadable = await whole(asked)
    assert (renewed, current, older, len(unreadable)) == (30 - done, done, 0, 6)
    assert opened((await stored(collection))[:5] + (await stored(other))[:5], AFTER) == [["one", "two", "three"]] * 10


@pytest.mark.parametrize("revised", [False, True])
async def test_many_at_once_renew_each_secret_once(collection: mongo.Collection, revised: bool) -> None:
    await collection.insert_many([document(f"{number:02}") for number in range(20)])
    found = await asyncio.gather(*(whole(of(collection, revised=revised)) for _ in range(5)))
    assert [sum(one) for one in zip(*(each[:3] for each in found), strict=True)] == [60, 240, 0]
    after = await stored(collection)
    assert opened(after, AFTER) == [["one", "two", "three"]] * 20
    assert {one["revision"] for one in after} == {3 + revised}


class Meanwhile(SecretBox):
    """A ring, while the first secret of which is encrypted anew somebody else changes the document."""

    def __init__(self, change: Any) -> None:
        super().__init__([NEW, OLD])
        self._change = change

    def renewed(self, token: str) -> str:
        change, self._change = self._change, lambda: None
        change()
        return super().renewed(token)


@pytest.mark.parametrize("revised", [False, True])
@pytest.mark.parametrize("change", ["a secret", "another field", "deleted", "registered anew"])
async def test_what_others_change_meanwhile_is_theirs(
    collection: mongo.Collection, mongo_server: Any, revised: bool, change: str
) -> None:
    await collection.insert_one(document("a"))
    theirs = BEFORE.encrypt("theirs")
    with MongoClient[Document](mongo_server.uri) as client:
        rows = client[collection.database.name][collection.name]

        def work() -> None:
            if change in ("deleted", "registered anew"):
                rows.delete_one({"_id": "a"})
            if change == "registered anew":
                rows.insert_one(document("a", AFTER) | {"name": "another's"})
            values = {"a secret": {"channels.twilio.key": theirs}, "another field": {"name": "theirs"}}.get(change)
            if values:
                rows.update_one({"_id": "a"}, {"$set": values, "$inc": {"revision": 1}})

        box = Meanwhile(work)
        counted = await whole(of(collection, box, revised=revised))
    after = await stored(collection)
    if change == "deleted":
        assert (counted, after) == ((0, 0, 0, []), [])
    elif change == "registered anew":
        assert counted == (0, 3, 0, [])
        assert (after[0]["name"], after[0]["revision"]) == ("another's", 3)
    else:
        assert counted == (3, 0, 0, [])
        assert opened(after, AFTER) == [["one", "two", "theirs" if change == "a secret" else "three"]]
        assert after[0]["name"] == ("theirs" if change == "another field" else "n")
        assert after[0]["revision"] == 4 + revised


async def test_one_that_changes_all_the_time_is_left_and_said(
    collection: mongo.Collection, mongo_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "PATIENCE_S", 0.05)
    await collection.insert_one(document("a"))
    with MongoClient[Document](mongo_server.uri) as client:
        rows = client[collection.database.name][collection.name]

        class Always(SecretBox):
            def renewed(self, token: str) -> str:
                rows.update_one({"_id": "a"}, {"$inc": {"revision": 1}})
                return super().renewed(token)

        assert await whole(of(collection, Always([NEW, OLD]), revised=True)) == (0, 0, 3, [])
    assert await whole(of(collection, revised=True)) == (3, 0, 0, [])


async def test_whoever_has_other_keys_is_refused_before_anything_is_written(collection: mongo.Collection) -> None:
    await collection.insert_one(document("a"))
    before = await stored(collection)
    for key_id in ("", BEFORE.key_id, NEW):
        with pytest.raises(BackhaulError, match="The first key here is") as caught:
            await of(collection).some(pb.RenewSecretsRequest(key_id=key_id))
        assert (caught.value.code, caught.value.field) == (Code.FAILED_PRECONDITION, "key_id")
        assert "BACKHAUL_SECRET_KEYS" in caught.value.fix
    assert await stored(collection) == before


@pytest.mark.parametrize("after", ["x", "1/a", "-1/", "²/", "99999/a", "/"])
async def test_a_place_that_no_answer_gave_is_refused(collection: mongo.Collection, after: str) -> None:
    with pytest.raises(BackhaulError) as caught:
        await of(collection).some(pb.RenewSecretsRequest(key_id=BOTH.key_id, after=after))
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "after")


def test_a_keys_id_is_that_of_the_first_and_no_part_of_it() -> None:
    assert BOTH.key_id == AFTER.key_id != BEFORE.key_id
    assert len(AFTER.key_id) == 16
    assert AFTER.of("a purpose").key_id != AFTER.key_id
    assert AFTER.key_id not in NEW
