"""The bodies of POST /api/postevents: as they come, up to their limit, whole and in time."""

from __future__ import annotations

from typing import Any

from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory, Running, outcomes


async def test_authentic_but_unreadable_bodies_are_stored(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(verification="off")
    bodies = [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":NaN}', b"a=1&" * 10_000, b"%zz=%"]
    for body in bodies:
        answer = await gateway.client.post(
            "/api/postevents?channelLabel=Twilio", content=body, headers={"X-Api-Key": tenant.api_key}
        )
        assert answer.status_code == 200
    assert [callback.body for batch in await gateway.stored() for callback in batch] == bodies


async def test_body_limit(gateway: Running) -> None:
    tenant = await gateway.tenant(limits={"max_body_bytes": 2048})
    await gateway.channel(verification="off")
    headers = {"X-Api-Key": tenant.api_key}
    path = "/api/postevents?channelLabel=Twilio"
    assert (await gateway.client.post(path, content=b"x" * 2048, headers=headers)).status_code == 200
    gateway.problem(await gateway.client.post(path, content=b"x" * 2049, headers=headers), 413, "body")

    async def chunks() -> Any:
        for _ in range(100):
            yield b"x" * 1000

    gateway.problem(await gateway.client.post(path, content=chunks(), headers=headers), 413, "body")
    # The announcement alone is enough: not a byte of the body has to be sent.
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {tenant.api_key}\r\nContent-Length: 99999999999999\r\n\r\n"
    assert b" 413 " in await gateway.raw(head.encode())
    assert len(await gateway.stored()) == 1


async def test_the_default_limit_admits_sendgrids_largest_post(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(verification="off")
    answer = await gateway.client.post(
        "/api/postevents?channelLabel=Twilio", content=b"x" * 768 * 1024, headers={"X-Api-Key": tenant.api_key}
    )
    assert answer.status_code == 200


async def test_truncated_bodies_are_not_stored(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(verification="off")
    head = f"POST /api/postevents?channelLabel=Twilio HTTP/1.1\r\nHost: x\r\nX-Api-Key: {tenant.api_key}\r\n"
    await gateway.raw(f"{head}Content-Length: 100\r\n\r\nhalf".encode(), half_close=True)
    await gateway.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhalf!\r\n".encode(), half_close=True)
    assert b" 400 " in await gateway.raw(f"{head}Content-Length: nonsense\r\n\r\n".encode())
    whole = await gateway.raw(f"{head}Content-Length: 4\r\n\r\nhalf".encode())
    assert b" 200 " in whole
    assert [callback.body for batch in await gateway.stored() for callback in batch] == [b"half"]


async def test_a_body_that_does_not_come(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_body_timeout_s=0.1) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel(verification="off")
        head = f"POST /api/postevents?channelLabel=Twilio HTTP/1.1\r\nHost: x\r\nX-Api-Key: {tenant.api_key}\r\n"
        answer = await gateway.raw(f"{head}Content-Length: 100\r\n\r\nhalf".encode())
        assert b" 408 " in answer
        assert b'"code":"request_timeout"' in answer
        assert b"connection: close" in answer.lower()
        assert await gateway.stored() == []
        assert await outcomes(gateway) == {"body_timeout": 1}
