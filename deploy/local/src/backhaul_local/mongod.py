"""A real mongod as a replica set, mostly of one node, because transactions and change streams need a replica set."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from backhaul_local.binaries import find_mongod
from backhaul_local.certificates import authority_path, certificate_and_key
from backhaul_local.files import write_private
from backhaul_local.member import START_TIMEOUT_S, Command, Member
from backhaul_local.ports import LOOPBACK, Band, Hold, PortClaim, accepts_connections

REPLICA_SET = "rs0"

# https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
_ALREADY_INITIALIZED = 23
_AUTHENTICATION_FAILED = 18


@dataclass(frozen=True, kw_only=True)
class MongoConfig:
    """Port 0: a free one is chosen at the first start and kept."""

    data_dir: Path
    port: int = 0
    log_path: Path | None = None
    cache_gb: float = 0.25
    oplog_mb: int = 256
    user: str = "backhaul"
    password: str = field(default="", repr=False)
    """Empty: whoever reaches the port may do everything."""
    tls_dir: Path | None = None
    """Where the certificates of ``mongo`` and ``probe`` are: without one of their authority nobody is let in."""
    history_s: int | None = None
    """How far back may be read, which is as long as what was dropped is kept, with its files open. None: mongod's five
    minutes, and to the next checkpoint. By then a session of tests, each with a database of its own, may have dropped
    more files than a process may have open, of which mongod dies."""
    journal_ms: int | None = None
    """How often the journal is written where nobody asks for it: whoever drops a database waits for that. None:
    100 ms, as mongod has it."""
    name: str = "mongod"
    """Its own among the nodes of one replica set."""
    key: str = field(default="", repr=False)
    """What the nodes of one replica set show each other; empty: it is the only one, and makes up its own."""
    others: Sequence[int] = ()
    """The ports of the other nodes. It is the first of them, and takes them into its replica set."""
    first: int = 0
    """The port of the first node, which takes this one into its replica set; 0: it is the first itself."""


class MongoServer(Member):
    def __init__(self, config: MongoConfig, *, start_timeout: float = START_TIMEOUT_S) -> None:
        super().__init__(config.name, config.log_path or config.data_dir / "mongod.log", start_timeout=start_timeout)
        self.config = config
        self._port = config.port

    @property
    def port(self) -> int:
        if self._port == 0:
            (self._port,) = self._hold.choose(1, Band.MONGO)
        return self._port

    @property
    def uri(self) -> str:
        """The address of its replica set, by all the nodes that it knows, with the credentials where there are any."""
        config = self.config
        nodes = ",".join(f"{LOOPBACK}:{port}" for port in (self.port, *config.others))
        if not config.password:
            return f"mongodb://{nodes}/?replicaSet={REPLICA_SET}"
        credentials = f"{quote(config.user, safe='')}:{quote(config.password, safe='')}"
        return f"mongodb://{credentials}@{nodes}/?replicaSet={REPLICA_SET}&authSource=admin"

    @contextmanager
    def transactions_live(self, seconds: int) -> Iterator[None]:
        """Let no transaction of this running server live for longer than ``seconds``, as long as this is open."""
        name = "transactionLifetimeLimitSeconds"
        client: MongoClient[dict[str, Any]] = MongoClient(self.uri)
        with client:
            before = client.admin.command({"getParameter": 1, name: 1})[name]
            client.admin.command({"setParameter": 1, name: seconds})
            try:
                yield
            finally:
                client.admin.command({"setParameter": 1, name: before})

    def claims(self) -> Sequence[PortClaim]:
        remedy = "Stop it, use it with BACKHAUL_MONGO_URI, or set BACKHAUL_LOCAL_PORTS=mongo=PORT."
        return [PortClaim(self.port, "MongoDB", remedy)]

    def command(self) -> Command:
        db_path = self.config.data_dir / "db"
        db_path.mkdir(parents=True, exist_ok=True)
        # Every option is known to mongod 4.4 up to 8: a mongod on PATH may be any of them. Loopback only, and no
        # compressors: the packaged mongod predates the fix of CVE-2025-14847.
        argv = [
            str(find_mongod()),
            *("--dbpath", str(db_path)),
            *("--bind_ip", LOOPBACK, "--port", str(self.port), "--nounixsocket"),
            *("--replSet", REPLICA_SET, "--oplogSize", str(self.config.oplog_mb)),
            *("--wiredTigerCacheSizeGB", str(self.config.cache_gb)),
            *("--networkMessageCompressors", "disabled"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # A service that is killed in a transaction leaves its locks behind, and whoever takes up its work waits for
            # them: by default for a minute. The deletion of a tenant waits for that too. Batches are committed within
            # a second.
            *("--setParameter", "transactionLifetimeLimitSeconds=5"),
            # Appended, so that what it said before a crash stays, in the file that also takes its plain output.
            *("--logpath", str(self.log_path), "--logappend"),
        ]
        if (history_s := self.config.history_s) is not None:
            argv += ["--setParameter", f"minSnapshotHistoryWindowInSeconds={history_s}"]
            argv += ["--syncdelay", str(max(1, history_s // 2))]  # Seconds between two checkpoints.
        if self.config.tls_dir is not None:
            both = self.config.data_dir / "tls.pem"
            write_private(both, certificate_and_key(self.config.tls_dir, "mongo"))
            write_private(self._probe_path, certificate_and_key(self.config.tls_dir, "probe"))
            argv += ["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(both)]
            argv += ["--tlsCAFile", str(authority_path(self.config.tls_dir))]
        if self.config.journal_ms is not None:
            argv += ["--journalCommitInterval", str(self.config.journal_ms)]
        if self.config.password:
            # Members of a replica set know each other by this key; where there is one, clients must say who they are.
            key_file = self.config.data_dir / "replica-set.key"
            if not key_file.exists():
                key = self.config.key or secrets.token_urlsafe(96)
                write_private(key_file, key.replace("-", "+").replace("_", "/"))
            argv += ["--keyFile", str(key_file)]
        return Command(argv, dict(os.environ))

    def probe(self) -> str | None:
        """Make the node the primary of its replica set, once; ready when it is. One of several need not lead."""
        if not accepts_connections(self.port):
            return "no connection"
        try:
            with self._client() as nobody:
                hello = nobody.admin.command("hello")
                if self.config.first:
                    return None if _takes_part(hello) else "not taken into the replica set yet"
                if self.config.password:
                    if not self._has_user():
                        return self._begin_with_user(nobody, hello)
                    with self._client(authenticated=True) as client:
                        return self._become_primary(client, hello)
                return self._become_primary(nobody, hello)
        except PyMongoError as error:
            return str(error)

    @property
    def _probe_path(self) -> Path:
        return self.config.data_dir / "probe.pem"

    def _client(self, *, authenticated: bool = False) -> MongoClient[dict[str, Any]]:
        who: dict[str, Any] = {}
        if authenticated:
            who = {"username": self.config.user, "password": self.config.password}
        if (folder := self.config.tls_dir) is not None:
            files = {"tlsCAFile": str(authority_path(folder)), "tlsCertificateKeyFile": str(self._probe_path)}
            who |= {"tls": True, **files}
        return MongoClient(
            LOOPBACK,
            self.port,
            directConnection=True,
            serverSelectionTimeoutMS=1_000,
            connectTimeoutMS=1_000,
            socketTimeoutMS=5_000,
            **who,
        )

    def _has_user(self) -> bool:
        try:
            with self._client(authenticated=True) as client:
                client.admin.command("ping")
        except OperationFailure as error:
            if error.code == _AUTHENTICATION_FAILED:
                return False
            raise
        return True

    def _begin_with_user(self, nobody: MongoClient[dict[str, Any]], hello: Mapping[str, Any]) -> str:
        """Make the first user. From this machine, and until there is one, mongod lets anybody do that, and no more."""
        if hello.get("isWritablePrimary"):
            nobody.admin.command("createUser", self.config.user, pwd=self.config.password, roles=["root"])
        elif "setName" not in hello:
            self._initiate(nobody)
        return "its user is not made yet"

    def _become_primary(self, client: MongoClient[dict[str, Any]], hello: Mapping[str, Any]) -> str | None:
        if self.config.others:
            return self._gather(client, hello)
        if hello.get("isWritablePrimary"):
            return None
        self._configure(client)
        return "not yet the primary of its replica set"

    def _initiate(self, client: MongoClient[dict[str, Any]]) -> None:
        host = f"{LOOPBACK}:{self.port}"
        try:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [{"_id": 0, "host": host}]})
        except OperationFailure as error:
            if error.code != _ALREADY_INITIALIZED:
                raise

    def _configure(self, client: MongoClient[dict[str, Any]]) -> None:
        """Initiate the replica set of new data; move that of kept data to this port when it had another."""
        host = f"{LOOPBACK}:{self.port}"
        kept = client.local["system.replset"].find_one({})
        if kept is None:
            self._initiate(client)
        elif [member["host"] for member in kept["members"]] != [host]:
            moved = {**kept, "version": kept["version"] + 1, "members": [{**kept["members"][0], "host": host}]}
            # Forced, because a node that does not find itself in its configuration can elect nobody.
            client.admin.command("replSetReconfig", moved, force=True)

    def _gather(self, client: MongoClient[dict[str, Any]], hello: Mapping[str, Any]) -> str | None:
        """Begin the replica set, and take the other nodes into it, one at a time, which is how it takes them."""
        if "setName" not in hello:
            self._initiate(client)
            return "its replica set is not there yet"
        wanted = [f"{LOOPBACK}:{port}" for port in (self.port, *self.config.others)]
        present = client.admin.command("replSetGetConfig")["config"]
        hosts = [member["host"] for member in present["members"]]
        missing = [host for host in wanted if host not in hosts]
        if not missing:
            if not _takes_part(hello):
                return "it takes no part yet"
            # A node that is taken in has no vote before it has all data: until then the others may elect nobody.
            voting = client.admin.command("replSetGetStatus")["votingMembersCount"]
            return None if voting == len(wanted) else f"only {voting} nodes vote yet"
        if hello.get("isWritablePrimary"):
            newcomer = {"_id": len(hosts), "host": missing[0]}
            grown = {**present, "version": present["version"] + 1, "members": [*present["members"], newcomer]}
            client.admin.command("replSetReconfig", grown)
        return f"{len(missing)} more nodes are to be taken into the replica set"


def _takes_part(hello: Mapping[str, Any]) -> bool:
    return bool(hello.get("isWritablePrimary") or hello.get("secondary"))


def mongo_replica_set(
    config: MongoConfig, nodes: int, *, hold: Hold, start_timeout: float = START_TIMEOUT_S
) -> list[MongoServer]:
    """The nodes of one replica set, or the only one: ``mongod``, ``mongod-2``, ``mongod-3``.

    Each has a folder of its own beside that of ``config``, which is the first one's. ``hold`` is what chooses ports.
    Data that is kept stays with its ports: these nodes find each other by them.
    """
    if nodes == 1:
        return [MongoServer(config, start_timeout=start_timeout)]
    ports = [config.port or hold.choose(1, Band.MONGO)[0], *hold.choose(nodes - 1, Band.MONGO)]
    shared = replace(config, key=secrets.token_urlsafe(96))
    servers = [MongoServer(replace(shared, port=ports[0], others=ports[1:]), start_timeout=start_timeout)]
    for number, port in enumerate(ports[1:], 2):
        name = f"{config.name}-{number}"
        one = replace(
            shared,
            name=name,
            port=port,
            first=ports[0],
            data_dir=config.data_dir.with_name(f"{config.data_dir.name}-{number}"),
            log_path=config.log_path.with_name(f"{name}.log") if config.log_path else None,
        )
        servers.append(MongoServer(one, start_timeout=start_timeout))
    return servers
