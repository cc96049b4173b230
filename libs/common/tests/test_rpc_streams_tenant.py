"""Which tenant a call is about, whether it is a stream or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from rpc_service import SERVICE, Answer, Ask
from rpc_streams_rig import Running, asks, streaming
from serving_rig import served


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with streaming() as made:
        yield made


@pytest.mark.parametrize("tenant", ["", "No Such Id", "../acme"])
@pytest.mark.parametrize("method", ["Get", "Watch", "Import", "Check"])
async def test_every_call_names_a_tenant(running: Running, method: str, tenant: str) -> None:
    request = asks("a", tenant=tenant) if method in ("Import", "Check") else Ask(tenant_id=tenant)
    with pytest.raises(BackhaulError) as caught:
        await running.all_of(method, request)
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "tenant_id")
    assert not running.servicer.ended.is_set()


async def test_a_method_that_is_exempt_names_none(running: Running) -> None:
    assert (await running.stub.Keys(Answer())).text == "anybody's"


@pytest.mark.parametrize("method", ["Import", "Check"])
async def test_a_stream_is_about_one_tenant(running: Running, method: str) -> None:
    async def mixed() -> AsyncIterator[Any]:
        yield Ask(tenant_id="acme", text="a")
        yield Ask(text="b")
        yield Ask(tenant_id="umbrella", text="c")

    with pytest.raises(BackhaulError) as caught:
        await running.all_of(method, mixed())
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "tenant_id")


async def test_an_empty_stream_names_no_tenant(running: Running) -> None:
    with pytest.raises(BackhaulError) as caught:
        await running.stub.Import(asks())
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("without", [[], ["backhaul_test.v1.Service.Kyes", "backhaul_test.v1.Service.Keys"]])
async def test_what_names_no_tenant_is_declared(without: Sequence[str]) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(ValueError, match=r"Keys takes no tenant_id|not served: .*Kyes"):
            await served(stack, SERVICE, without_tenant=without)
