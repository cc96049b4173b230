"""A tenant's audit files in the console: found, read, downloaded, verified while one watches."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx
import pytest
from backhaul_testing.twilio import new_sid
from simulators.archive import ask_for_files, filed, in_digests
from simulators.visiting import Visitor

if TYPE_CHECKING:
    from backhaul_client.auditmodels import AuditFile
    from playwright.async_api import Browser
    from simulators.archive import Archive
    from simulators.people import Tenant, Town

HOSTILE = "</pre><script>alert(1)</script>"


@pytest.fixture
async def reader(storing_town: Town) -> AsyncIterator[Visitor]:
    """A browser without JavaScript at the installation that has object storage."""
    async with Visitor(storing_town.platform.base_url) as browser:
        yield browser


async def _with_files(town: Town, *, gzipped: bool = False) -> tuple[Tenant, AuditFile]:
    """A tenant with one file that a digest lists, of a reply of a stranger."""
    tenant = await town.platform.register()
    await ask_for_files(town.platform, tenant, "Twilio", gzip=gzipped)
    address = tenant.address("Twilio", communicationId="spring / & ?")
    await tenant.receive(
        tenant.twilio.status(address, new_sid(), "delivered"), tenant.reply("+15005550009", f"hello {HOSTILE}")
    )
    files = await filed(tenant, 2)
    await in_digests(tenant, files)
    (reply,) = [event async for event in tenant.client.events(kind="inbound")]
    proof = (await tenant.client.prove_event(reply.id)).proofs[0]
    return tenant, proof.file


async def test_files_are_found_read_and_downloaded(storing_town: Town, reader: Visitor) -> None:
    tenant, file = await _with_files(storing_town, gzipped=True)
    other = await storing_town.platform.register()
    here = f"/console/t/{tenant.id}/audits"
    await reader.sign_in(tenant.api_key)
    await reader.go(here)
    assert file.name in [row[0] for row in reader.rows("Audit files")]
    await reader.submit("/audits", chain="backfill")
    assert reader.rows("Audit files") == [["No file."]]
    await reader.go(f"{here}?channel=Gone")
    await reader.submit("/audits")
    assert "channel=Gone" in reader.url
    await reader.go(f"{here}?from=nonsense")
    assert reader.status == 422
    await reader.go(here)
    await reader.follow(file.name)
    assert file.sha256 in reader.main

    await reader.follow("Show as text")
    assert HOSTILE in reader.main
    assert not [found for found in reader.page.find_all("script") if not found.get("src")]

    async with httpx.AsyncClient(base_url=tenant.base_url, cookies=reader._http.cookies) as http:
        stored = await http.get(f"{here}/files/{file.id}/content")
        assert gzip.decompress(stored.content)
        plain = await http.get(f"{here}/files/{file.id}/content?decrypted=yes")
        assert [json.loads(line) for line in plain.text.splitlines()]
    for answer in (stored, plain):
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith('attachment; filename="AUDIT_')

    await reader.go(f"{here}/files/{file.id}")
    await reader.submit(f"/files/{file.id}", valid_s="900")
    (link,) = [found.get_text() for found in reader.page.select(".said code")]
    async with httpx.AsyncClient() as anybody:
        assert (await anybody.get(link)).content == stored.content

    # Nothing of it is another tenant's.
    await reader.sign_in(other.api_key)
    theirs = f"/console/t/{other.id}/audits"
    await reader.go(theirs)
    assert reader.rows("Audit files") == [["No file."]]
    for path in (f"files/{file.id}", f"files/{file.id}/text", f"files/{file.id}/content"):
        await reader.go(f"{theirs}/{path}")
        assert reader.status == 404, path


async def test_what_was_changed_is_found_while_one_watches(
    storing_town: Town, reader: Visitor, archive: Archive
) -> None:
    tenant, file = await _with_files(storing_town)
    here = f"/console/t/{tenant.id}/audits"
    await reader.sign_in(tenant.api_key)
    await reader.go(f"{here}/verify")
    await reader.submit("/verify")
    assert "Everything is valid." in reader.main
    (head,) = [head for head in await tenant.client.audit_heads() if head.chain == "events"]
    await reader.submit("/verify", heads="0" * 64)
    assert "1 things are not valid" in reader.main

    await archive.put(file.key, b'{"forged": true}\n')
    await reader.submit("/verify", heads=head.hash)
    assert reader.page.select(".found")
    assert file.id in str(reader.page) or file.key in reader.main or file.name in reader.main
    assert "of" in reader.main
    # The answer is whole.
    assert reader.page.find("main") is not None
    assert str(reader.page).rstrip().endswith("</html>")

    await reader.go(f"{here}/digests")
    assert head.hash in reader.main
    await reader.follow(str(head.number))
    assert file.chain in reader.main
    assert reader.status == 200


async def test_counts_are_compared_and_an_event_is_found(storing_town: Town, reader: Visitor) -> None:
    tenant, file = await _with_files(storing_town)
    here = f"/console/t/{tenant.id}/audits"
    await reader.sign_in(tenant.api_key)
    await reader.go(f"{here}/recount")
    await reader.submit("/recount", communication_id="spring / & ?")
    assert "All counts are equal." in reader.main
    assert ["delivered", "1", "1", "1"] in reader.rows("By kind")
    await reader.submit("/recount", communication_id="no such one")
    assert reader.status == 404
    (reply,) = [event async for event in tenant.client.events(kind="inbound")]
    await reader.go(f"{here}/proof")
    await reader.submit("/proof", event_id=reply.id)
    (row,) = reader.rows("Files with the event")
    assert row[:3] == ["0", file.name, row[2]]
    assert re.fullmatch(r"digest \d+", row[4])


@pytest.mark.browser
async def test_a_browser_finds_nothing_wrong_with_audits(storing_town: Town, chromium: Browser) -> None:
    from simulators.visiting import LOOKS, Watched

    tenant, file = await _with_files(storing_town)
    pages = (
        "",
        f"/files/{file.id}",
        f"/files/{file.id}/text",
        "/digests",
        "/digests/events/1",
        "/verify",
        "/proof",
        "/recount",
    )
    for context in LOOKS:
        browser = await Watched.opened(chromium, storing_town.platform.base_url, **context)
        await browser.sign_in(tenant.api_key)
        await browser.walk(*(f"/console/t/{tenant.id}/audits{path}" for path in pages))
        await browser.go(f"/console/t/{tenant.id}/audits/verify")
        await browser.page.get_by_role("button", name="Verify").press("Enter")
        await browser.page.get_by_text("Everything is valid.").wait_for()
        await browser.accessible()
        assert not browser.wrong
