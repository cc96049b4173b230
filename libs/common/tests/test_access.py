"""Who may call a server: tokens and certificates over real sockets, accounts in a real MongoDB, changes over NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from backhaul_common import mongo, rpc
from backhaul_common.accounts import ServiceAccount, ServiceLimits, ServiceToken
from backhaul_common.directory import ServiceDirectory
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import new_registration
from backhaul_common.lifecycle import Readiness, cancel
from backhaul_common.names import SERVICE_CHANGED_SUBJECT
from backhaul_common.revisioned import Documents
from backhaul_common.secrets import new_credential
from backhaul_common.settings import CallersSettings, CommonSettings
from backhaul_common.tracing import Tracing
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr, ValidationError
from rpc_service import SERVICE, Answer, Ask, Stub, handlers
from structlog.testing import capture_logs
from test_rpc_tls import Authority

INTERNAL = "internal-token-0123456789abcdefghij"
VERBS: dict[str, Any] = {
    f"{SERVICE}.Get": "check",
    f"{SERVICE}.Watch": "watch",
    f"{SERVICE}.Check": "check",
    f"{SERVICE}.Import": "import",
}
EVERYTHING = ("check", "read", "add", "lift", "import", "export", "watch")
METHODS = ["Get", "Watch", "Import", "Check"]


class Servicer:
    """Says who called."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.ended = asyncio.Event()

    def _who(self) -> str:
        caller = rpc.caller()
        self.called.append("internal" if caller.internal else caller.author)
        return self.called[-1]

    async def do_get(self, request: Any, context: Any) -> Any:
        rpc.caller().take_checks(request.number)
        rpc.caller().require_purpose(request.text)
        return Answer(text=self._who())

    async def do_watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            yield Answer(text=self._who())
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def do_import(self, requests: AsyncIterator[Any], context: Any) -> Any:
        return Answer(text=self._who(), number=len([request async for request in requests]))

    async def do_check(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            await rpc.caller().wait_for_checks(request.number)
            yield Answer(text=self._who())

    async def do_keys(self, request: Any, context: Any) -> Any:
        return Answer(text=self._who())


class World:
    """A server that asks for credentials, and the accounts that it knows."""

    def __init__(self, accounts: mongo.Collection, authority: Authority | None) -> None:
        self._accounts = accounts
        self.directory = ServiceDirectory(Documents(accounts), refresh_s=3600)
        self.authority = authority
        self.servicer = Servicer()
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.target = ""
        self.stack = AsyncExitStack()

    def time(self) -> float:
        """The server's clock."""
        return self.now.timestamp()

    async def start(self) -> None:
        server_settings = self.authority.issue("server") if self.authority else CommonSettings()
        server = await rpc.serve(
            self.stack,
            server_settings,
            Tracing("test", None),
            Readiness(),
            listen="127.0.0.1:0",
            services=[SERVICE],
            register=partial(handlers, servicer=self.servicer),
            without_tenant=[f"{SERVICE}.Keys"],
            access=rpc.Access(["older-" + INTERNAL, INTERNAL], self.directory, VERBS, now=self.time),
        )
        self.target = f"127.0.0.1:{server.port}"

    def client(self, token: str = "", *, dns: tuple[str, ...] = (), uris: tuple[str, ...] = ()) -> Stub:
        """A caller with a token, or a certificate with these names. Each has a connection of its own."""
        settings = CommonSettings()
        if self.authority is not None:
            settings = self.authority.issue("client", dns=dns, uris=uris)
        # What is shown need not be long enough for a setting.
        channel = rpc.connect(self.target, settings.model_copy(update={"internal_token": SecretStr(token)}))
        self.stack.push_async_callback(channel.close)
        return Stub(channel)

    async def account(self, service_id: str = "crm", **values: Any) -> str:
        """Store an account, and return the text of its token."""
        token_id, text, digest = new_credential("service")
        account = ServiceAccount(
            id=service_id,
            registration=new_registration(service_id),
            name=service_id,
            tokens=(
                ServiceToken(id=token_id, digest=digest, created_at=self.now, expires_at=values.pop("expires", None)),
            ),
            **{
                "tenants": ("acme",),
                "verbs": EVERYTHING,
                "created_at": self.now,
                "updated_at": self.now,
                **values,
            },
        )
        await self._accounts.replace_one({"_id": service_id}, account.to_document(), upsert=True)
        await self.directory.reload(service_id)
        return text

    async def change(self, service_id: str = "crm", **fields: Any) -> None:
        """Change it as another process would; nobody is told."""
        await self._accounts.update_one({"_id": service_id}, {"$set": fields, "$inc": {"revision": 1}})

    async def delete(self, service_id: str = "crm") -> None:
        await self._accounts.delete_one({"_id": service_id})


@pytest.fixture
def accounts(mongo_server: MongoServer, mongo_database: str) -> Iterator[mongo.Collection]:
    client = mongo.connect(mongo_server.uri)
    yield mongo.database(client, mongo_database)["services"]
    client.close()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def world(request: Any, accounts: mongo.Collection, tmp_path: Path) -> AsyncIterator[World]:
    made = World(accounts, Authority(tmp_path, "authority") if request.param else None)
    with capture_logs():
        async with made.stack:
            await made.directory.refresh()
            await made.start()
            yield made


@pytest.fixture
async def secured(accounts: mongo.Collection, tmp_path: Path) -> AsyncIterator[World]:
    made = World(accounts, Authority(tmp_path, "authority"))
    with capture_logs():
        async with made.stack:
            await made.directory.refresh()
            await made.start()
            yield made


@pytest.fixture
async def plain(accounts: mongo.Collection) -> AsyncIterator[World]:
    made = World(accounts, None)
    with capture_logs():
        async with made.stack:
            await made.directory.refresh()
            await made.start()
            yield made


async def asks(*requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def first(stub: Stub, method: str, tenant: str = "acme") -> str:
    """The first answer of a method."""
    request = Ask(tenant_id=tenant)
    if method in ("Import", "Check"):
        request = asks(request)
    answers = getattr(stub, method)(request)
    answer = await anext(answers) if method in ("Watch", "Check") else await answers
    if method in ("Watch", "Check"):
        await answers.aclose()
    text: str = answer.text
    return text


async def refusal(stub: Stub, method: str = "Get", tenant: str = "acme") -> BackhaulError:
    with pytest.raises(BackhaulError) as caught:
        await first(stub, method, tenant)
    return caught.value


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


CHANGES: dict[str, tuple[dict[str, Any], Code]] = {
    "revoked": ({"tokens": []}, Code.UNAUTHENTICATED),
    "disabled": ({"disabled": True}, Code.FORBIDDEN),
    "without the verb": ({"verbs": ["check"]}, Code.FORBIDDEN),
    "with other purposes": ({"purposes": ["marketing"]}, Code.UNAVAILABLE),
    "without the tenant": ({"tenants": ["globex"]}, Code.FORBIDDEN),
}


@pytest.mark.parametrize("how", [*CHANGES, "deleted"])
async def test_a_stream_ends_when_what_opened_it_is_taken_away(world: World, nats_server: NatsServer, how: str) -> None:
    token = await world.account()
    other = world.client(await world.account("other"))
    nats = await broker.connect([nats_server.uri])
    world.stack.push_async_callback(nats.close)
    await world.directory.follow(nats)
    answers = world.client(token).Watch(Ask(tenant_id="acme"))
    assert (await anext(answers)).text == "service:crm"
    stays = other.Watch(Ask(tenant_id="acme"))
    await anext(stays)
    if how == "deleted":
        code = Code.UNAUTHENTICATED
        await world.delete()
    else:
        fields, code = CHANGES[how]
        await world.change(**fields)
    await nats.publish(SERVICE_CHANGED_SUBJECT, b"crm")
    async with asyncio.timeout(5):
        with pytest.raises(BackhaulError) as caught:
            await anext(answers)
    assert caught.value.code is code
    # Nobody else's does.
    reading = asyncio.ensure_future(anext(stays))
    assert await first(other, "Get") == "service:other"
    assert not reading.done()
    await cancel(reading)


async def test_a_stream_goes_on_when_something_else_changes(plain: World) -> None:
    answers = plain.client(await plain.account()).Watch(Ask(tenant_id="acme"))
    await anext(answers)
    reading = asyncio.ensure_future(anext(answers))
    await plain.change(name="CRM of the south", tenants=["acme", "globex"])
    await plain.directory.refresh()
    assert await first(plain.client(INTERNAL), "Get") == "internal"
    assert not reading.done()
    await cancel(reading)


async def test_an_account_that_was_made_anew_does_not_inherit_streams(secured: World) -> None:
    await secured.account(certificates=("crm.example",), tenants=("*",))
    answers = secured.client(dns=("crm.example",)).Watch(Ask(tenant_id="acme"))
    await anext(answers)
    await secured.account(certificates=("crm.example",), tenants=("*",))
    async with asyncio.timeout(5):
        with pytest.raises(BackhaulError) as caught:
            await anext(answers)
    assert caught.value.code is Code.UNAUTHENTICATED


async def test_a_stream_ends_when_its_token_expires(plain: World) -> None:
    # The test's clock stands still until the stream is there, and is past the end when the server looks again.
    token = await plain.account(expires=plain.now + timedelta(seconds=0.3))
    answers = plain.client(token).Watch(Ask(tenant_id="acme"))
    await anext(answers)
    plain.now += timedelta(seconds=1)
    async with asyncio.timeout(5):
        with pytest.raises(BackhaulError) as caught:
            await anext(answers)
        await plain.servicer.ended.wait()
    assert (caught.value.code, "expired" in caught.value.message) == (Code.UNAUTHENTICATED, True)


async def test_a_stream_ends_when_its_token_is_given_an_end(plain: World) -> None:
    answers = plain.client(await plain.account()).Watch(Ask(tenant_id="acme"))
    await anext(answers)
    ends: dict[str, Any] = {"tokens.0.expires_at": plain.now + timedelta(seconds=0.3)}
    await plain.change(**ends)
    await plain.directory.refresh()
    plain.now += timedelta(seconds=1)
    async with asyncio.timeout(5):
        with pytest.raises(BackhaulError) as caught:
            await anext(answers)
    assert caught.value.code is Code.UNAUTHENTICATED


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


async def test_each_caller_has_limits_of_its_own(plain: World) -> None:
    limits = ServiceLimits(requests_per_second=0.01, burst=2, checks_per_second=0.01, checks_burst=3)
    stub = plain.client(await plain.account(limits=limits))
    other = plain.client(await plain.account("other", limits=limits))
    for _ in range(2):
        await first(stub, "Import")
    error = await refusal(stub, "Import")
    assert error.code is Code.RATE_LIMITED
    assert error.retry_after_s is not None
    assert 90 < error.retry_after_s <= 100
    # Also where the answer would be no.
    assert (await refusal(stub, "Import", "globex")).code is Code.RATE_LIMITED
    # Checks are counted apart, by address.
    await stub.Get(Ask(tenant_id="acme", number=3))
    assert (await refusal(stub, "Get")).code is Code.RATE_LIMITED
    assert await first(other, "Import") == "service:other"
    assert await first(other, "Get") == "service:other"
    # A change of the account refills nothing.
    await plain.change(name="x")
    await plain.directory.refresh()
    assert (await refusal(stub, "Import")).code is Code.RATE_LIMITED
    # And Backhaul itself has none.
    for _ in range(10):
        await first(plain.client(INTERNAL), "Get")


@pytest.mark.parametrize("number", [5, 100])
async def test_a_batch_of_the_burst_or_more_passes_and_is_paid_for_later(plain: World, number: int) -> None:
    limits = ServiceLimits(checks_per_second=0.01, checks_burst=5)
    stub = plain.client(await plain.account(limits=limits))
    await stub.Get(Ask(tenant_id="acme", number=number))
    error = await refusal(stub, "Get")
    assert error.code is Code.RATE_LIMITED
    assert error.retry_after_s is not None
    owed = number - 5 + 1
    assert 100 * owed - 10 < error.retry_after_s <= 100 * owed


async def test_a_batch_is_refused_as_a_whole_while_less_than_the_burst_is_left(plain: World) -> None:
    stub = plain.client(await plain.account(limits=ServiceLimits(checks_per_second=0.01, checks_burst=5)))
    await first(stub, "Get")
    with pytest.raises(BackhaulError) as caught:
        await stub.Get(Ask(tenant_id="acme", number=5))
    assert caught.value.code is Code.RATE_LIMITED
    # What was left but for the call itself is there.
    await stub.Get(Ask(tenant_id="acme", number=3))


async def test_a_stream_of_checks_waits_for_its_turn(plain: World) -> None:
    limits = ServiceLimits(checks_per_second=50, checks_burst=5)
    stub = plain.client(await plain.account(limits=limits))
    began = asyncio.get_running_loop().time()
    answers = [one async for one in stub.Check(asks(*[Ask(tenant_id="acme", number=5)] * 4))]
    assert len(answers) == 4
    assert asyncio.get_running_loop().time() - began > 0.25


async def test_a_caller_has_so_many_streams_and_no_more(plain: World) -> None:
    stub = plain.client(await plain.account(limits=ServiceLimits(concurrent_streams=2)))
    open_ones = [stub.Watch(Ask(tenant_id="acme")) for _ in range(2)]
    for one in open_ones:
        await anext(one)
    assert (await refusal(stub, "Watch")).code is Code.RATE_LIMITED
    plain.servicer.ended.clear()
    await open_ones[0].aclose()
    async with asyncio.timeout(5):
        await plain.servicer.ended.wait()
        while (await plain_code(stub)) is Code.RATE_LIMITED:  # the server lets go of it a moment after its handler
            await asyncio.sleep(0.01)
    await open_ones[1].aclose()


async def plain_code(stub: Stub) -> Code | None:
    try:
        await first(stub, "Watch")
    except BackhaulError as exc:
        return exc.code
    return None


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
        async with asyncio.timeout(5):
            while not (found := [line for line in lines if line["event"] == "rpc"]):  # a list has no event
                await asyncio.sleep(0.001)
    assert found[0]["caller"] == "service:crm"
    assert token not in str(lines)


async def test_a_method_that_is_not_served_needs_no_verb() -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(ValueError, match="Gett"):
            await rpc.serve(
                stack,
                CommonSettings(),
                Tracing("test", None),
                Readiness(),
                listen="127.0.0.1:0",
                services=[SERVICE],
                register=lambda _: None,
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
