"""What a gateway that stood still finds when it goes on: requests of senders who have given them up."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from gateway_rig import Running

ACME = "/admin/v1/tenants/acme"


def leave_behind(gateway: Running, method: str, path: str, body: Any) -> None:
    """Send a request and hang up, while the gateway, whose event loop is this test's, reads nothing."""
    content = json.dumps(body).encode() if body is not None else b""
    head = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}", "Content-Type: application/json"]
    head += [f"{name}: {value}" for name, value in gateway.admin.items()]
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + content)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", f"{ACME}?purge=true", None),
        ("PATCH", ACME, {"status": "suspended"}),
        ("PUT", f"{ACME}/channels/Twilio", {"provider": "twilio", "secrets": ["old"], "verification": "off"}),
        ("POST", f"{ACME}/keys", {"kind": "api"}),
    ],
    ids=["purge", "suspend", "configure", "issue"],
)
async def test_a_change_whose_sender_has_hung_up_is_not_made(
    gateway: Running, method: str, path: str, body: Any
) -> None:
    await gateway.tenant()
    await gateway.channel()
    before = gateway.tenants.find_one({"_id": "acme"})

    async def done() -> int:
        """How many requests of the method have come to their end."""
        metrics = (await gateway.client.get("/metrics")).text
        counted = [
            line
            for line in metrics.splitlines()
            if line.startswith("backhaul_gateway_requests_total") and f'method="{method}"' in line
        ]
        return sum(int(float(line.split()[-1])) for line in counted)

    until_now = await done()
    leave_behind(gateway, method, path, body)
    async with asyncio.timeout(60):
        while await done() == until_now:  # Nobody is left who would be told.
            await asyncio.sleep(0.02)
    assert gateway.tenants.find_one({"_id": "acme"}) == before
