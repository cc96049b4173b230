"""A one-shot service of compose.yaml: MongoDB's replica set and users, and the bucket. Idempotent.

It runs in mongod's network, as only there, and until there is a user, mongod lets anybody make the first one.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import S3Error
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError
from rights import RIGHTS, privileges

ADMIN = "backhaul-admin"
_PATIENCE_S = 120.0
_PAUSE_S = 0.5
_AUTHENTICATION_FAILED = 18
_ALREADY_INITIALIZED = 23
_MINE = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}

Mongo = MongoClient[dict[str, Any]]

log = logging.getLogger("servers")


def prepare_mongo(
    port: int, member: str, database: str, passwords: Mapping[str, str], tls: Mapping[str, str] | None = None
) -> None:
    """Make the mongod on this machine's ``port`` a replica set whose one member others reach as ``member``, with users.

    ``passwords`` are by service, and that of the administrator by ``ADMIN``. Those that have changed are changed. With
    ``tls``, pymongo's options for it, services have no passwords: each is the user that its certificate names.
    """
    how = dict(tls or {})
    with _client(port, how) as nobody:
        try:
            nobody.admin.command("replSetInitiate", {"_id": "rs0", "members": [{"_id": 0, "host": member}]})
        except OperationFailure as error:
            # Where there are users already, nobody may ask for it.
            if error.code not in (_ALREADY_INITIALIZED, 13):
                raise
        _until("MongoDB is its primary", lambda: nobody.admin.command("hello").get("isWritablePrimary", False))
        if not _may(port, how, passwords[ADMIN]):
            nobody.admin.command("createUser", ADMIN, pwd=passwords[ADMIN], roles=["root"])
    with _client(port, how, passwords[ADMIN]) as admin:
        for service, rights in RIGHTS.items():
            role = f"backhaul-{service}"
            _make(admin.admin, "Role", role, privileges=privileges(rights, database), roles=[])
            if tls:
                _make(admin["$external"], "User", f"CN={service}", roles=[{"role": role, "db": "admin"}])
                if admin.admin.command("usersInfo", service)["users"]:
                    # Of before there was TLS. With it, the certificate of one service would open what is another's.
                    admin.admin.command("dropUser", service)
            else:
                _make(admin.admin, "User", service, pwd=passwords[service], roles=[role])


def _make(database: Any, kind: str, name: str, **what: Any) -> None:  # pymongo's database
    there = database.command(f"{kind.lower()}sInfo", name)[f"{kind.lower()}s"]
    database.command(f"{'update' if there else 'create'}{kind}", name, **what)


def _may(port: int, tls: Mapping[str, str], password: str) -> bool:
    try:
        with _client(port, tls, password) as client:
            client.admin.command("ping")
    except OperationFailure as error:
        if error.code == _AUTHENTICATION_FAILED:
            return False
        raise
    return True


def _client(port: int, tls: Mapping[str, str], password: str = "") -> Mongo:
    who: dict[str, Any] = {"username": ADMIN, "password": password} if password else {}
    how: dict[str, Any] = {"tls": True, **tls} if tls else {}
    return MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=120_000, **who, **how)


def prepare_bucket(endpoint: str, access_key: str, secret_key: str, bucket: str, region: str) -> None:
    """Make the bucket where it is missing. One that is there, and may not be asked for, is left to its owner."""
    parts = urlsplit(endpoint)
    client = Minio(parts.netloc, access_key, secret_key, secure=parts.scheme == "https", region=region or None)

    def made() -> bool:
        try:
            client.make_bucket(bucket)
        except S3Error as error:
            if error.code not in _MINE:
                log.warning("%s: bucket %s was not made: %s", endpoint, bucket, error.code)
                return error.code == "AccessDenied"
        except urllib3.exceptions.HTTPError as error:
            # It begins at the same time as this, and may take no connections yet.
            log.warning("%s: bucket %s was not made yet: %s", endpoint, bucket, error)
            return False
        return True

    _until(f"{endpoint} has the bucket {bucket}", made)


def _until(what: str, holds: Any) -> None:  # a function without arguments
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not within {_PATIENCE_S:.0f} s: {what}.")
        time.sleep(_PAUSE_S)


def main() -> int:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    given = {file.name: file.read_text("utf-8").strip() for file in Path("/run/secrets").iterdir() if file.is_file()}
    passwords = {name.removeprefix("mongo-"): value for name, value in given.items() if name.startswith("mongo-")}
    try:
        files = {"tlsCAFile": "/run/secrets/ca.pem", "tlsCertificateKeyFile": "/run/secrets/both.pem"}
        tls = files if os.environ.get("MONGO_TLS") else None
        prepare_mongo(27017, "mongo:27017", "backhaul", passwords | {ADMIN: given["admin"]}, tls)
        if endpoint := os.environ.get("OBJECT_STORE_ENDPOINT"):
            prepare_bucket(
                endpoint,
                given["s3-access-key"],
                given["s3-secret-key"],
                os.environ["OBJECT_STORE_BUCKET"],
                os.environ.get("OBJECT_STORE_REGION", ""),
            )
    except (PyMongoError, TimeoutError) as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
