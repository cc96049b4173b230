"""Who may call a server: tokens and certificates over real sockets, accounts in a real MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import grpc
import pytest
from access_rig import EVERYTHING, INTERNAL, METHODS, VERBS, World, asks, first, refusal
from backhaul_common import mongo, rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.settings import CallersSettings, CommonSettings
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr, ValidationError
from rpc_service import SERVICE, Answer, Ask, Stub
from serving_rig import served
from structlog.testing import capture_logs


@pytest.mark.parametrize("method", METHODS)
async def test_a_token_opens_the_methods_of_its_verbs_for_its_tenants(world: World, method: str) -> None:
    stub = world.client(await world.account())
    assert await first(stub, method) == "service:crm"


@pytest.mark.parametrize("method", METHODS)
async def test_a_token_opens_nothing_of_another_tenant(world: World, method: str) -> None:
    stub = world.client(await world.account())
    known = await refusal(stub, method, "globex")
    unknown = await refusal(stub, method, "nobody-has-this-id")
    assert (known.code, known.field) == (Code.FORBIDDEN, "tenant_id")
    assert known.fix
    # Whether there is such a tenant is not told.
    assert (known.message, known.fix) == (unknown.message, unknown.fix)
    assert world.servicer.called == []


@pytest.mark.parametrize("method", ["Import", "Check"])
async def test_a_stream_does_not_go_on_with_another_tenant(world: World, method: str) -> None:
    stub = world.client(await world.account(tenants=("acme", "globex")))

    async def go_on() -> None:
        answers = getattr(stub, method)(asks(Ask(tenant_id="acme"), Ask(tenant_id="globex")))
        if method == "Import":
            await answers
        else:
            async for _ in answers:
                pass

    with pytest.raises(BackhaulError) as caught:
        await go_on()
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "tenant_id")


@pytest.mark.parametrize("method", METHODS)
async def test_a_verb_that_is_missing_is_named(plain: World, method: str) -> None:
    verb = VERBS[f"{SERVICE}.{method}"]
    stub = plain.client(await plain.account(verbs=tuple(one for one in EVERYTHING if one != verb)))
    error = await refusal(stub, method)
    assert error.code is Code.FORBIDDEN
    assert verb in error.message
    assert verb in error.fix


@pytest.mark.parametrize("method", ["Import", "Check"])
@pytest.mark.parametrize("lacks", ["verb", "tenant"])
async def test_a_stream_that_is_refused_is_told_why_whatever_is_sent(plain: World, method: str, lacks: str) -> None:
    """grpc.aio forgets the refusal where a request crosses it: https://github.com/grpc/grpc/issues/36066."""
    token = await (plain.account(verbs=("read",)) if lacks == "verb" else plain.account(tenants=("globex",)))
    stub = plain.client(token)

    async def requests() -> AsyncIterator[Any]:
        while True:
            yield Ask(tenant_id="acme")

    async def go_on() -> None:
        answers = getattr(stub, method)(requests())
        await (answers if method == "Import" else anext(answers))

    for _ in range(50):
        with pytest.raises(BackhaulError) as caught:
            await go_on()
        assert caught.value.code is Code.FORBIDDEN


async def test_a_wildcard_opens_every_tenant(plain: World) -> None:
    stub = plain.client(await plain.account(tenants=("*",)))
    for tenant in ("acme", "globex"):
        assert await first(stub, "Get", tenant) == "service:crm"


@pytest.mark.parametrize("tenants", [("acme",), ("*",)])
async def test_what_needs_no_verb_is_for_backhauls_own_services(world: World, tenants: tuple[str, ...]) -> None:
    stub = world.client(await world.account(tenants=tenants))
    with pytest.raises(BackhaulError) as caught:
        await stub.Keys(Answer())
    assert caught.value.code is Code.FORBIDDEN
    for token in (INTERNAL, "older-" + INTERNAL):
        assert (await world.client(token).Keys(Answer())).text == "internal"
        for method in METHODS:
            assert await first(world.client(token), method, "globex") == "internal"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic Y3JtOnh4",
        "Bearer " + INTERNAL[:-1],
        "Bearer " + INTERNAL + "x",
        "Bearer bhk_0123456789ab_" + "0" * 48,
        "Bearer bhs_0123456789ab_" + "0" * 48,
        "Bearer bhs_",
        "Bearer " + "x" * 5000,
        "\x7e" * 300,
        INTERNAL,
    ],
)
async def test_what_is_no_credential_is_refused(world: World, header: str | None) -> None:
    await world.account()
    stub = world.client()
    with pytest.raises(BackhaulError) as caught:
        await stub.Get(Ask(tenant_id="acme"), metadata=() if header is None else (("authorization", header),))
    assert caught.value.code is Code.UNAUTHENTICATED
    assert caught.value.field == "authorization"
    assert "Bearer bhs_" in caught.value.fix
    assert world.servicer.called == []


async def test_a_wrong_secret_of_a_token_that_there_is_is_refused(world: World) -> None:
    token = await world.account()
    assert (await refusal(world.client(token[:-48] + "0" * 48))).code is Code.UNAUTHENTICATED
    assert await first(world.client(token), "Get") == "service:crm"
    assert (await refusal(world.client(token[:-48] + "0" * 48))).code is Code.UNAUTHENTICATED


async def test_nobodys_request_is_taken_apart(plain: World) -> None:
    """What takes long to be taken apart must cost those who show a credential, and be theirs."""
    token = await plain.account()
    await first(plain.client(token), "Get")
    async with grpc.aio.insecure_channel(plain.target) as channel:
        get: Any = channel.unary_unary("/backhaul_test.v1.Service/Get")
        for shown, code in (
            ((), grpc.StatusCode.UNAUTHENTICATED),
            ((("authorization", f"Bearer {token}"),), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await get(b"\xff", metadata=shown)
            assert caught.value.code() is code


async def test_two_credentials_are_none(world: World) -> None:
    token = await world.account()
    other = await world.account("other")
    stub = world.client()
    with pytest.raises(BackhaulError) as caught:
        await stub.Get(
            Ask(tenant_id="acme"), metadata=(("authorization", f"Bearer {token}"), ("authorization", f"Bearer {other}"))
        )
    assert caught.value.code is Code.UNAUTHENTICATED


async def test_health_and_reflection_ask_for_nothing(plain: World) -> None:
    async with grpc.aio.insecure_channel(plain.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status in (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)


async def test_a_token_expires_by_the_clock(plain: World) -> None:
    stub = plain.client(await plain.account(expires=plain.now + timedelta(seconds=10)))
    assert await first(stub, "Get") == "service:crm"
    plain.now += timedelta(seconds=10)
    error = await refusal(stub)
    assert error.code is Code.UNAUTHENTICATED
    assert "expired" in error.message


async def test_a_revoked_token_is_refused_as_soon_as_it_is_heard(world: World) -> None:
    stub = world.client(await world.account())
    assert await first(stub, "Get") == "service:crm"
    await world.change(tokens=[])
    await world.directory.reload("crm")
    assert (await refusal(stub)).code is Code.UNAUTHENTICATED


async def test_a_service_that_is_disabled_is_told_so(plain: World) -> None:
    stub = plain.client(await plain.account())
    await plain.change(disabled=True)
    await plain.directory.refresh()
    error = await refusal(stub)
    assert (error.code, "disabled" in error.message) == (Code.FORBIDDEN, True)
    await plain.change(disabled=False)
    await plain.directory.refresh()
    assert await first(stub, "Get") == "service:crm"


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("crm.example", {"dns": ("other.example", "crm.example")}),
        ("crm.example", {"dns": ("CRM.example",)}),
        ("spiffe://example/crm", {"uris": ("spiffe://example/crm",)}),
    ],
)
async def test_a_certificates_name_is_a_credential(secured: World, name: str, names: Any) -> None:
    await secured.account(certificates=(name,))
    for method in METHODS:
        assert await first(secured.client(**names), method) == "service:crm"
    assert (await refusal(secured.client(**names), "Get", "globex")).code is Code.FORBIDDEN
    await secured.change(certificates=[])
    await secured.directory.refresh()
    assert (await refusal(secured.client(**names))).code is Code.UNAUTHENTICATED


async def test_other_names_are_none(secured: World) -> None:
    await secured.account(certificates=("crm.example", "spiffe://example/crm"))
    others: list[dict[str, Any]] = [
        {},
        {"dns": ("x.crm.example",)},
        {"dns": ("*.example",)},
        {"uris": ("spiffe://EXAMPLE/crm",)},
        # A name of one kind does not count as one of the other.
        {"uris": ("crm.example",)},
    ]
    for names in others:
        error = await refusal(secured.client(**names))
        assert error.code is Code.UNAUTHENTICATED, names


async def test_a_certificate_of_two_services_is_none(secured: World) -> None:
    await secured.account(certificates=("crm.example",))
    await secured.account("shop", certificates=("shop.example",))
    assert (await refusal(secured.client(dns=("crm.example", "shop.example")))).code is Code.UNAUTHENTICATED
    assert await first(secured.client(dns=("shop.example",)), "Get") == "service:shop"


async def test_a_token_decides_over_a_certificate(secured: World) -> None:
    await secured.account(certificates=("crm.example",))
    token = await secured.account("shop")
    assert await first(secured.client(token, dns=("crm.example",)), "Get") == "service:shop"
    assert (await refusal(secured.client("bhs_wrong", dns=("crm.example",)))).code is Code.UNAUTHENTICATED


async def test_who_is_bound_to_a_purpose_may_ask_for_that_alone(plain: World) -> None:
    stub = plain.client(await plain.account(purposes=("transactional",)))
    assert (await stub.Get(Ask(tenant_id="acme", text="transactional"))).text == "service:crm"
    for purpose in ("marketing", ""):
        with pytest.raises(BackhaulError) as caught:
            await stub.Get(Ask(tenant_id="acme", text=purpose))
        assert (caught.value.code, "transactional" in caught.value.fix) == (Code.FORBIDDEN, True)
    free = plain.client(await plain.account("free"))
    for purpose in ("marketing", "", "transactional"):
        await free.Get(Ask(tenant_id="acme", text=purpose))


async def test_nothing_is_called_wrong_before_the_accounts_have_been_read(accounts: mongo.Collection) -> None:
    world = World(accounts, None)
    async with world.stack:
        with capture_logs():
            await world.start()
            assert (await refusal(world.client("bhs_0123456789ab_" + "0" * 48))).code is Code.UNAVAILABLE
            assert await first(world.client(INTERNAL), "Get") == "internal"


async def test_other_languages_are_told_how_to_mend_it(plain: World) -> None:
    """The details are Google's, which gRPC of every language reads."""
    channel = rpc.connect(plain.target, CommonSettings())
    plain.stack.push_async_callback(channel.close)
    with pytest.raises(BackhaulError) as caught:
        await Stub(channel).Get(Ask(tenant_id="acme"))
    cause = caught.value.__cause__
    assert isinstance(cause, grpc.aio.AioRpcError)
    assert cause.code() is grpc.StatusCode.UNAUTHENTICATED
    details = dict(cause.trailing_metadata() or ())["grpc-status-details-bin"]
    assert error_details_pb2.BadRequest.DESCRIPTOR.full_name.encode() in bytes(details)


async def test_the_line_of_a_call_names_its_caller(plain: World) -> None:
    stub = plain.client(token := await plain.account())
    with capture_logs() as lines:
        await first(stub, "Get")
        async with asyncio.timeout(60):
            while not (found := [line for line in lines if line["event"] == "rpc"]):  # a list has no event
                await asyncio.sleep(0.001)
    assert found[0]["caller"] == "service:crm"
    assert token not in str(lines)


async def test_a_method_that_is_not_served_needs_no_verb() -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(ValueError, match="Gett"):
            await served(
                stack,
                SERVICE,
                without_tenant=[f"{SERVICE}.Keys"],
                access=rpc.Access([INTERNAL], None, {f"{SERVICE}.Gett": "check"}),
            )


def test_a_server_with_callers_knows_its_own() -> None:
    with pytest.raises(ValueError, match="BACKHAUL_INTERNAL_TOKEN"):
        rpc.Access([])
    with pytest.raises(ValidationError, match="BACKHAUL_INTERNAL_TOKEN"):
        CallersSettings()
    for short in ("short", INTERNAL + ",short", "x" * 31, "x " * 20):
        with pytest.raises(ValidationError, match="32"):
            CallersSettings(internal_token=SecretStr(short))
    several = CallersSettings(internal_token=SecretStr(f"{INTERNAL}, older-{INTERNAL}"))
    assert several.internal_tokens() == (INTERNAL, f"older-{INTERNAL}")
    assert INTERNAL not in repr(several)


async def test_a_channel_shows_what_backhauls_own_services_show(plain: World) -> None:
    channel = rpc.connect(plain.target, CommonSettings(internal_token=SecretStr(INTERNAL)))
    plain.stack.push_async_callback(channel.close)
    stub = Stub(channel)
    for method in METHODS:
        assert await first(stub, method, "globex") == "internal"
    # One that acts for another shows that one's.
    token = await plain.account()
    answer = await stub.Get(Ask(tenant_id="acme"), metadata=(("authorization", f"Bearer {token}"),))
    assert answer.text == "service:crm"
