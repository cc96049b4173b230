"""People in encrypted audit files: who can read them, and what an erasure leaves of them, and of everybody else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_audit.lines import provided
from backhaul_client import FailedPreconditionError
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from pymongo import AsyncMongoClient
from simulators.archive import Archive, ask_for_files, filed, files_of, in_digests, lines_of, verified

if TYPE_CHECKING:
    from backhaul_client.auditmodels import AuditFile
    from backhaul_local.stack import Stack
    from simulators.people import Tenant, Town

Json = dict[str, Any]

ANN, BEN = "+15005550401", "+15005550402"
MAIL = "ann@example.com"


async def _texts(tenant: Tenant, person: str) -> list[bytes]:
    """What Twilio posts of one message to a person, as files have it."""
    sid = new_sid()
    address = tenant.address("Twilio", communicationId="spring")
    posts = [tenant.twilio.status(address, sid, word, to=person) for word in ("sent", "delivered")]
    posts.append(tenant.reply(person, f"where is it? {sid}"))
    await tenant.receive(*posts)
    return [provided(post.body) for post in posts]


async def _stored(archive: Archive, files: Sequence[AuditFile]) -> dict[str, bytes]:
    return {one.key: await archive.get(one.key) for one in files}


async def _decrypted(tenant: Tenant, files: Sequence[AuditFile]) -> list[bytes]:
    """Lines, without their order."""
    lines = []
    for one in files:
        content = b"".join([piece async for piece in tenant.client.audit_content(one.id, decrypted=True)])
        lines += lines_of("", content)
    return sorted(lines)


def _gone(lines: Sequence[bytes]) -> list[Json]:
    """Those of people who are erased, of lines as they are given decrypted."""
    read: list[Json] = [json.loads(line) for line in lines]
    return [line for line in read if line.get("encrypted", "") is None]


async def test_a_person_is_erased_from_signed_files_and_heard_of_again(
    storing_town: Town, storing_installation: Stack, archive: Archive
) -> None:
    tenant, neighbour = [await storing_town.platform.register() for _ in range(2)]
    for one in (tenant, neighbour):
        await ask_for_files(storing_town.platform, one, "Twilio", encrypt_people=True)
    anns, bens, others = await _texts(tenant, ANN), await _texts(tenant, BEN), await _texts(neighbour, ANN)
    files = await in_digests(tenant, await filed(tenant, 6))
    theirs = await filed(neighbour, 3)
    assert all(one.encrypted for one in files)

    # Nobody who has the bucket alone reads who they are, or what they wrote.
    before = await _stored(archive, [*files, *theirs])
    sids = {json.loads(line)["MessageSid"] for line in anns + bens + others}
    everything = b"".join(before.values())
    assert not [word for word in (ANN[1:], BEN[1:], "where is it", *sids) if word.encode() in everything]
    for key, content in before.items():
        for line in map(json.loads, lines_of(key, content)):
            assert set(line) == {"event", "person", "encrypted"}
            assert (line["event"]["channel"], line["event"]["communication_id"]) in [
                ("twilio", "spring"),
                ("twilio", ""),
            ]
    assert await _decrypted(tenant, files) == sorted(anns + bens)

    # By another spelling, and for another channel than the one on which they were written to.
    erased = await tenant.client.erase_person("whatsapp:+1 (500) 555-0401")
    assert (erased.destroyed, erased.plain_channels) == (True, ())
    again = await tenant.client.erase_person(ANN)
    assert again.destroyed is False
    left = await _decrypted(tenant, files)
    assert [line for line in left if line in anns] == []
    assert [line for line in left if line in bens] == sorted(bens)
    (person,) = {line["person"] for line in _gone(left)}
    assert len(_gone(left)) == len(anns)
    # What they are at another tenant is that one's business.
    assert await _decrypted(neighbour, theirs) == sorted(others)
    assert await _stored(archive, [*files, *theirs]) == before
    assert (await verified(tenant)).invalid == []

    # For a while it is filed without them, or under the key that is destroyed, as some of it was on its way.
    late = await _texts(tenant, ANN)
    later = [one for one in await filed(tenant, 9) if one.id not in {file.id for file in files}]
    unread = _gone(await _decrypted(tenant, later))
    assert len(unread) == len(late)
    assert {line["person"] for line in unread} <= {None, person}
    ends = again.erased_before
    assert ends is not None

    async def is_over() -> bool:
        return datetime.now(UTC) > ends

    await until("the time that an erasure takes", is_over, within_s=60, pause_s=0.2)
    news = await _texts(tenant, ANN)
    latest = [one for one in await filed(tenant, 12) if one.id not in {file.id for file in (*files, *later)}]
    assert await _decrypted(tenant, latest) == sorted(news)
    (line, *_) = [json.loads(line) for one in latest for line in lines_of(one.key, await archive.get(one.key))]
    assert line["person"] not in (None, person)
    # What was before stays unreadable.
    assert await _decrypted(tenant, files) == left
    assert _gone(await _decrypted(tenant, later)) == unread
    assert (await tenant.client.erase_person(ANN)).destroyed

    # The database tells of nobody either.
    client: AsyncMongoClient[Json] = AsyncMongoClient(storing_installation.mongo_uri)
    async with client:
        rows = (
            await client[storing_installation.mongo_database]["audit_people"]
            .find({"registration": tenant.registration})
            .to_list()
        )
    assert rows
    assert not [word for word in (ANN[1:], BEN[1:]) if word in str(rows)]


async def test_arrays_are_read_decrypted_too_and_plain_channels_are_named(storing_town: Town, archive: Archive) -> None:
    tenant = await storing_town.platform.register()
    await ask_for_files(
        storing_town.platform, tenant, "SendGrid", encrypt_people=True, format="array", gzip=True, with_event=True
    )
    await ask_for_files(storing_town.platform, tenant, "Twilio")
    mail, text = new_message_id(), new_sid()
    mails = [tenant.sendgrid.event(mail, word, email=MAIL) for word in ("processed", "delivered", "open")]
    await tenant.receive(
        tenant.sendgrid.batch(tenant.address("SendGrid"), mails),
        tenant.twilio.status(tenant.address("Twilio"), text, "sent", to=ANN),
    )
    await filed(tenant, 4)
    files = [one for one in await files_of(tenant) if one.channel == "sendgrid"]

    async def arrays() -> list[Json]:
        found: list[Json] = []
        for one in files:
            answer = await tenant.get(f"/v1/audits/{one.id}/content", decrypted="true")
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["content-disposition"].endswith('_Events.json"')
            found += answer.json()
        return found

    found = await arrays()
    assert sorted([one["raw"] for one in found], key=str) == sorted(mails, key=str)
    assert {(one["event"]["recipient"], one["event"]["message_id"]) for one in found} == {(MAIL, mail)}
    erased = await tenant.client.erase_person("Ann@Example.COM")
    assert (erased.destroyed, erased.plain_channels) == (True, ("twilio",))
    assert [one["encrypted"] for one in await arrays()] == [None] * 3
    assert {one["event"]["kind"] for one in await arrays()} == {"queued", "delivered", "opened"}


async def test_what_was_changed_in_the_bucket_is_not_given_as_a_persons_words(
    storing_town: Town, archive: Archive
) -> None:
    tenant = await storing_town.platform.register()
    await ask_for_files(storing_town.platform, tenant, "Twilio", encrypt_people=True)
    await _texts(tenant, ANN)
    file = (await in_digests(tenant, await filed(tenant, 3)))[0]
    content = await archive.get(file.key)
    first, *rest = lines_of(file.key, content)
    encrypted: str = json.loads(first)["encrypted"]
    forged = first.replace(encrypted.encode(), (encrypted[:-8] + "AAAA" + encrypted[-4:]).encode())
    for changed, said in (
        ([forged, *rest], "Line 1 does not decrypt"),
        ([first.replace(b'"revision":0', b'"revision":1'), *rest], "Line 1 does not decrypt"),
        ([*rest, first, first], "It holds more"),
        (rest or [b""], "It holds less" if rest else "is none that Backhaul writes"),
    ):
        await archive.put(file.key, b"".join(line + b"\n" for line in changed))
        with pytest.raises(FailedPreconditionError, match=said):
            await _decrypted(tenant, [file])
        assert [one.problem for one in (await verified(tenant)).invalid] == ["hash"]
    await archive.put(file.key, content)
    assert len(await _decrypted(tenant, [file])) == file.events
