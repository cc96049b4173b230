"""Audit files of a whole installation: what analysts and auditors find, and what nobody else does."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import duckdb
import pytest
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

WORDS = ("processed", "delivered", "open")
DOCUMENTS = Path(__file__).parents[2] / "docs"


async def _texts(tenant: Tenant, messages: int) -> list[bytes]:
    """The forms that Twilio posts of some messages: each is sent and delivered."""
    posts = [
        tenant.twilio.status(tenant.address("Twilio", communicationId="spring"), sid, word)
        for sid in [new_sid() for _ in range(messages)]
        for word in ("sent", "delivered")
    ]
    await tenant.receive(*posts)
    return [post.body for post in posts]


async def _mails(tenant: Tenant, mails: int) -> list[Json]:
    """What SendGrid tells of some mails, a batch for each."""
    batches = [[tenant.sendgrid.event(new_message_id(), word) for word in WORDS] for _ in range(mails)]
    await tenant.receive(*(tenant.sendgrid.batch(tenant.address("SendGrid"), batch) for batch in batches))
    return [event for batch in batches for event in batch]


async def test_a_day_of_files_is_one_query(storing_town: Town, archive: Archive, tmp_path: Path) -> None:
    tenant = await storing_town.platform.register()
    await ask_for_files(storing_town.platform, tenant, "Twilio")
    await storing_town.platform.client.put_channel(
        tenant.id, "SendGrid", settings={"save_email_events": True, "audit": {"gzip": True}}
    )
    forms, mails = await _texts(tenant, 5), await _mails(tenant, 4)
    files = await filed(tenant, len(forms) + len(mails))
    assert sum(one.events for one in files) == len(forms) + len(mails)
    assert {(one.channel, one.gzip) for one in files} == {("twilio", False), ("sendgrid", True)}

    await archive.copy_to(tmp_path, prefix := f"tenants/{tenant.registration}/events/")
    day = f"{tmp_path}/{prefix}channel=*/dt=*/AUDIT_*_Events.json*"
    rows = duckdb.execute(
        "SELECT channel, dt::VARCHAR, coalesce(event, MessageStatus) AS word, count(*) "
        "FROM read_json(?, format = 'newline_delimited', hive_partitioning = true, union_by_name = true) "
        "GROUP BY ALL ORDER BY ALL",
        [day],
    ).fetchall()
    days = {one.key.split("/dt=")[1][:10] for one in files}
    assert {row[1] for row in rows} == days
    counted: Counter[tuple[str, str]] = Counter()
    for channel, _, word, count in rows:
        counted[channel, word] += count
    assert counted == {
        **{("twilio", word): 5 for word in ("sent", "delivered")},
        **{("sendgrid", word): 4 for word in WORDS},
    }


async def test_lines_are_what_the_providers_sent(storing_town: Town, archive: Archive) -> None:
    tenant = await storing_town.platform.register()
    await ask_for_files(storing_town.platform, tenant)
    forms, mails = await _texts(tenant, 2), await _mails(tenant, 2)
    files = await filed(tenant, len(forms) + len(mails))
    lines: dict[str, list[bytes]] = {"twilio": [], "sendgrid": []}
    for one in files:
        lines[one.channel] += lines_of(one.key, await archive.get(one.key))
        assert await archive.get(one.key) == b"".join([piece async for piece in tenant.client.audit_content(one.id)])
    told = [json.loads(line) for line in lines["twilio"]]
    assert sorted(one.pop("_form") for one in told) == sorted(form.decode() for form in forms)
    fields = [{name: values[0] for name, values in parse_qs(form.decode()).items()} for form in forms]
    assert sorted(told, key=str) == sorted(fields, key=str)
    assert sorted(map(json.loads, lines["sendgrid"]), key=str) == sorted(mails, key=str)


async def test_no_files_of_one_tenant_are_anothers(
    storing_town: Town, storing_installation: Stack, archive: Archive
) -> None:
    mallory, victim = [await storing_town.platform.register() for _ in range(2)]
    files: dict[str, list[AuditFile]] = {}
    for tenant in (mallory, victim):
        await ask_for_files(storing_town.platform, tenant)
        await _texts(tenant, 2)
        files[tenant.id] = await in_digests(tenant, await filed(tenant, 4))
    own, theirs = files[mallory.id], files[victim.id]
    event = (await victim.events())[0].id
    heads = {tenant.id: await tenant.client.audit_heads() for tenant in (mallory, victim)}

    hidden = [
        *(one.id for one in theirs),
        *(one.sha256 for one in theirs),
        *(one.hash for one in heads[victim.id]),
        victim.id,
        event,
    ]
    paths: list[tuple[str, Json]] = [
        (f"/v1/audits/{theirs[0].id}", {}),
        (f"/v1/audits/{theirs[0].id}/content", {}),
        (f"/v1/audits/{theirs[0].id}/content", {"decrypted": "true"}),
        ("/v1/audits/proof", {"event_id": event}),
    ]
    for path, asked in paths:
        assert (await victim.get(path, **asked)).status_code == 200, path
        refused = await mallory.get(path, **asked)
        assert refused.status_code == 404, path
        assert victim.id not in refused.text
    link = f"/v1/audits/{theirs[0].id}/link"
    assert ((await victim.post(link)).status_code, (await mallory.post(link)).status_code) == (200, 404)
    lists: list[tuple[str, Json]] = [
        ("/v1/audits", {}),
        ("/v1/audits", {"channel": "twilio"}),
        ("/v1/audits", {"chain": "events"}),
        ("/v1/audits/head", {}),
        ("/v1/audits/digests", {}),
        ("/v1/audits/verify", {}),
        ("/v1/audits/verify", {"progress": "true"}),
    ]
    for path, asked in lists:
        answer = await mallory.get(path, **asked)
        assert answer.status_code == 200, path
        assert not [text for text in hidden if text in answer.text], path
    for head in heads[victim.id]:
        path = f"/v1/audits/digests/{head.chain}/{head.number}"
        assert head.hash not in (await mallory.get(path)).text
        # A hash of another's is one that nobody knows, whoever asks about it.
        assert [one.problem for one in (await verified(mallory, head.hash)).invalid] == ["unknown_head"]
    assert {one.id for one in await files_of(mallory)} >= {one.id for one in own}

    # In the bucket, everything lies under one tenant's prefix.
    for tenant, others in ((mallory, theirs), (victim, own)):
        keys = await archive.keys(f"tenants/{tenant.registration}/")
        assert {one.key for one in files[tenant.id]} <= set(keys)
        assert not {one.key for one in others} & set(keys)
    client: AsyncMongoClient[Json] = AsyncMongoClient(storing_installation.mongo_uri)
    async with client:
        database = client[storing_installation.mongo_database]
        for name in await database.list_collection_names():
            if name.startswith("audit_") and name not in ("audit_position", "audit_keys"):
                assert await database[name].count_documents({"registration": {"$exists": False}}) == 0, name


async def test_a_deleted_tenants_files_are_gone_and_no_others(
    storing_town: Town, storing_installation: Stack, archive: Archive, quick_deletions: None
) -> None:
    tenant, neighbour = [await storing_town.platform.register() for _ in range(2)]
    for one in (tenant, neighbour):
        await ask_for_files(storing_town.platform, one)
        await _texts(one, 2)
    for one in (tenant, neighbour):
        await in_digests(one, await filed(one, 4))
    kept = [one.key for one in await files_of(neighbour)]
    await storing_town.platform.delete(tenant)
    for prefix in ("tenants", "digests"):
        assert await archive.keys(f"{prefix}/{tenant.registration}/") == []
        assert await archive.keys(f"{prefix}/{neighbour.registration}/")
    assert [one.key for one in await files_of(neighbour)] == kept
    client: AsyncMongoClient[Json] = AsyncMongoClient(storing_installation.mongo_uri)
    async with client:
        database = client[storing_installation.mongo_database]
        for name in await database.list_collection_names():
            assert await database[name].count_documents({"registration": tenant.registration}) == 0, name


async def test_what_was_changed_in_the_bucket_is_found_there_and_in_copies(
    storing_town: Town, archive: Archive, tmp_path: Path
) -> None:
    tenant = await storing_town.platform.register()
    await ask_for_files(storing_town.platform, tenant)
    await _texts(tenant, 3)
    files = await in_digests(tenant, await filed(tenant, 6))
    sound = await verified(tenant)
    assert (sound.files, sound.invalid) == (len(files), [])
    keys = tmp_path / "keys.json"
    # Whoever checks needs no credential for it.
    keys.write_bytes((await storing_town.http.get(f"{tenant.base_url}/.well-known/backhaul-audit-keys")).content)

    async def checked(name: str) -> list[tuple[int, str]]:
        folder = tmp_path / name
        for prefix in ("tenants", "digests"):
            await archive.copy_to(folder, f"{prefix}/{tenant.registration}/")
        own = [sys.executable, "-m", "backhaul_audit.verify", "--offline", str(folder), "--keys", str(keys)]
        return [
            await _run(*own),
            await _run(sys.executable, str(DOCUMENTS / "verify_audit.py"), str(folder), str(keys)),
        ]

    assert [code for code, _ in await checked("sound")] == [0, 0]
    changed = files[0].key
    content = await archive.get(changed)
    await archive.put(changed, content.replace(b"delivered", b"failed___"))
    (invalid,) = (await verified(tenant)).invalid
    assert (invalid.subject, invalid.problem) == ("file", "hash")
    assert changed in invalid.name
    for code, said in await checked("changed"):
        assert code == 1
        assert changed in said
    await archive.put(changed, content)
    assert (await verified(tenant)).invalid == []


async def _run(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.parametrize("asks", [True, False])
async def test_a_channels_state_tells_of_its_files(storing_town: Town, asks: bool) -> None:
    tenant = await storing_town.platform.register()
    if asks:
        await ask_for_files(storing_town.platform, tenant, "Twilio")
        await _texts(tenant, 1)
        await filed(tenant, 2)

    async def nothing_waits() -> bool:
        return (await tenant.client.channel_status("Twilio")).parts.audit.waiting_since is None

    await until("nothing that waits", nothing_waits)
    status = await tenant.client.channel_status("Twilio")
    audit = status.parts.audit
    assert (status.state, audit.state, audit.detail, audit.asked) == ("OK", "OK", None, asks)
