"""What a process of every service has: made in one place, and closed in reverse."""

from __future__ import annotations

from backhaul_common import nats_alone  # noqa: F401  # Before all that imports nats-py.

# isort: split

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from nats.js import JetStreamContext

from backhaul_common import jetstream, lifecycle, logs, mongo, rpc
from backhaul_common.accounts import Verb
from backhaul_common.bus import Bus, Hook
from backhaul_common.certificates import Certificates, Files, UnfitError
from backhaul_common.changelog import Logged
from backhaul_common.changestore import MongoChanges
from backhaul_common.directory import ServiceDirectory, TenantDirectory, TenantDocuments
from backhaul_common.feed import PositionReader, ReaderConfig
from backhaul_common.following import Follower, Progress
from backhaul_common.jetstream import Connection
from backhaul_common.lifecycle import Readiness, cancel, keep_running, spare_the_collector, until_done
from backhaul_common.metering import Metrics
from backhaul_common.metrics import GRPC_CALLS
from backhaul_common.metrics_http import serve_metrics
from backhaul_common.names import SERVICES_COLLECTION, TENANTS_COLLECTION
from backhaul_common.revisioned import Documents
from backhaul_common.settings import CallersSettings, CommonSettings, MetricsPortSettings, load
from backhaul_common.sizes import MAX_REQUEST_BYTES
from backhaul_common.store_format import StoreFormat
from backhaul_common.tls import client_context, context_to, files_of
from backhaul_common.tracing import Tracing

S = TypeVar("S", bound=CommonSettings)
Work = Callable[[], Awaitable[None]]

_JETSTREAM_TIMEOUT_S = 5


class Service:
    """``async with Service(name, settings) as service``: logs, traces, metrics, readiness, tenants, MongoDB and NATS.

    Inside, a service is built: what it needs is taken from here, what it does is registered here. Nothing begins before
    ``until`` (or ``start``), so the order of the lines decides nothing. MongoDB and NATS may be away then and at any
    time later; ``readiness`` tells of it.

    At the end everything is closed in this order, each part with all that it needs still there:

    1. what others call: gRPC servers answer what is under way, for some seconds
    2. what was given to ``run``, the last first
    3. what was put on ``stack``, the last first
    4. the hooks of the connection to NATS, and the tenants
    5. NATS, once it has taken what was published
    6. MongoDB
    7. the port of the metrics, metrics, traces
    """

    metrics: Metrics
    tracing: Tracing
    mongo_client: mongo.Client
    database: mongo.Database
    store_format: StoreFormat
    tenants: TenantDirectory
    nats: Connection
    js: JetStreamContext

    def __init__(
        self,
        name: str,
        settings: CommonSettings,
        *,
        buffer_while_away: bool = True,
        tenant_secrets: bool = False,
        tracing: Tracing | None = None,
    ) -> None:
        """``name`` is the service's in logs, traces and metrics.

        With ``tenant_secrets`` the tenants have their credentials' digests and their channels' encrypted secrets.

        With ``buffer_while_away`` false nothing is published later than it was asked for: see ``jetstream.connect``.
        ``tracing`` is used instead of what the environment asks for.
        """
        self.name = name
        self.readiness = Readiness()
        self.stack = AsyncExitStack()
        """For whatever else has to be closed."""
        self.prepared = asyncio.Event()
        """Set when the database and the streams are as they must be, and NATS was connected to once."""
        self._settings = settings
        self._buffer_while_away = buffer_while_away
        self._tenant_secrets = tenant_secrets
        self._tracing = tracing
        self._closing = AsyncExitStack()
        self._tasks = AsyncExitStack()
        self._work = AsyncExitStack()
        self._edges = AsyncExitStack()
        self._preparations: list[tuple[str, Work]] = []
        self._registered: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = []
        self._streams_made = False
        self._started = False
        self._accounts: ServiceDirectory | None = None

    async def __aenter__(self) -> Self:
        settings = self._settings
        logs.configure(self.name, fmt=settings.log_format, level=settings.log_level)
        self.log = logs.get_logger()
        async with AsyncExitStack() as closing:
            self.tracing = self._tracing or Tracing.from_environment(self.name)
            closing.callback(self.tracing.close)
            self.metrics = Metrics(self.name)
            closing.callback(self.metrics.close)
            self._calls = self.metrics.counter(GRPC_CALLS)
            self._certificates = Certificates(self.metrics)
            if settings.grpc_tls_cert_file is not None:
                try:
                    self.watch("internal", files_of(settings, client_context))
                except UnfitError as exc:
                    raise SystemExit(f"BACKHAUL_GRPC_TLS_CERT_FILE: cannot use the certificate: {exc}") from exc
            if isinstance(settings, MetricsPortSettings) and settings.metrics_port:
                await serve_metrics(
                    closing, self.metrics, self._failing, host=settings.metrics_host, port=settings.metrics_port
                )
            self.mongo_client = mongo.connect(
                settings.mongo_uri.get_secret_value(), tls=context_to("mongodb", settings)
            )
            closing.push_async_callback(mongo.close, self.mongo_client)
            self.database = mongo.database(self.mongo_client, settings.mongo_database)
            self.store_format = StoreFormat(self.database)
            self.tenants = TenantDirectory(
                TenantDocuments(self.database[TENANTS_COLLECTION], secrets=self._tenant_secrets),
                before_reading=self.store_format.ensure,
            )
            self._bus = Bus(settings, self.name, buffer_while_away=self._buffer_while_away)
            closing.push_async_callback(self._bus.close)
            self.nats = self._bus.client
            self.js = self.nats.jetstream(timeout=_JETSTREAM_TIMEOUT_S)
            for inner in (self._tasks, self.stack, self._work, self._edges):
                await closing.enter_async_context(inner)
            self._channels = rpc.Channels(self.stack, settings)
            self._closing = closing.pop_all()
        self._bus.on_connected("streams", self._make_streams)
        # The collection may not even be read in a database of an unknown format.
        self._bus.on_connected("tenants", partial(self.store_format.then, partial(self.tenants.follow, self.nats)))
        for name, check in (
            ("store_format", self.store_format.ensure),
            ("tenants", self.tenants.check),
            ("streams", self._check_streams),
        ):
            self.readiness.add(name, check)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    def on_connected(self, name: str, hook: Hook) -> None:
        """Do ``hook`` over every connection to NATS: see ``Bus.on_connected``."""
        self._bus.on_connected(name, hook)

    def prepare(self, name: str, work: Work) -> None:
        """Do ``work`` once when the database has a known format, for example to make an index; again until it succeeds.

        What is given here is done one after another, and before ``prepared``.
        """
        self._preparations.append((name, work))

    def run(self, name: str, work: Work, *, after: asyncio.Event | None = None) -> None:
        """Do ``work`` until the end, and again whenever it returns or fails; not before ``after`` is set."""

        async def supervised() -> None:
            if after is not None:
                await after.wait()
            await keep_running(name, work)

        if self._started:
            _begin(self._work, name, supervised())
        else:
            self._registered.append((name, supervised))

    def watch(self, name: str, files: Files[Any]) -> None:
        """Look at a certificate's files until the end, and tell of them under ``name``: in metrics and in the log."""
        self.run(f"certificate_{name}", self._certificates.add(name, files).watch)

    def channel(self, target: str) -> rpc.Channel:
        """The channel to another service, one for each ``target`` (host:port): see ``rpc.Channels``."""
        return self._channels.to(target)

    def follow(self, stream: str, progress: Progress) -> PositionReader:
        """Have ``progress`` made of all that lies in ``stream``, in order and by position. Once for each stream."""
        reader = PositionReader(self.nats, self.js, ReaderConfig(stream, self.name))
        name = f"reader_{stream.lower()}"
        self.on_connected(name, reader.reconnected)
        self.readiness.add(name, reader.check)
        self.run(name, reader.run, after=self.prepared)
        self.run(f"follower_{stream.lower()}", Follower(reader, progress).run, after=self.prepared)
        return reader

    async def serve(
        self,
        listen: str,
        services: Mapping[str, Callable[[grpc.aio.Server], None]],
        *,
        without_tenant: Collection[str] = (),
        verbs: Mapping[str, Verb] | None = None,
        logged: Mapping[str, Logged | None] | None = None,
        frequent: Collection[str] = (),
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> rpc.Server:
        """Serve gRPC at once, on ``listen`` (host:port); see ``rpc.serve``.

        ``services`` leads from the full name of each service to what adds it to the server. With ``verbs`` service
        accounts may call those methods, see ``rpc.Access``; the settings are ``CallersSettings`` then, and ``logged``
        says what is put down of each method by which they change something, see ``rpc.CallLog``. Without, only
        Backhaul's own services may call where an internal token is set, and everybody where none is.
        """
        tokens = self._settings.internal_tokens()
        access, changes = None, None
        if verbs is not None:
            changes = self._call_log(logged or {})
            access = rpc.Access(tokens, self._follow_accounts(), verbs)
        elif tokens:
            access = rpc.Access(tokens)

        def register(server: grpc.aio.Server) -> None:
            for add in services.values():
                add(server)

        return await rpc.serve(
            self._edges,
            self._settings,
            self.tracing,
            self.readiness,
            listen=listen,
            services=list(services),
            register=register,
            without_tenant=without_tenant,
            access=access,
            changes=changes,
            calls=self._calls,
            frequent=frequent,
            max_request_bytes=max_request_bytes,
        )

    def _call_log(self, logged: Mapping[str, Logged | None]) -> rpc.CallLog:
        settings = self._settings
        if not isinstance(settings, CallersSettings):
            raise TypeError("what service accounts may call needs CallersSettings")
        days = settings.gateway_change_retention_days
        store = MongoChanges(self.database, self.store_format, days=days)
        return rpc.CallLog(store, self.tenants.tenants, logged)

    def _follow_accounts(self) -> ServiceDirectory:
        if self._accounts is None:
            documents = Documents(self.database[SERVICES_COLLECTION])
            accounts = ServiceDirectory(documents, before_reading=self.store_format.ensure)
            self.on_connected("services", partial(self.store_format.then, partial(accounts.follow, self.nats)))
            self.readiness.add("services", accounts.check)
            self.run("services", partial(self.store_format.then, accounts.run))
            self._accounts = accounts
        return self._accounts

    def start(self) -> None:
        """Begin with everything that was registered."""
        self._started = True
        _begin(self._tasks, "prepare", self._prepare())
        _begin(self._tasks, "tenants", self.store_format.then(self.tenants.run))
        _begin(self._tasks, "nats", keep_running("nats", self._bus.run))
        for name, work in self._registered:
            _begin(self._work, name, work())

    async def until(self, stop: asyncio.Event, *others: asyncio.Task[Any]) -> None:
        """Begin, and return when ``stop`` is set or one of ``others`` has ended."""
        spare_the_collector()
        self.start()
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait((stopping, *others), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(stopping)
        self.log.info("stopping")

    async def _failing(self) -> dict[str, str]:
        # Checks are added until the start, so none of them is no sign yet.
        return await self.readiness.failing() if self._started else {"start": "The service is being built."}

    async def _prepare(self) -> None:
        await self.store_format.run()
        for name, work in self._preparations:
            await until_done(name, work)
        await self._bus.settled.wait()
        self.prepared.set()

    async def _make_streams(self) -> None:
        # After every reconnection: it may be another server, or one that lost its disk.
        await jetstream.ensure_streams(self.js, self._settings)
        self._streams_made = True

    async def _check_streams(self) -> None:
        if not self._streams_made:
            raise ConnectionError("The streams were not seen to yet.")


def main(settings: type[S], run: Callable[[S, asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """A process: read the settings, and ``run`` until SIGTERM or SIGINT sets the event that it is given."""
    lifecycle.run(partial(run, load(settings)))


def _begin(stack: AsyncExitStack, name: str, work: Coroutine[Any, Any, None]) -> None:
    stack.push_async_callback(cancel, asyncio.create_task(work, name=name))
