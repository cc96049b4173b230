"""The commands and queries of docs/auditing.md run as they stand there, and do what is said of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sys
from asyncio.subprocess import PIPE
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from backhaul_audit.lines import provided
from simulators.archive import ask_for_files, filed, in_digests

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.archive import Archive
    from simulators.people import Town

PAGE = (Path(__file__).parents[2] / "docs" / "auditing.md").read_text()
CLIENT = (Path(__file__).parents[2] / "libs" / "client" / "README.md").read_text()
MARK = "<status>"


async def test_the_commands_of_the_page_do_what_it_says(
    storing_town: Town, storing_installation: Stack, archive: Archive, tmp_path: Path
) -> None:
    tenant = await storing_town.platform.register()
    await ask_for_files(storing_town.platform, tenant, "Twilio")
    # The page's own example, but for what Twilio sends besides.
    address = tenant.address("Twilio", communicationId="spring")
    posts = [tenant.twilio.status(address, "SM0001", word) for word in ("sent", "delivered")]
    await tenant.receive(*posts)
    files = await in_digests(tenant, await filed(tenant, 2))
    event = (await tenant.events())[0].id
    (tmp_path / "key-header").write_text(f"X-Api-Key: {tenant.api_key}")
    (tmp_path / "admin-header").write_text(f"Authorization: Bearer {storing_installation.admin_token}")
    blocks = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "$URL" in block]
    script = "\n".join(blocks).replace("/tenants/acme/", f"/tenants/{tenant.id}/")
    script = script.replace("curl -sS ", f"curl -sS -w '\\n{MARK}%{{http_code}}\\n' ")
    environ = {
        "PATH": os.environ["PATH"],
        "URL": storing_installation.gateway_url,
        "KEY": "@key-header",
        "ADMIN": "@admin-header",
        "JSON": "Content-Type: application/json",
        "FILE": files[0].id,
        "EVENT": event,
        "COMMUNICATION": "spring",
    }
    bash = await asyncio.create_subprocess_exec(
        "bash", "-eu", "-c", script, cwd=tmp_path, env=environ, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(60):
        out, err = await bash.communicate()
    assert (bash.returncode, err.decode()) == (0, "")
    answers = re.findall(rf"(.*?)\n{MARK}(\d+)\n", out.decode(), re.DOTALL)
    assert [int(status) for _, status in answers] == [*[200] * 14, 201, 200, 200, 200], out.decode()
    bodies = [body for body, _ in answers]
    channel, status, listed, described = map(json.loads, bodies[:4])
    assert channel["settings"]["audit"]["enabled"]
    assert status["parts"]["audit"]["asked"]
    assert described in listed["files"]
    assert f"/channel=twilio/dt={described['first_at'][:10]}/AUDIT_" in described["key"]
    content: bytes = bodies[4].encode()
    assert {json.loads(line)["MessageSid"] for line in content.splitlines()} == {"SM0001"}
    assert hashlib.sha256(content).hexdigest() == described["sha256"]
    link, proof = map(json.loads, bodies[5:7])
    assert json.loads(bodies[7])["settings"]["audit"] == {"enabled": True, "encrypt_people": True}
    # What was filed before stays as it is.
    assert (bodies[8].encode(), described["encrypted"]) == (content, False)
    erasure = json.loads(bodies[9])
    assert (erasure["destroyed"], erasure["plain_channels"]) == (False, ["twilio"])
    assert datetime.fromisoformat(erasure["erased_before"]) > datetime.now(UTC)
    heads, digests = map(json.loads, bodies[10:12])
    digest = [json.loads(line) for line in bodies[12].splitlines()]
    keys = {key["key_id"] for key in json.loads(bodies[13])["keys"]}
    assert (await storing_town.http.get(link["url"])).content == content
    assert proof["proofs"][0]["digest"]["chain"] == "events"
    assert heads["heads"][0]["number"] >= digests["digests"][-1]["number"]
    assert (digest[0]["digestNumber"], digest[1]["algorithm"]) == (1, "Ed25519")
    assert digest[1]["keyId"] in keys
    assert json.loads(bodies[14])["key_id"] not in keys
    found: dict[str, Any] = json.loads(bodies[15])
    assert (found["valid"], found["invalid"]) == (True, [])
    assert [re.sub(r"\d+", "n", line) for line in found["summary"]] == ["n/n digests valid", "n/n files valid"]
    assert json.loads(bodies[16].splitlines()[-1])["done"]
    recount = json.loads(bodies[17])
    kinds = [{"kind": kind, "counted": 1, "listed": 1, "audited": 1} for kind in ("sent", "delivered")]
    assert (recount["equal"], recount["kinds"], recount["waiting"]) == (True, kinds, 0)

    answer = await tenant.get(f"/v1/audits/{files[0].id}/content")
    assert answer.headers["Repr-Digest"] == f"sha-256=:{b64encode(hashlib.sha256(content).digest()).decode()}:"
    await _the_query_of_the_page_counts(archive, tenant.registration, described["first_at"][:10], tmp_path)


async def test_the_clients_program_does_what_it_says(
    storing_town: Town, storing_installation: Stack, tmp_path: Path
) -> None:
    tenant = await storing_town.platform.register()
    await ask_for_files(storing_town.platform, tenant, "Twilio", encrypt_people=True)
    address = tenant.address("Twilio", communicationId="spring-sale")
    await tenant.receive(*(tenant.twilio.status(address, "SM0001", word) for word in ("sent", "delivered")))
    files = await in_digests(tenant, await filed(tenant, 2))
    (program,) = (one for one in re.findall(r"```python\n(.*?)```", CLIENT, re.DOTALL) if "audit" in one)
    environ = {"BACKHAUL_URL": storing_installation.gateway_url, "BACKHAUL_API_KEY": tenant.api_key}
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=tmp_path, env=environ, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(60):
        out, err = await running.communicate()
    assert (running.returncode, err.decode()) == (0, "")
    *listed, verified, recounted = out.decode().splitlines()
    assert set(listed) == {f"{file.events} events in {file.key.rpartition('/')[2]}" for file in files}
    assert verified == f"{len(files)} of {len(files)} files are what was signed"
    assert recounted == "counts are those of the files: True ()"
    lines = [line for file in files for line in (tmp_path / f"{file.id}.jsonl").read_text().splitlines()]
    assert {json.loads(line)["MessageStatus"] for line in lines} == {"sent", "delivered"}


async def _the_query_of_the_page_counts(archive: Archive, registration: str, day: str, folder: Path) -> None:
    await archive.copy_to(folder, f"tenants/{registration}/")
    (query,) = (block for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL) if "read_json" in block)
    local = query.replace("s3://backhaul/tenants/acme.5c0e9d1f2a3b", f"{folder}/tenants/{registration}")
    rows = duckdb.execute(local.replace("2026-11-25", day)).fetchall()
    assert rows == [("twilio", "delivered", 1), ("twilio", "sent", 1)]


def test_the_page_shows_a_form_as_it_is_filed() -> None:
    (line,) = (block.strip() for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) if "_form" in block)
    assert provided(json.loads(line)["_form"].encode()) == line.encode()
