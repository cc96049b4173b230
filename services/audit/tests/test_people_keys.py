"""Keys of people: whose they are, that they can be destroyed, and that nobody else's are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_audit.erasing import ErasesKeys
from backhaul_audit.people import GRACE_US
from backhaul_audit.peoplesecrets import PURPOSE
from backhaul_audit.ports import Erased
from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import AUDIT_PEOPLE_COLLECTION
from backhaul_common.secretkeys import SecretRenewal
from backhaul_common.secrets import SecretBox
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenantdata import Asked
from backhaul_proto.secretkeys.v1.secretkeys_pb2 import RenewSecretsRequest
from cryptography.fernet import Fernet
from filing_rig import KEY
from people_rig import Rig

ADA = "ada@example.com"


@pytest.fixture
async def people(mongo_server: Any, mongo_database: str) -> AsyncIterator[Rig]:
    client = mongo.connect(mongo_server.uri)
    rig = Rig(mongo.database(client, mongo_database))
    await StoreFormat(rig.database).ensure()
    await rig.prepare()
    yield rig
    client.close()


async def test_all_copies_have_one_key_of_a_person_in_any_spelling(people: Rig) -> None:
    acme = await people.register("acme")
    copies = [people.copy() for _ in range(4)]
    keys = await asyncio.gather(
        *(copy.key(acme, spelling) for copy in copies for spelling in (ADA, "Ada@EXAMPLE.com", "Ada <ada@example.com>"))
    )
    assert len({(one.key_id, one.key) for one in keys}) == 1
    assert len(keys[0].key) == 64
    assert (await copies[0].key(acme, "bob@example.com")).key != keys[0].key
    assert await copies[1].people.by_id(acme, [keys[0].key_id, "0" * 16]) == {keys[0].key_id: keys[0].key}


async def test_what_is_stored_tells_neither_addresses_nor_keys(people: Rig) -> None:
    acme = await people.register("acme")
    copy = people.copy()
    key = await copy.key(acme, ADA)
    await copy.people.erase(acme, "bob@example.com")
    secrets = await copy.secrets.known(acme)
    assert secrets is not None
    stored = repr(await people.rows()).encode()
    for secret in (b"ada", b"bob", b"example", secrets.pepper.hex().encode(), repr(key.key)[2:30].encode()):
        assert secret not in stored
    assert repr(key.key) not in repr(key)
    assert repr(secrets.pepper) not in repr(secrets)


async def test_two_tenants_have_nothing_in_common(people: Rig) -> None:
    acme, globex = await people.register("acme"), await people.register("globex")
    copy = people.copy()
    ours, theirs = await copy.key(acme, ADA), await copy.key(globex, ADA)
    assert (await copy.name(acme, ADA)).mac != (await copy.name(globex, ADA)).mac
    assert ours.key != theirs.key
    assert await copy.people.by_id(acme, [theirs.key_id]) == {}
    assert (await copy.people.erase(acme, ADA)).destroyed
    assert await copy.people.by_id(acme, [ours.key_id]) == {}
    assert await copy.people.by_id(globex, [theirs.key_id]) == {theirs.key_id: theirs.key}


async def test_erasure_destroys_the_key_for_every_copy_and_may_be_repeated(people: Rig) -> None:
    acme = await people.register("acme")
    at = 1_000_000_000_000_000
    first, second = people.copy(clock=lambda: at), people.copy(clock=lambda: at - 5_000_000)
    was = await first.key(acme, ADA)
    assert await second.people.erase(acme, " ADA@example.com ") == Erased(
        destroyed=True, before_us=at - 5_000_000 + GRACE_US
    )
    assert await first.people.by_id(acme, [was.key_id]) == {}
    assert await first.people.erase(acme, ADA) == Erased(destroyed=False, before_us=at + GRACE_US)
    # A clock that is behind takes nothing of it back.
    assert await second.people.erase(acme, ADA) == Erased(destroyed=False, before_us=at + GRACE_US)
    again = await second.key(acme, ADA)
    assert again.key != was.key
    assert again.key_id != was.key_id
    assert again.erased_before_us == at + GRACE_US


async def test_who_was_never_filed_is_erased_too(people: Rig) -> None:
    """What of theirs still waits to be filed is not filed any more."""
    acme = await people.register("acme")
    copy = people.copy()
    erased = await copy.people.erase(acme, ADA)
    assert not erased.destroyed
    name = await copy.name(acme, ADA)
    assert (await copy.people.find([name]))[name].erased_before_us == erased.before_us
    assert (await copy.people.find([name]))[name].key_id == ""


async def test_an_erasure_while_keys_are_made_leaves_none_from_before(people: Rig) -> None:
    """Whatever comes first, no key from before the last erasure is there afterwards."""
    acme = await people.register("acme")
    copies = [people.copy(), people.copy()]
    seen: set[str] = set()
    for _ in range(10):
        seen.add((await copies[0].key(acme, ADA)).key_id)
        key, erased = await asyncio.gather(copies[0].key(acme, ADA), copies[1].people.erase(acme, ADA))
        now = await copies[0].key(acme, ADA)
        assert erased.destroyed
        assert now.erased_before_us == erased.before_us
        assert now.key_id not in seen
        if key.key_id == now.key_id:
            assert key.erased_before_us == erased.before_us


@pytest.mark.parametrize("address", ["", "  ", "\n"])
async def test_nobody_cannot_be_erased(people: Rig, address: str) -> None:
    """Their key is that of all that names nobody."""
    acme = await people.register("acme")
    copy = people.copy()
    key = await copy.key(acme, "")
    with pytest.raises(BackhaulError) as caught:
        await copy.people.erase(acme, address)
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "address")
    assert await copy.people.by_id(acme, [key.key_id]) == {key.key_id: key.key}


async def test_a_tenant_that_goes_gets_nothing_any_more(people: Rig) -> None:
    acme, globex = await people.register("acme"), await people.register("globex")
    copy, late = people.copy(), people.copy()
    await copy.key(acme, ADA)
    name = await copy.name(acme, "bob@example.com")
    await people.register("acme", status="deleting")
    assert await copy.people.make([name, other := await copy.name(globex, ADA)]) == await copy.people.find([other])
    with pytest.raises(BackhaulError) as caught:
        await copy.people.erase(acme, ADA)
    assert caught.value.code is Code.NOT_FOUND
    initech = await people.register("initech", status="deleting")
    assert await late.secrets.made(initech) is None
    assert {row["registration"] for row in await people.rows()} == {acme, globex}
    assert await people.database[AUDIT_PEOPLE_COLLECTION].count_documents({"registration": acme}) == 2


async def test_a_database_that_was_set_back_gets_no_key_that_nobody_could_read(people: Rig) -> None:
    """What a running copy remembers is of a time that never was."""
    acme = await people.register("acme")
    copy = people.copy()
    rows = people.database[AUDIT_PEOPLE_COLLECTION]
    for _ in range(2):
        await copy.key(acme, ADA)
        await rows.delete_many({})
        with pytest.raises(BackhaulError) as caught:
            await copy.people.make([await copy.name(acme, ADA)])
        assert caught.value.code is Code.UNAVAILABLE
        assert await people.rows() == []
        key = await copy.key(acme, ADA)
        assert await people.copy().people.by_id(acme, [key.key_id]) == {key.key_id: key.key}
    await rows.delete_many({})
    with pytest.raises(BackhaulError) as caught:
        await copy.people.erase(acme, ADA)
    assert caught.value.code is Code.UNAVAILABLE
    assert not (await copy.people.erase(acme, ADA)).destroyed


async def test_another_ring_of_keys_asks_for_one_document_a_tenant(people: Rig) -> None:
    """The old key may go as soon as a copy has begun with the new one in front."""
    acme = await people.register("acme")
    key = await people.copy().key(acme, ADA)
    before = await people.rows()
    new = Fernet.generate_key().decode()
    with pytest.raises(BackhaulError) as caught:
        await people.copy(new).people.by_id(acme, [key.key_id])
    assert caught.value.code is Code.FAILED_PRECONDITION
    await people.copy(new).secrets.renew()
    assert await people.rows() == before
    await people.copy(new, KEY).secrets.renew()
    renewed = await people.rows()
    assert [row["_id"] for row in renewed if row not in before] == [f"secrets/{acme}"]
    await people.copy(new, KEY).secrets.renew()
    assert await people.rows() == renewed
    assert await people.copy(new).people.by_id(acme, [key.key_id]) == {key.key_id: key.key}


async def test_the_platform_team_has_them_follow_the_ring_without_a_restart(people: Rig) -> None:
    acme, globex = await people.register("acme"), await people.register("globex")
    key = await people.copy().key(acme, ADA)
    await people.copy().key(globex, ADA)
    new, lost = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    gone = {"_id": "secrets/initech.1", "registration": "initech.1", "made_at_us": 1}
    await people.database[AUDIT_PEOPLE_COLLECTION].insert_one(
        gone | {"secrets": SecretBox([lost]).of(PURPOSE).encrypt("x")}
    )
    box = SecretBox([new, KEY])
    renewal = SecretRenewal(box, StoreFormat(people.database), [people.copy(new, KEY).secrets.kept])
    for renewed, current in ((2, 0), (0, 2)):
        answer = await renewal.some(RenewSecretsRequest(key_id=box.key_id))
        assert (answer.renewed, answer.current, answer.older, answer.next) == (renewed, current, 0, "")
        (unreadable,) = answer.unreadable
        assert (unreadable.tenant_id, unreadable.id, unreadable.field) == ("initech", "secrets/initech.1", "secrets")
    assert await people.copy(new).people.by_id(acme, [key.key_id]) == {key.key_id: key.key}


async def test_more_people_than_one_transaction_makes(people: Rig) -> None:
    acme = await people.register("acme")
    copy = people.copy()
    names = [await copy.name(acme, f"{number}@example.com") for number in range(2500)]
    made = await copy.people.make(names)
    assert len({one.key for one in made.values()}) == 2500
    assert await copy.people.make(names[::-1]) == made
    assert await people.copy().people.find(names) == made


async def test_who_is_erased_from_every_service_loses_their_key_and_what_is_in_clear_is_named(people: Rig) -> None:
    class Files:
        async def plain_channels(self, registration: str) -> list[str]:
            return ["twilio"]

    acme = await people.register("acme")
    copy = people.copy()
    await copy.key(acme, ADA)
    erases = ErasesKeys(copy.people, Files())
    first, again = [await erases.erase(Asked("acme", acme, "ADA@example.com", 1)) for _ in range(2)]
    assert (first.erased, again.erased) == ({"keys": 1}, {})
    assert 1 < first.before_us <= again.before_us
    (kept,) = again.kept
    assert "twilio" in kept.reason
    with pytest.raises(BackhaulError) as missing:
        await erases.erase(Asked("acme", acme, " ", 1))
    assert (missing.value.code, missing.value.field) == (Code.INVALID_ARGUMENT, "address")
