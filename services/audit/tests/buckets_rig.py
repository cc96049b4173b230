"""Buckets of tests' own on the session's S3 server, or on one that may be killed."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

from backhaul_audit.objects import Bucket, Place
from backhaul_common.directory import TenantDirectory, TenantDocuments
from backhaul_common.secrets import SecretBox
from backhaul_common.tenants import Channel, Listener, Tenant
from backhaul_local.object_store import ObjectStoreServer
from cryptography.fernet import Fernet
from minio import Minio

KEY = Fernet.generate_key().decode()


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


class Tenants(TenantDirectory):
    """A directory that holds what a test puts there."""

    def __init__(self) -> None:
        super().__init__(TenantDocuments(cast(Any, None)))
        self._put_listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        self._put_listeners.append(listener)

    def put(
        self, tenant_id: str, *, life: int = 1, channel: Mapping[str, Any] | None, keys: str | None = None
    ) -> Tenant:
        """A tenant with a channel ``own``, whose own bucket is ``channel``; None: the installation's. ``keys`` is its
        stored credentials; None: made up."""
        now = datetime.now(UTC)
        if keys is None:
            keys = SecretBox([KEY]).encrypt(json.dumps({"access_key": "a", "secret_key": "b"}))
        own = Channel(
            label="Own",
            key="own",
            provider="custom",
            settings={"audit": {"enabled": True, "bucket": channel}},
            audit_credentials=keys,
            updated_at=now,
        )
        tenant = Tenant(
            id=tenant_id,
            registration=f"{tenant_id}.{life}",
            name=tenant_id,
            queue_path=tenant_id,
            channels={"own": own},
            created_at=now,
            updated_at=now,
        )
        self._values[tenant_id] = tenant
        for listener in self._put_listeners:
            listener(tenant_id, tenant)
        return tenant

    def remove(self, tenant_id: str) -> None:
        """It is gone."""
        del self._values[tenant_id]
        for listener in self._put_listeners:
            listener(tenant_id, None)
