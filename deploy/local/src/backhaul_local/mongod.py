"""A real mongod as a replica set of one node, because transactions and change streams need a replica set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from backhaul_local.binaries import find_mongod
from backhaul_local.member import Command, Member
from backhaul_local.ports import LOOPBACK, Band, PortClaim, accepts_connections, choose_ports

REPLICA_SET = "rs0"

# https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
_ALREADY_INITIALIZED = 23


@dataclass(frozen=True, kw_only=True)
class MongoConfig:
    """Port 0: a free one is chosen at the first start and kept."""

    data_dir: Path
    port: int = 0
    log_path: Path | None = None
    cache_gb: float = 0.25
    oplog_mb: int = 256


class MongoServer(Member):
    def __init__(self, config: MongoConfig) -> None:
        super().__init__("mongod", config.log_path or config.data_dir / "mongod.log")
        self.config = config
        self._port = config.port

    @property
    def port(self) -> int:
        if self._port == 0:
            (self._port,) = choose_ports(1, Band.MONGO)
        return self._port

    @property
    def uri(self) -> str:
        return f"mongodb://{LOOPBACK}:{self.port}/?replicaSet={REPLICA_SET}"

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
        return Command(argv, dict(os.environ))

    def probe(self) -> str | None:
        """Make the node the primary of its replica set, once; ready when it is."""
        if not accepts_connections(self.port):
            return "no connection"
        client: MongoClient[dict[str, Any]] = MongoClient(
            LOOPBACK,
            self.port,
            directConnection=True,
            serverSelectionTimeoutMS=1_000,
            connectTimeoutMS=1_000,
            socketTimeoutMS=5_000,
        )
        try:
            with client:
                if client.admin.command("hello").get("isWritablePrimary"):
                    return None
                self._configure(client)
        except PyMongoError as error:
            return str(error)
        return "not yet the primary of its replica set"

    def _configure(self, client: MongoClient[dict[str, Any]]) -> None:
        """Initiate the replica set of new data; move that of kept data to this port when it had another."""
        host = f"{LOOPBACK}:{self.port}"
        kept = client.local["system.replset"].find_one({})
        if kept is None:
            try:
                client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [{"_id": 0, "host": host}]})
            except OperationFailure as error:
                if error.code != _ALREADY_INITIALIZED:
                    raise
        elif [member["host"] for member in kept["members"]] != [host]:
            moved = {**kept, "version": kept["version"] + 1, "members": [{**kept["members"][0], "host": host}]}
            # Forced, because a node that does not find itself in its configuration can elect nobody.
            client.admin.command("replSetReconfig", moved, force=True)
