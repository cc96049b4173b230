"""What the ports of a whole stack give to somebody who has no credential: nothing."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import nats.errors
import psutil
import pytest
from backhaul_local.object_store import ObjectStoreServer
from backhaul_local.pytest_plugin import StackFactory
from backhaul_local.stack import Stack, without_credentials
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_VERIFIED, Callback, CallbackBatch
from backhaul_proto.tenantdata.v1.tenantdata_pb2 import PurgeTenantRequest
from backhaul_proto.tenantdata.v1.tenantdata_pb2_grpc import TenantDataServiceStub
from backhaul_testing import broker
from pymongo import MongoClient
from pymongo.errors import OperationFailure


@pytest.fixture
async def stack(stack_factory: StackFactory) -> AsyncIterator[Stack]:
    async with stack_factory(with_object_store=True) as running:
        yield running


def processes_of(stack: Stack) -> dict[str, list[psutil.Process]]:
    found = {}
    for member in stack.members:
        process = psutil.Process(member.pid)
        found[member.name] = [process, *process.children(recursive=True)]
    return found


async def test_no_port_gives_anything_away(stack: Stack) -> None:
    _listens_on_loopback_only(stack)
    _tells_no_secret_on_a_command_line_or_in_a_file_of_others(stack)
    await _nats_takes_no_forged_callback(stack)
    _mongodb_wants_to_know_who_it_is(stack)
    await _grpc_wants_a_certificate_and_the_token(stack)
    await _the_object_store_wants_a_signature(stack)


def _listens_on_loopback_only(stack: Stack) -> None:
    for name, processes in processes_of(stack).items():
        listening = [
            connection.laddr
            for process in processes
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening, name
        for address in listening:
            # gRPC listens on IPv4 addresses by IPv6 sockets.
            assert ipaddress.ip_address(address.ip.removeprefix("::ffff:")).is_loopback, (
                f"{name} listens on {address.ip}:{address.port}"
            )


def _tells_no_secret_on_a_command_line_or_in_a_file_of_others(stack: Stack) -> None:
    credentials = stack.credentials
    secrets = [
        credentials.admin_token,
        credentials.internal_token,
        credentials.nats_password,
        credentials.mongo_password,
        credentials.s3_secret_key,
        *credentials.secret_keys,
    ]
    for name, processes in processes_of(stack).items():
        for process in processes:
            line = " ".join(process.cmdline())
            assert not any(secret in line for secret in secrets), name
    private = [stack.config.data_dir / "nats" / "nats.conf", stack.config.data_dir / "mongo" / "replica-set.key"]
    private += list((stack.config.data_dir / "tls").iterdir())
    assert len(private) == 2 + 2 + 2 * len(stack.services)
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def _nats_takes_no_forged_callback(stack: Stack) -> None:
    forged = CallbackBatch(
        callbacks=[Callback(id="0" * 32, tenant_id="acme", channel="twilio", verification=VERIFICATION_VERIFIED)]
    )
    bare = without_credentials(stack.nats_url)
    assert stack.credentials.nats_password in stack.nats_url
    assert "@" not in bare
    for url in (bare, bare.replace("://", "://backhaul:wrong@")):
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await _store(url, forged)
    await _store(stack.nats_url, forged)  # With it, it would have been stored.
    client = await broker.connect(stack.nats_url)
    assert (await client.jetstream().stream_info("CALLBACKS")).state.last_seq == 1
    await client.close()


async def _store(url: str, batch: CallbackBatch) -> None:
    client = await broker.connect(url, allow_reconnect=False)
    try:
        await client.jetstream().publish("callbacks.acme.twilio", batch.SerializeToString())
    finally:
        await client.close()


def _mongodb_wants_to_know_who_it_is(stack: Stack) -> None:
    assert stack.credentials.mongo_password in stack.mongo_uri
    with MongoClient[dict[str, Any]](without_credentials(stack.mongo_uri).partition("?")[0]) as client:
        with pytest.raises(OperationFailure) as caught:
            client["backhaul"]["tenants"].find_one({})
        assert caught.value.code == 13
        with pytest.raises(OperationFailure):
            client.admin.command("createUser", "mallory", pwd="x", roles=["root"])
    with MongoClient[dict[str, Any]](stack.mongo_uri) as client:
        assert client["backhaul"]["tenants"].find_one({}) is None


async def _grpc_wants_a_certificate_and_the_token(stack: Stack) -> None:
    target = f"127.0.0.1:{stack.port('normalizer', 'grpc')}"
    options = [("grpc.enable_http_proxy", 0)]
    authority = (stack.config.data_dir / "tls" / "ca.pem").read_bytes()
    for channel in (
        grpc.aio.insecure_channel(target, options),
        grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(authority), options),
    ):
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await TenantDataServiceStub(channel).PurgeTenant(PurgeTenantRequest(tenant_id="acme"), timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    tls = stack.config.data_dir / "tls"
    pair = [(tls / f"gateway.{ending}").read_bytes() for ending in ("key", "pem")]
    async with grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(authority, *pair), options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await TenantDataServiceStub(channel).PurgeTenant(PurgeTenantRequest(tenant_id="acme"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def _the_object_store_wants_a_signature(stack: Stack) -> None:
    s3 = stack.member("s3")
    assert isinstance(s3, ObjectStoreServer)
    ports = {claim.purpose: claim.port for claim in s3.claims()}
    async with httpx.AsyncClient(timeout=5) as client:
        assert (await client.get(f"http://127.0.0.1:{ports['S3']}/backhaul/x")).status_code == 403
        filer = f"http://127.0.0.1:{ports['S3, its filer']}/buckets/backhaul/x"
        assert (await client.get(filer)).status_code == 401
        assert (await client.put(filer, content=b"x")).status_code == 401
        assert (await client.delete(filer)).status_code == 401
        volume = f"http://127.0.0.1:{ports['S3, its volume']}/1,0123456789"
        assert (await client.get(volume)).status_code == 401
        assert (await client.put(volume, files={"file": b"x"})).status_code == 401
