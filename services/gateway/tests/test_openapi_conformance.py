"""schemathesis over the OpenAPI document: what the gateway answers is what it says that it answers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from gateway_rig import Running

CONFORMANCE = (
    "status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance,"
    "unsupported_method"
)


# What needs another service: without one it answers 503, as it says that it may.
OTHERS = (
    r"^(/v1/.*|/admin/v1/tenants/\{tenant_id\}(/(suppressions|replays|dead-letters).*)?"
    r"|/admin/v1/((audit|secret)-keys.*|export|apply)|/\.well-known/.*)$"
)


@pytest.mark.parametrize(
    ("selection", "checks"),
    [
        (f"--exclude-path-regex={OTHERS}", f"not_a_server_error,negative_data_rejection,{CONFORMANCE}"),
        # A stream does not end, so none is asked for. And GET /v1/audits/erasures is no method that is missing there:
        # it asks for a file of that id, and is told that no id is like it.
        (f"--include-path-regex=^(?!/v1/(events/stream|audits/erasures)$){OTHERS[1:]}", CONFORMANCE),
    ],
)
async def test_conformance(gateway: Running, tmp_path: Path, selection: str, checks: str) -> None:
    tenant = await gateway.tenant(limits={"requests_per_second": 100_000, "burst": 100_000})
    await gateway.channel(verification="off")
    # It is made when it is asked for first, which takes long on a busy machine, and schemathesis waits for 10 s.
    assert (await gateway.client.get("/openapi.json", timeout=60)).status_code == 200
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        f"{gateway.url}/openapi.json",
        selection,
        f"--checks={checks}",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=6",
        "--max-time=15",
        "--seed=1",
        "--no-color",
        "--warnings=off",
        f"--header=X-Api-Key: {tenant.api_key}",
        f"--header=Authorization: {gateway.admin['Authorization']}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # It leaves a folder of examples where it runs.
        cwd=tmp_path,
    )
    async with asyncio.timeout(100):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-6000:]
    assert (await gateway.client.get("/readyz")).status_code == 200
