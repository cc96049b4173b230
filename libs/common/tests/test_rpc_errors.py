"""What becomes of a gRPC call that fails: the error that its caller sees, and what is not said in it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2_grpc as pb_grpc
from rpc_calls_rig import SERVICE, Running, calling, raising
from serving_rig import SETTINGS
from structlog.testing import capture_logs


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with calling() as made:
        yield made


@pytest.mark.parametrize("code", Code)
async def test_a_typed_error_crosses(code: Code, running: Running) -> None:
    with capture_logs() as lines:
        error = await running.error(
            raising(BackhaulError(code, "Größe «1»\nline", field="query.limit", fix="Less.", retry_after_s=0.5))
        )
        async with asyncio.timeout(60):
            # The status leaves before the server writes its line, so the client may be the first to know.
            while not any(line["event"] == "rpc" for line in lines):  # a list has no event
                await asyncio.sleep(0.001)
    assert (error.code, error.message, error.field, error.fix, error.retry_after_s) == (
        code,
        "Größe «1»\nline",
        "query.limit",
        "Less.",
        0.5,
    )
    assert [line["outcome"] for line in lines if line["event"] == "rpc"] == [code.value]


async def test_an_error_with_a_long_text_crosses_too(running: Running) -> None:
    with capture_logs():
        error = await running.error(raising(BackhaulError(Code.INVALID_ARGUMENT, "ß" * 100_000, field="f" * 9000)))
    assert error.code is Code.INVALID_ARGUMENT
    assert error.field.startswith("fff")


async def test_what_is_unexpected_crosses_without_detail(running: Running) -> None:
    with capture_logs() as lines:
        error = await running.error(raising(RuntimeError("password=hunter2")))
    assert error.code is Code.INTERNAL
    assert "hunter2" not in str(error)
    assert isinstance(error.__cause__, grpc.aio.AioRpcError)
    assert "hunter2" not in str(error.__cause__)
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["rpc_failed"]


async def test_somebody_elses_timeout_is_not_the_calls_deadline(running: Running) -> None:
    with capture_logs():
        error = await running.error(raising(TimeoutError("the database driver's")))
    assert error.code is Code.INTERNAL


async def test_a_message_beyond_grpcs_limit_is_too_large_and_not_retryable(running: Running) -> None:
    request = pb.GetMessageRequest()
    request.ParseFromString(b"\xfa\x07" + _varint(17 << 20) + b"x" * (17 << 20))  # An unknown field of 17 MiB.
    with pytest.raises(BackhaulError) as caught:
        await running.stub.GetMessage(request)
    assert caught.value.code is Code.TOO_LARGE
    assert not caught.value.meaning.retryable


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


async def test_a_method_that_is_not_there_may_be_there_later(running: Running) -> None:
    call: Any = running.channel.unary_unary(f"/{SERVICE}/Nothing")
    with capture_logs(), pytest.raises(BackhaulError) as caught:
        await call(b"")
    assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.timed
async def test_a_server_that_is_away_is_unavailable_at_once() -> None:
    with socket.socket() as taken:  # Bound and not listening: nobody is there.
        taken.bind(("127.0.0.1", 0))
        channel = rpc.connect(f"127.0.0.1:{taken.getsockname()[1]}", SETTINGS)
        stub: Any = pb_grpc.NormalizerServiceStub(channel)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(BackhaulError) as caught:
            await stub.GetMessage(pb.GetMessageRequest(tenant_id="acme"))
        assert caught.value.code is Code.UNAVAILABLE
        assert loop.time() - began < 1
        await channel.close()
