"""A real mongod as a replica set of one node, because transactions and change streams need a replica set."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from backhaul_local.binaries import find_mongod
from backhaul_local.certificates import authority_path, certificate_and_key
from backhaul_local.files import write_private
from backhaul_local.member import START_TIMEOUT_S, Command, Member
from backhaul_local.ports import LOOPBACK, Band, PortClaim, accepts_connections

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


class MongoServer(Member):
    def __init__(self, config: MongoConfig, *, start_timeout: float = START_TIMEOUT_S) -> None:
        super().__init__("mongod", config.log_path or config.data_dir / "mongod.log", start_timeout=start_timeout)
        self.config = config
        self._port = config.port

    @property
    def port(self) -> int:
        if self._port == 0:
            (self._port,) = self._hold.choose(1, Band.MONGO)
        return self._port

    @property
    def uri(self) -> str:
        """The address, with the credentials where there are any."""
        config = self.config
        if not config.password:
            return f"mongodb://{LOOPBACK}:{self.port}/?replicaSet={REPLICA_SET}"
        credentials = f"{quote(config.user, safe='')}:{quote(config.password, safe='')}"
        return f"mongodb://{credentials}@{LOOPBACK}:{self.port}/?replicaSet={REPLICA_SET}&authSource=admin"

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
                write_private(key_file, secrets.token_urlsafe(96).replace("-", "+").replace("_", "/"))
            argv += ["--keyFile", str(key_file)]
        return Command(argv, dict(os.environ))

    def probe(self) -> str | None:
        """Make the node the primary of its replica set, once; ready when it is."""
        if not accepts_connections(self.port):
            return "no connection"
        try:
            with self._client() as nobody:
                hello = nobody.admin.command("hello")
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
