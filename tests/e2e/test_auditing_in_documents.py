"""The commands and queries of docs/auditing.md run as they stand there, and do what is said of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from asyncio.subprocess import PIPE
from base64 import b64encode
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import httpx
from backhaul_audit.lines import provided
from backhaul_testing.waiting import until
from simulators.people import Town

if TYPE_CHECKING:
    from backhaul_client.auditmodels import AuditFile
    from backhaul_local.stack import Stack
    from simulators.people import Tenant

PAGE = (Path(__file__).parents[2] / "docs" / "auditing.md").read_text()
MARK = "<status>"
QUICK = {"BACKHAUL_AUDIT_MAX_FILE_AGE_S": "0.5", "BACKHAUL_AUDIT_DIGEST_EVERY_S": "2"}
"""So that nobody waits five minutes for a file, and an hour for its digest."""


async def test_the_commands_of_the_page_do_what_it_says(
    own_stack: Callable[..., AbstractAsyncContextManager[Stack]], tmp_path: Path
) -> None:
    async with (
        own_stack(with_object_store=True, service_env={"audit": QUICK}) as stack,
        Town(stack.gateway_url, stack.admin_token) as town,
    ):
        tenant = await town.platform.register()
        await town.platform.client.put_channel(tenant.id, "Twilio", settings={"audit": {"enabled": True}})
        # The page's own example, but for what Twilio sends besides.
        posts = [tenant.twilio.status(tenant.address("Twilio"), "SM0001", word) for word in ("sent", "delivered")]
        await tenant.receive(*posts)
        files = await until("two events in signed files", lambda: _signed(tenant, 2), within_s=30)
        content = await _the_commands(stack, tenant, files[0], tmp_path)
        answer = await tenant.get(f"/v1/audits/{files[0].id}/content")
        assert answer.content == content
        said = f"sha-256=:{b64encode(hashlib.sha256(content).digest()).decode()}:"
        assert answer.headers["Repr-Digest"] == said
        await _the_query(tenant, files, tmp_path)


async def _signed(tenant: Tenant, events: int) -> list[AuditFile] | None:
    files = [file async for file in tenant.client.audit_files()]
    whole = sum(file.events for file in files) == events and all(file.digest for file in files)
    return files if whole else None


async def _the_commands(stack: Stack, tenant: Tenant, file: AuditFile, folder: Path) -> bytes:
    """Run them, and return the file that they fetch."""
    event = (await tenant.events())[0].id
    (folder / "key-header").write_text(f"X-Api-Key: {tenant.api_key}")
    (folder / "admin-header").write_text(f"Authorization: Bearer {stack.admin_token}")
    blocks = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "$URL" in block]
    script = "\n".join(blocks).replace("/tenants/acme/", f"/tenants/{tenant.id}/")
    script = script.replace("curl -sS ", f"curl -sS -w '\\n{MARK}%{{http_code}}\\n' ")
    environ = {
        "PATH": os.environ["PATH"],
        "URL": stack.gateway_url,
        "KEY": "@key-header",
        "ADMIN": "@admin-header",
        "JSON": "Content-Type: application/json",
        "FILE": file.id,
        "EVENT": event,
    }
    bash = await asyncio.create_subprocess_exec(
        "bash", "-eu", "-c", script, cwd=folder, env=environ, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(60):
        out, err = await bash.communicate()
    assert (bash.returncode, err.decode()) == (0, "")
    answers = re.findall(rf"(.*?)\n{MARK}(\d+)\n", out.decode(), re.DOTALL)
    assert [int(status) for _, status in answers] == [*[200] * 11, 201, 200, 200], out.decode()
    bodies = [body for body, _ in answers]
    channel, status, listed, described = map(json.loads, bodies[:4])
    assert channel["settings"]["audit"]["enabled"]
    assert status["parts"]["audit"]["asked"]
    assert described in listed["files"]
    assert f"/channel=twilio/dt={described['first_at'][:10]}/AUDIT_" in described["key"]
    content: bytes = bodies[4].encode()
    assert {json.loads(line)["MessageSid"] for line in content.splitlines()} == {"SM0001"}
    assert hashlib.sha256(content).hexdigest() == described["sha256"]
    link, proof, heads, digests = map(json.loads, bodies[5:9])
    digest = [json.loads(line) for line in bodies[9].splitlines()]
    keys = {key["key_id"] for key in json.loads(bodies[10])["keys"]}
    async with httpx.AsyncClient() as anybody:
        assert (await anybody.get(link["url"])).content == content
    assert proof["proofs"][0]["digest"]["chain"] == "events"
    assert heads["heads"][0]["number"] >= digests["digests"][-1]["number"]
    assert (digest[0]["digestNumber"], digest[1]["algorithm"]) == (1, "Ed25519")
    assert digest[1]["keyId"] in keys
    assert json.loads(bodies[11])["key_id"] not in keys
    found: dict[str, Any] = json.loads(bodies[12])
    assert (found["valid"], found["invalid"]) == (True, [])
    assert [re.sub(r"\d+", "n", line) for line in found["summary"]] == ["n/n digests valid", "n/n files valid"]
    assert json.loads(bodies[13].splitlines()[-1])["done"]
    return content


async def _the_query(tenant: Tenant, files: list[AuditFile], folder: Path) -> None:
    """DuckDB's, over copies under the files' keys."""
    for file in files:
        path = folder / file.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join([piece async for piece in tenant.client.audit_content(file.id)]))
    prefix, _, rest = files[0].key.partition("/events/")
    day = rest.partition("/dt=")[2].partition("/")[0]
    (query,) = (block for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL) if "read_json" in block)
    local = query.replace("s3://backhaul/tenants/acme.5c0e9d1f2a3b", f"{folder}/{prefix}")
    rows = duckdb.execute(local.replace("2026-11-25", day)).fetchall()
    assert rows == [("twilio", "delivered", 1), ("twilio", "sent", 1)]


def test_the_page_shows_a_form_as_it_is_filed() -> None:
    (line,) = (block.strip() for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) if "_form" in block)
    assert provided(json.loads(line)["_form"].encode()) == line.encode()
