"""A whole stack: the servers and the services, each as a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from cryptography.fernet import Fernet

from backhaul_local.certificates import authority_path, certificate_path, ensure_certificates, key_path
from backhaul_local.errors import LateError, LocalStackError, SettingError
from backhaul_local.member import START_TIMEOUT_S, Member
from backhaul_local.mongod import MongoConfig, MongoServer, mongo_replica_set
from backhaul_local.nats_server import ROUTE, NatsConfig, NatsServer, nats_cluster
from backhaul_local.object_store import ObjectStoreConfig, ObjectStoreServer
from backhaul_local.ports import Hold, PortClaim, ensure_free
from backhaul_local.service import Service, ServiceSpec, default_services, fill_in

M = TypeVar("M", bound=Member)


@dataclass(frozen=True, kw_only=True)
class ObjectStoreAccess:
    """Where object storage is; `endpoint` is a URL."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str = "backhaul"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The secrets of one installation. `secret_keys` are Fernet keys; the first one encrypts."""

    admin_token: str = field(repr=False)
    secret_keys: Sequence[str] = field(repr=False)
    internal_token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    nats_password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    mongo_password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    s3_access_key: str = "backhaul"
    s3_secret_key: str = field(default="backhaul-local", repr=False)

    @classmethod
    def generate(cls) -> Self:
        return cls(
            admin_token=secrets.token_urlsafe(32),
            secret_keys=(Fernet.generate_key().decode(),),
            s3_secret_key=secrets.token_urlsafe(24),
        )


def clean_environment() -> dict[str, str]:
    """This process's environment without Backhaul's settings, so that a shell's settings do not reach tests.

    Services keep their modules compiled even where the environment forbids it: otherwise each process, at each start,
    would compile a thousand of them again, for longer than everything else at its start takes.
    """
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("BACKHAUL_") and key != "PYTHONDONTWRITEBYTECODE"
    }


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """What to run.

    data_dir: where servers and services keep their data, one folder each.
    log_dir: one file a process (default: data_dir/logs).
    ports: by name: `nats`, `mongo`, `s3`, `<service>_<port>`; what is not named gets a free port.
    nodes: how many NATS servers make a cluster, and how many mongods a replica set. With several every stream has a
        copy on each, and their data cannot be used again: the nodes know each other by ports that are chosen anew.
    nats_url, mongo_uri, object_store: given, they are used instead of starting a server.
    with_object_store: False starts none.
    tls: speak TLS with the servers that this stack starts, and with certificates, as between services.
    env, service_env: settings for every service, and for one by its name; they win over what the stack sets.
    """

    data_dir: Path
    log_dir: Path | None = None
    services: Sequence[ServiceSpec] = field(default_factory=default_services)
    ports: Mapping[str, int] = field(default_factory=dict)
    nodes: int = 1
    nats_url: str | None = None
    mongo_uri: str | None = None
    object_store: ObjectStoreAccess | None = None
    with_object_store: bool = True
    tls: bool = False
    mongo_database: str = "backhaul"
    nats_sync_always: bool = True
    mongo_cache_gb: float = 0.25
    credentials: Credentials = field(default_factory=Credentials.generate)
    log_format: str = "json"
    log_level: str = "info"
    base_env: Mapping[str, str] = field(default_factory=clean_environment)
    env: Mapping[str, str] = field(default_factory=dict)
    service_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    start_timeout: float = START_TIMEOUT_S
    """Seconds that each process has until it is ready."""


class Stack:
    """``async with Stack(config) as stack``: everything is ready inside, everything has ended outside.

    Members are also driven one by one: ``await stack.kill("normalizer")``, ``stack.member("nats").pause()``. The names
    are those of the services, and `nats`, `mongod`, `s3` for the servers that this stack started; of several nodes the
    others are `nats-2`, `mongod-2` and so on.
    """

    def __init__(self, config: StackConfig) -> None:
        self.config = config
        self.credentials = config.credentials
        log_dir = config.log_dir or config.data_dir / "logs"
        self._tls_dir = config.data_dir / "tls"
        tls_dir = self._tls_dir if config.tls else None
        # The nodes' ports are chosen together, and held for as long as this may start them.
        self._hold = hold = Hold()
        self.nats_servers: list[NatsServer] = []
        self.mongo_servers: list[MongoServer] = []
        self.s3: ObjectStoreServer | None = None
        if config.nats_url is None:
            nats = NatsConfig(
                data_dir=config.data_dir / "nats",
                port=config.ports.get("nats", 0),
                log_path=log_dir / "nats.log",
                sync_always=config.nats_sync_always,
                password=config.credentials.nats_password,
                tls_dir=tls_dir,
            )
            self.nats_servers = nats_cluster(nats, config.nodes, hold=hold, start_timeout=config.start_timeout)
        if config.mongo_uri is None:
            mongo = MongoConfig(
                cache_gb=config.mongo_cache_gb,
                password=config.credentials.mongo_password,
                tls_dir=tls_dir,
                data_dir=config.data_dir / "mongo",
                port=config.ports.get("mongo", 0),
                log_path=log_dir / "mongod.log",
            )
            self.mongo_servers = mongo_replica_set(mongo, config.nodes, hold=hold, start_timeout=config.start_timeout)
        if config.object_store is None and config.with_object_store:
            s3 = ObjectStoreConfig(
                data_dir=config.data_dir / "s3",
                port=config.ports.get("s3", 0),
                avoid=frozenset(config.ports.values()),
                log_path=log_dir / "s3.log",
                access_key=config.credentials.s3_access_key,
                secret_key=config.credentials.s3_secret_key,
                tls_dir=tls_dir,
            )
            self.s3 = ObjectStoreServer(s3, start_timeout=config.start_timeout)
        self.servers: list[Member] = [*self.mongo_servers, *self.nats_servers, *([self.s3] if self.s3 else [])]
        self.services = self._build_services(log_dir)

    @property
    def nats(self) -> NatsServer | None:
        """The first one."""
        return next(iter(self.nats_servers), None)

    @property
    def mongo(self) -> MongoServer | None:
        """The first one."""
        return next(iter(self.mongo_servers), None)

    @property
    def members(self) -> list[Member]:
        """Everything that this stack runs, in the order of starting."""
        return [*self.servers, *self.services]

    @property
    def nats_url(self) -> str:
        """One or more servers, comma-separated."""
        return ",".join(server.uri for server in self.nats_servers) or str(self.config.nats_url)

    @property
    def mongo_uri(self) -> str:
        return self.mongo.uri if self.mongo is not None else str(self.config.mongo_uri)

    @property
    def mongo_database(self) -> str:
        return self.config.mongo_database

    @property
    def object_store(self) -> ObjectStoreAccess | None:
        if self.config.object_store is not None or self.s3 is None:
            return self.config.object_store
        started = self.s3.config
        return ObjectStoreAccess(
            endpoint=self.s3.uri,
            access_key=started.access_key,
            secret_key=started.secret_key,
            bucket=started.bucket,
        )

    @property
    def admin_token(self) -> str:
        return self.credentials.admin_token

    @property
    def gateway_url(self) -> str:
        """The gateway's address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port('gateway', 'http')}"

    def port(self, service: str, name: str) -> int:
        return self.service(service).ports[name]

    def service(self, name: str) -> Service:
        return _named(self.services, name)

    def member(self, name: str) -> Member:
        return _named(self.members, name)

    async def start(self) -> None:
        """Start the servers together, then the services together; ready on return, nothing left after a failure."""
        try:
            ensure_free(self.claims())  # All conflicts at once, before anything runs.
            await self.start_servers()
            await self.start_services()
        except BaseException:
            await self.kill_all()
            raise

    def claims(self) -> list[PortClaim]:
        return [claim for member in self.members for claim in member.claims()]

    async def start_servers(self) -> None:
        if self.config.tls:
            members = [ROUTE] if self.config.nodes > 1 else []
            ensure_certificates(self._tls_dir, ["mongo", "probe", *members], servers=["nats", "s3"])
        await _all([server.start for server in self.servers])

    async def start_services(self, *names: str) -> None:
        """Start the named services, or all of them, at once."""
        chosen = [self.service(name) for name in names] if names else self.services
        await _all([service.start for service in chosen])

    async def stop(self) -> list[str]:
        """Stop all in the reverse order of starting; return the names of those that had to be forced.

        Services go one by one, so that each still has what it depends on while it finishes its work; the servers,
        which do not know each other, go together.
        """
        forced = [service.name for service in reversed(self.services) if not await service.stop()]
        graceful = await asyncio.gather(*(server.stop() for server in self.servers))
        return forced + [server.name for server, ended in zip(self.servers, graceful, strict=True) if not ended]

    async def kill_all(self) -> None:
        await asyncio.gather(*(member.kill() for member in self.members))

    async def kill(self, name: str) -> None:
        """kill -9 of one service or server."""
        await self.member(name).kill()

    async def restart(self, name: str) -> None:
        await self.member(name).restart()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _build_services(self, log_dir: Path) -> list[Service]:
        config = self.config
        names = [spec.name for spec in config.services]
        if len(set(names)) != len(names):
            raise SettingError(f"Each service needs a name of its own; given are: {', '.join(names)}.")
        wanted = [(spec.name, port) for spec in config.services for port in spec.ports]
        given = {(service, port): config.ports.get(f"{service}_{port}", 0) for service, port in wanted}
        missing = [place for place, number in given.items() if not number]
        hold = Hold()
        ports = given | dict(zip(missing, hold.choose(len(missing), avoid=given.values()), strict=True))
        unknown = set(config.ports) - {"nats", "mongo", "s3"} - {f"{service}_{port}" for service, port in wanted}
        if unknown:
            raise SettingError(f"Nothing here has a port named {', '.join(sorted(unknown))}.")
        shared = {
            "admin_token": self.credentials.admin_token,
            **{f"{service}_{port}": number for (service, port), number in ports.items()},
        }
        services: list[Service] = []
        tls_dir = self._tls_dir
        encrypted = [spec.name for spec in config.services if spec.grpc_tls]
        for spec in config.services:
            own = {port: ports[spec.name, port] for port in spec.ports}
            env = {
                **config.base_env,
                **self._contract(),
                **(_tls_settings(tls_dir, spec.name) if spec.grpc_tls else {}),
                **fill_in(spec, {**shared, **own, "data_dir": config.data_dir / spec.name}),
                **config.env,
                **config.service_env.get(spec.name, {}),
            }
            log_path = log_dir / f"{spec.name}.log"
            services.append(
                Service(
                    spec,
                    ports=own,
                    env=env,
                    log_path=log_path,
                    hold=hold,
                    start_timeout=config.start_timeout,
                    prepare=partial(ensure_certificates, tls_dir, encrypted),
                )
            )
        return services

    def _contract(self) -> dict[str, str]:
        """The settings that belong to no service; each reads those that it uses."""
        env = {
            "BACKHAUL_NATS_URL": self.nats_url,
            "BACKHAUL_MONGO_URI": self.mongo_uri,
            "BACKHAUL_MONGO_DATABASE": self.mongo_database,
            "BACKHAUL_STREAM_REPLICAS": str(self.config.nodes),
            "BACKHAUL_SECRET_KEYS": ",".join(self.credentials.secret_keys),
            "BACKHAUL_INTERNAL_TOKEN": self.credentials.internal_token,
            "BACKHAUL_LOG_FORMAT": self.config.log_format,
            "BACKHAUL_LOG_LEVEL": self.config.log_level,
        }
        if "BACKHAUL_SECRET_KEYS_FILE" in self.config.env:
            del env["BACKHAUL_SECRET_KEYS"]  # Keys given as a file are not joined by keys of our own.
        if self.config.tls:
            started = {"nats": self.nats, "mongodb": self.mongo, "object-store": self.s3}
            env["BACKHAUL_TLS_SERVERS"] = ",".join(name for name, server in started.items() if server is not None)
        if (store := self.object_store) is not None:
            env |= {
                "BACKHAUL_OBJECT_STORE_ENDPOINT": store.endpoint,
                "BACKHAUL_OBJECT_STORE_ACCESS_KEY": store.access_key,
                "BACKHAUL_OBJECT_STORE_SECRET_KEY": store.secret_key,
                "BACKHAUL_OBJECT_STORE_BUCKET": store.bucket,
            }
        return env


def without_credentials(url: str) -> str:
    """``url`` as it may be shown, or several, comma-separated: without a user and a password."""
    if (urls := re.split(r",(?=\w+://)", url))[1:]:
        return ",".join(map(without_credentials, urls))
    scheme, separator, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{separator}{','.join(part.rpartition('@')[2] for part in place.split(','))}{slash}{path}"


def _tls_settings(folder: Path, name: str) -> dict[str, str]:
    return {
        "BACKHAUL_GRPC_TLS_CERT_FILE": str(certificate_path(folder, name)),
        "BACKHAUL_GRPC_TLS_KEY_FILE": str(key_path(folder, name)),
        "BACKHAUL_GRPC_TLS_CA_FILE": str(authority_path(folder)),
    }


def _named(members: Sequence[M], name: str) -> M:
    for member in members:
        if member.name == name:
            return member
    raise LocalStackError(f"No {name} here; there are: {', '.join(member.name for member in members)}.")


async def _all(starts: Sequence[Callable[[], Coroutine[None, None, None]]]) -> None:
    """Run all to their end; when one fails the others are cancelled (and so killed), and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for start in starts:
                group.create_task(start())
    except ExceptionGroup as failures:
        expected, unexpected = failures.split(LocalStackError)
        if expected is None or unexpected is not None:
            raise
        if len(expected.exceptions) == 1:
            raise expected.exceptions[0] from None  # A group around a single error would only hide its text.
        together = LocalStackError("\n\n".join(str(error) for error in expected.exceptions))
        together.late = all(isinstance(error, LateError) for error in expected.exceptions)
        raise together from None
