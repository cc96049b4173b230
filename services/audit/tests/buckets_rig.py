"""Buckets of tests' own on the session's S3 server, or on one that may be killed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backhaul_audit.objects import Bucket, Place
from backhaul_local.object_store import ObjectStoreServer
from minio import Minio


def place_at(server: ObjectStoreServer, **changes: Any) -> Place:
    """The bucket of ``server``'s configuration, or as ``changes`` say."""
    config = server.config
    told = {"bucket": config.bucket, "access_key": config.access_key, "secret_key": config.secret_key}
    return Place(**{"endpoint": server.uri, **told, **changes})


def client_at(server: ObjectStoreServer) -> Minio:
    """A client of the tests' own."""
    config = server.config
    return Minio(
        server.uri.removeprefix("http://"),
        access_key=config.access_key,
        secret_key=config.secret_key,
        secure=False,
        region="us-east-1",
    )


@contextmanager
def bucket_at(server: ObjectStoreServer, **changes: Any) -> Iterator[Bucket]:
    """A ``Bucket`` that is closed afterwards."""
    bucket = Bucket(place_at(server, **changes))
    try:
        yield bucket
    finally:
        bucket.close()


def folder() -> str:
    """A prefix that no other test uses."""
    return f"t{secrets.token_hex(6)}"
