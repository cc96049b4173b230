"""Digests as they are made: one for each hour, whoever makes it, and in its place whatever dies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import bson
import pytest
from backhaul_audit.digests import store
from backhaul_audit.digests.composing import Covered, Deletion, composed
from backhaul_audit.digests.store import Due
from backhaul_audit.documents import plan_document, sealing, to_sealed
from backhaul_audit.model import Content, PileKey, Plan, Shape
from backhaul_audit.ports import VerifyQuery
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.names import (
    AUDIT_DIGESTS_COLLECTION,
    AUDIT_FILES_COLLECTION,
    AUDIT_KEYS_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_digests.line import parse, to_object
from backhaul_digests.model import Chain, ChainKey
from backhaul_digests.signing import SigningKey
from digests_rig import Here, Rig, together
from signed_world import HOUR_US, START_US
from structlog.testing import capture_logs


def test_numbers_that_are_large_are_signed_as_they_come_from_the_database() -> None:
    """PyMongo has a type of its own for whatever does not fit into 32 bits."""
    large = 2**31
    of = ChainKey("acme.0123456789abcdef", Chain.EVENTS)
    plan = Plan(
        id="f1",
        pile=PileKey(of.registration, "twilio", Chain.EVENTS),
        tenant_id="acme",
        destination="",
        bucket="backhaul",
        key="f1.json.gz",
        shape=Shape(folder="events", gzip=True),
        first=large,
        last=large,
    )
    content = Content(
        events=large,
        bytes=large,
        sha256="",
        inflated_bytes=large,
        inflated_sha256="",
        first_at_us=START_US,
        last_at_us=START_US,
    )
    kept = bson.decode(bson.encode(plan_document(plan, START_US) | sealing(content, large, START_US)))
    row = bson.decode(bson.encode({"number": large, "at_us": START_US}))
    covered = Covered(
        of=of,
        tenant_id="acme",
        bucket="backhaul",
        from_us=START_US,
        to_us=START_US + HOUR_US,
        files=[to_sealed(kept)],
        deletions=[Deletion(row["number"], "f0", row["at_us"], "retention")],
    )
    key = SigningKey.new()
    digest = composed(covered, None, key)
    read = parse(to_object(digest.line, digest.key_id, digest.signature))
    assert isinstance(read, tuple), read
    said = json.loads(digest.line)
    (file,) = said["files"]
    names = ("number", "events", "bytes", "inflatedBytes", "firstPosition", "lastPosition")
    assert [file[name] for name in names] == [large] * len(names)
    assert said["deletions"][0]["number"] == large


async def test_each_hour_has_a_digest_though_nothing_happened(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    await digesting.hour()
    file = await digesting.seal(acme, b'{"a":1}', b'{"b":2}')
    await digesting.hour()
    await digesting.hour()

    rows = await digesting.rows(acme)
    assert [(row["from_us"], row["to_us"], row["files"], row["uploaded"]) for row in rows] == [
        (START_US, START_US + HOUR_US, 0, True),
        (START_US + HOUR_US, START_US + 2 * HOUR_US, 1, True),
        (START_US + 2 * HOUR_US, START_US + 3 * HOUR_US, 0, True),
    ]
    findings, told = await digesting.verified(acme)
    assert findings == []
    assert (told.digests, told.valid_digests, told.files, told.valid_files) == (3, 3, 1, 1)
    assert told.found == (START_US, START_US + 3 * HOUR_US)
    said = json.loads(rows[1]["line"])
    assert said["files"][0]["object"] == file.plan.key
    assert said["files"][0]["events"] == 2
    stored = await digesting.database[AUDIT_FILES_COLLECTION].find_one({"key": file.plan.key})
    assert stored is not None
    assert stored["digest"] == 2
    of = ChainKey(acme.registration, Chain.EVENTS)
    assert [one.number for one in (await digesting.digests.page(of, 2, ""))[0]] == [3, 2]
    head = await digesting.digests.head(of)
    assert head is not None
    assert (head.number, head.line) == (3, rows[2]["line"])
    assert await digesting.digests.get(of, 4) is None
    assert await digesting.digests.chains(acme.registration) == [of]


async def test_every_digest_is_told_of_with_its_hash(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    await digesting.hour()
    await digesting.hour()
    rows = await digesting.rows(acme)
    notices = await digesting.notices()
    assert [notice.type for notice in notices] == ["audit.digest"] * 2
    assert [{one.name: one.value for one in notice.attributes} for notice in notices] == [
        {"chain": "events", "number": str(row["number"]), "hash": row["hash"], "key": row["key"]} for row in rows
    ]
    assert digesting.told.times == 2
    heads = [{one.name: one.value for one in notice.attributes}["hash"] for notice in notices]
    assert (await digesting.verified(acme, VerifyQuery(heads=heads)))[0] == []


async def test_after_downtime_one_digest_covers_all_of_it(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    await digesting.hour()
    await digesting.seal(acme)
    await digesting.hour(48)
    rows = await digesting.rows(acme)
    assert [row["to_us"] - row["from_us"] for row in rows] == [HOUR_US, 48 * HOUR_US]
    assert (await digesting.verified(acme))[0] == []


async def test_copies_at_once_make_one_digest(digesting: Rig) -> None:
    tenants = [await digesting.register(name) for name in ("acme", "globex", "initech")]
    for tenant in tenants:
        await digesting.seal(tenant)
        await digesting.seal(tenant, chain=Chain.BACKFILL)
    for hour in (1, 2, 3):
        digesting.now_us = START_US + hour * HOUR_US
        makers = [digesting.maker() for _ in range(4)]
        assert all(await together(*(maker.make_due() for maker in makers)))
        await together(*(maker.upload() for maker in makers))
    for tenant in tenants:
        for chain in Chain:
            rows = await digesting.rows(tenant, chain)
            assert [row["number"] for row in rows] == [1, 2, 3]
            assert [row["files"] for row in rows] == [1, 0, 0]
            assert {row["uploaded"] for row in rows} == {True}
        findings, told = await digesting.verified(tenant)
        assert findings == []
        assert (told.digests, told.files) == (6, 2)
    assert len(await digesting.notices()) == 18
    assert await digesting.database[AUDIT_KEYS_COLLECTION].count_documents({}) == 1


class DiedError(BaseException):
    """A process ends here."""


class Deadly:
    """A bucket in front of another one, at which a copy dies before or after an upload."""

    def __init__(self, bucket: Any, *, after: bool) -> None:
        self._bucket = bucket
        self._after = after
        self.bucket = bucket.bucket

    async def create(self, key: str, data: Any, metadata: Mapping[str, str]) -> bool:
        if self._after:
            await self._bucket.create(key, data, metadata)
        raise DiedError


@pytest.mark.parametrize("after", [False, True])
async def test_a_copy_dies_between_the_record_and_its_word_that_it_is_uploaded(digesting: Rig, after: bool) -> None:
    acme = await digesting.register("acme")
    await digesting.seal(acme)
    digesting.now_us += HOUR_US
    dying = digesting.maker(Here(Deadly(digesting.bucket, after=after)))
    assert await dying.make_due()
    with pytest.raises(DiedError):
        await dying.upload()
    (row,) = await digesting.rows(acme)
    assert row["uploaded"] is False

    assert await digesting.maker().upload()
    (row,) = await digesting.rows(acme)
    assert row["uploaded"] is True
    stored = b"".join([piece async for piece in digesting.bucket.read(row["key"])])
    assert stored == to_object(row["line"], row["key_id"], row["signature"])
    assert (await digesting.verified(acme))[0] == []


class Away:
    """A bucket that is away."""

    def __init__(self, name: str) -> None:
        self.bucket = name

    async def create(self, key: str, data: Any, metadata: Mapping[str, str]) -> bool:
        raise BackhaulError(Code.UNAVAILABLE, "Object storage does not answer.")


async def test_digests_are_signed_while_the_bucket_is_away_and_put_there_later(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    away = digesting.maker(Here(Away(digesting.bucket.bucket)))
    for _ in range(3):
        digesting.now_us += HOUR_US
        assert await away.make_due()
        assert not await away.upload()
    assert [row["uploaded"] for row in await digesting.rows(acme)] == [False] * 3
    assert len(await digesting.notices()) == 3
    await digesting.hour()
    assert [row["uploaded"] for row in await digesting.rows(acme)] == [True] * 4
    assert (await digesting.verified(acme))[0] == []


async def test_something_else_in_a_digests_place_is_left_there_and_found(digesting: Rig) -> None:
    acme, globex = await digesting.register("acme"), await digesting.register("globex")
    digesting.now_us += HOUR_US
    maker = digesting.maker()
    assert await maker.make_due()
    (row,) = await digesting.rows(acme)
    assert await digesting.bucket.create(row["key"], b"forged\n", {})
    assert not await maker.upload()
    assert [row["uploaded"] for row in await digesting.rows(acme)] == [False]
    assert [row["uploaded"] for row in await digesting.rows(globex)] == [True]
    findings, _ = await digesting.verified(acme)
    assert [finding.problem for finding in findings] == ["invalid_format"]


async def test_nothing_is_signed_for_a_tenant_that_is_gone(digesting: Rig) -> None:
    acme, globex = await digesting.register("acme"), await digesting.register("globex")
    await digesting.seal(acme)
    digesting.now_us += HOUR_US
    maker = digesting.maker(Here(Away(digesting.bucket.bucket)))
    assert await maker.make_due()
    tenants = digesting.database[TENANTS_COLLECTION]
    await tenants.update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    # Somebody else has the id of the other one.
    await tenants.update_one({"_id": "globex"}, {"$set": {"registration": "globex.other"}})
    del digesting.tenants.tenants["globex"]
    digesting.now_us += HOUR_US
    assert await digesting.maker().make_due()
    assert await digesting.maker().upload()
    assert await digesting.rows(acme) == []
    assert await digesting.rows(globex) == []
    assert [key async for key in digesting.bucket.keys(f"digests/{acme.registration}/")] == []
    assert len(await digesting.notices()) == 2


async def test_files_of_the_next_hour_wait_for_its_digest(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    due_us = START_US + HOUR_US
    await digesting.seal(acme, at_us=due_us - 1)
    await digesting.seal(acme, at_us=due_us)
    # The clock of the copy that sealed it was behind. What comes behind a file of the next hour is the next hour's.
    await digesting.seal(acme, at_us=due_us - 5)
    digesting.now_us = due_us + 10
    assert await digesting.maker().make_due()
    assert [row["files"] for row in await digesting.rows(acme)] == [1]
    await digesting.hour()
    assert [row["files"] for row in await digesting.rows(acme)] == [1, 2]
    assert (await digesting.verified(acme))[0] == []


async def test_more_files_than_one_digest_lists_lie_in_several(digesting: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_FILES", 3)
    acme = await digesting.register("acme")
    for second in range(8):
        await digesting.seal(acme, at_us=START_US + second % 2)
    await digesting.hour()
    rows = await digesting.rows(acme)
    assert [row["files"] for row in rows] == [3, 3, 2]
    assert rows[-1]["to_us"] == START_US + HOUR_US
    findings, told = await digesting.verified(acme)
    assert findings == []
    assert (told.digests, told.files) == (3, 8)


async def test_the_last_digest_is_missed_since_the_service_knows_of_it(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    await digesting.hour()
    await digesting.hour()
    key = (await digesting.rows(acme))[-1]["key"]
    assert await digesting.bucket.delete(key) is None
    findings, _ = await digesting.verified(acme)
    assert [(one.name, one.problem) for one in findings] == [(f"{digesting.bucket.bucket}/{key}", "not_found")]


async def test_heads_that_are_none_are_refused(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    for heads in (["x"], ["0" * 63], ["0" * 64] * 101):
        with pytest.raises(BackhaulError) as refused:
            await digesting.verified(acme, VerifyQuery(heads=heads))
        assert refused.value.field == "heads"


async def test_a_bucket_that_is_away_ends_a_verification_with_one_word_about_it(
    digesting: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_prefix: str) -> NoReturn:
        raise unavailable("The bucket")

    acme = await digesting.register("acme")
    await digesting.hour()
    monkeypatch.setattr(digesting.bucket, "keys", away)
    with capture_logs() as lines, pytest.raises(BackhaulError) as refused:
        await digesting.verified(acme)
    # The caller is told. The log has no failure at a stop, which there was not.
    assert (refused.value.code, lines) == (Code.UNAVAILABLE, [])


async def test_a_chain_that_is_gone_meanwhile_is_no_ones(digesting: Rig) -> None:
    acme = await digesting.register("acme")
    nobody = ChainKey("nobody.1", Chain.EVENTS)
    key = await digesting.keys.present()
    due = Due(nobody, "nobody", 0)
    assert await digesting.digests.make(due, "bucket", key, START_US, START_US + HOUR_US) is None
    await digesting.digests.begin(nobody, "nobody")
    assert await digesting.digests.begun() == set()
    assert await digesting.rows(acme) == []


async def test_a_chain_of_which_no_digest_can_be_made_holds_up_no_other(digesting: Rig) -> None:
    acme, zeta = await digesting.register("acme"), await digesting.register("zeta")
    await digesting.hour()
    broken = {"registration": acme.registration}
    await digesting.database[AUDIT_DIGESTS_COLLECTION].update_one(broken, {"$unset": {"hash": True}})
    digesting.now_us += HOUR_US
    assert not await digesting.maker().make_due()
    assert (len(await digesting.rows(acme)), len(await digesting.rows(zeta))) == (1, 2)
