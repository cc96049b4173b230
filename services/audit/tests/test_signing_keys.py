"""The installation's keys: made once, rotated, and encrypted."""

from __future__ import annotations

import json

import msgspec
import pytest
from backhaul_audit.digests.keys import PURPOSE, MongoKeys
from backhaul_common.errors import BackhaulError
from backhaul_common.names import AUDIT_DIGESTS_COLLECTION, AUDIT_KEYS_COLLECTION
from backhaul_common.secretkeys import SecretRenewal
from backhaul_common.secrets import SecretBox
from backhaul_common.store_format import StoreFormat
from backhaul_digests.line import DigestLine, to_object
from backhaul_digests.signing import SigningKey, key_id
from backhaul_proto.secretkeys.v1.secretkeys_pb2 import RenewSecretsRequest
from cryptography.fernet import Fernet
from digests_rig import BOX_KEYS, Rig, together
from signed_world import HOUR_US


async def test_one_key_is_made_by_whoever_is_first(digesting: Rig) -> None:
    found = await together(*(digesting.keys.present() for _ in range(8)))
    assert len({key.id for key in found}) == 1
    (public,) = await digesting.keys.all()
    assert (public.id, public.public) == (found[0].id, found[0].public)
    assert public.id == key_id(public.public)
    row = await digesting.database[AUDIT_KEYS_COLLECTION].find_one({})
    assert row is not None
    private = found[0].private.private_bytes_raw()
    assert private not in json.dumps(row, default=repr).encode()
    assert found[0].to_text() not in json.dumps(row, default=repr)
    assert SigningKey.from_text(SecretBox(BOX_KEYS).of(PURPOSE).decrypt(row["private"])).id == public.id


async def test_rotation_keeps_every_key_and_what_it_signed(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    await digesting.seal(acme)
    await digesting.hour()
    first = (await digesting.keys.all())[0]
    rotated = await together(*(digesting.keys.rotate() for _ in range(4)))
    assert len({one.id for one in rotated}) == 4
    await digesting.hour()
    kept = await digesting.keys.all()
    assert len(kept) == 5
    assert kept[-1] == first
    rows = await digesting.rows(acme)
    assert [row["key_id"] for row in rows] == [first.id, kept[0].id]
    assert (await digesting.verified(acme))[0] == []


async def test_a_key_that_cannot_be_decrypted_is_said_and_waited_for(digesting: Rig) -> None:
    await digesting.keys.present()
    acme = await digesting.register("acme")
    digesting.now_us += HOUR_US
    right = digesting.keys
    digesting.keys = MongoKeys(digesting.database, SecretBox([Fernet.generate_key().decode()]), digesting.clock)
    with pytest.raises(BackhaulError, match="cannot be decrypted"):
        await digesting.keys.present()
    assert not await digesting.maker().make_due()
    assert await digesting.rows(acme) == []
    digesting.keys = right
    assert await digesting.maker().make_due()
    assert len(await digesting.rows(acme)) == 1


async def test_keys_follow_the_ring_so_that_an_old_key_can_leave_it(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    await digesting.hour()
    await digesting.keys.rotate()
    before = await digesting.keys.present()
    newer = Fernet.generate_key().decode()
    both = MongoKeys(digesting.database, SecretBox([newer, *BOX_KEYS]), digesting.clock)
    stored = [row async for row in digesting.database[AUDIT_KEYS_COLLECTION].find({})]
    await together(*(both.renew() for _ in range(3)))
    renewed = [row async for row in digesting.database[AUDIT_KEYS_COLLECTION].find({})]
    assert [row.pop("private") for row in stored] != [row.pop("private") for row in renewed]
    assert stored == renewed

    digesting.keys = MongoKeys(digesting.database, SecretBox([newer]), digesting.clock)
    assert (await digesting.keys.present()).id == before.id
    await digesting.hour()
    assert (await digesting.verified(acme))[0] == []
    # Nothing is written where the ring is as it was, nor by a ring that fits none.
    unchanged = await digesting.database[AUDIT_KEYS_COLLECTION].find({}).to_list(None)
    for ring in ([newer], [Fernet.generate_key().decode()]):
        await MongoKeys(digesting.database, SecretBox(ring), digesting.clock).renew()
        assert await digesting.database[AUDIT_KEYS_COLLECTION].find({}).to_list(None) == unchanged


async def test_the_platform_team_has_them_follow_the_ring_without_a_restart(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    await digesting.hour()
    await digesting.keys.rotate()
    newer = Fernet.generate_key().decode()
    box = SecretBox([newer, *BOX_KEYS])
    kept = MongoKeys(digesting.database, box, digesting.clock).kept
    renewal = SecretRenewal(box, StoreFormat(digesting.database), [kept])
    for renewed, current in ((2, 0), (0, 2)):
        answer = await renewal.some(RenewSecretsRequest(key_id=box.key_id))
        assert (answer.renewed, answer.current, answer.older, list(answer.unreadable)) == (renewed, current, 0, [])
    digesting.keys = MongoKeys(digesting.database, SecretBox([newer]), digesting.clock)
    await digesting.hour()
    assert (await digesting.verified(acme))[0] == []


@pytest.mark.parametrize("private", ["none of the ring's", "another key's", "a channel's secret"])
async def test_a_past_that_is_signed_anew_with_a_key_put_into_the_database_is_found(
    digesting: Rig, private: str
) -> None:
    acme = await digesting.register("acme")
    await digesting.seal(acme)
    await digesting.hour()
    (row,) = await digesting.rows(acme)
    (genuine,) = await digesting.database[AUDIT_KEYS_COLLECTION].find({}).to_list(None)
    forging = SigningKey.new()
    boxed = {
        "none of the ring's": SecretBox([Fernet.generate_key().decode()]).encrypt(forging.to_text()),
        "another key's": genuine["private"],
        # Whoever may set up a channel chooses the text of its secret, and finds it encrypted in the database.
        "a channel's secret": SecretBox(BOX_KEYS).encrypt(forging.to_text()),
    }[private]
    # Whoever can write to bucket and database puts there whatever they like, but cannot encrypt with the ring's keys.
    forged_row = {"_id": forging.id, "number": 0, "public": forging.public, "private": boxed, "created_at_us": 1}
    await digesting.database[AUDIT_KEYS_COLLECTION].insert_one(forged_row)
    said = msgspec.json.decode(row["line"], type=DigestLine)
    forged = forging.sign(msgspec.structs.replace(said, digest_public_key_id=forging.id, files=[]))
    await digesting.bucket.delete(row["key"])
    assert await digesting.bucket.create(row["key"], to_object(forged.line, forged.key_id, forged.signature), {})
    change = {name: getattr(forged, name) for name in ("line", "hash", "key_id", "signature", "files")}
    await digesting.database[AUDIT_DIGESTS_COLLECTION].update_one({"_id": row["_id"]}, {"$set": change})

    findings, summary = await digesting.verified(acme)
    assert [one.problem for one in findings] == ["key_not_found"]
    assert (summary.digests, summary.valid_digests) == (1, 0)
    assert [key.id for key in await digesting.keys.all()] == [genuine["_id"]]
