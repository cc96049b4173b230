"""Analysts and auditors: what they find in a bucket, and what Backhaul says of it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from backhaul_client.auditmodels import AuditFile, AuditFinding
from backhaul_testing.waiting import until
from minio import Minio

if TYPE_CHECKING:
    from backhaul_local.stack import ObjectStoreAccess
    from simulators.people import PlatformTeam, Tenant

Json = dict[str, Any]

QUICK = {"BACKHAUL_AUDIT_MAX_FILE_AGE_S": "0.5", "BACKHAUL_AUDIT_DIGEST_EVERY_S": "2"}
"""Settings of an audit service that tests need not wait for."""


@dataclass(frozen=True)
class Archive:
    """One bucket, with its owner's keys."""

    access: ObjectStoreAccess
    _client: Minio = field(init=False)

    def __post_init__(self) -> None:
        endpoint = urlsplit(self.access.endpoint)
        client = Minio(
            endpoint.netloc,
            access_key=self.access.access_key,
            secret_key=self.access.secret_key,
            secure=endpoint.scheme == "https",
            region="us-east-1",
        )
        object.__setattr__(self, "_client", client)

    async def keys(self, prefix: str = "") -> list[str]:
        """All keys that begin with ``prefix``."""
        return await asyncio.to_thread(lambda: list(self._keys(prefix)))

    async def get(self, key: str) -> bytes:
        """One object."""
        return await asyncio.to_thread(self._get, key)

    async def put(self, key: str, data: bytes) -> None:
        """Put ``data`` where ``key`` is, whatever is there: the owner of a bucket can."""
        await asyncio.to_thread(self._client.put_object, self.access.bucket, key, BytesIO(data), len(data))

    async def remove(self, key: str) -> None:
        """Take the object away."""
        await asyncio.to_thread(self._client.remove_object, self.access.bucket, key)

    async def copy_to(self, folder: Path, prefix: str = "") -> list[Path]:
        """Every object under its key below ``folder``."""
        paths = []
        for key in await self.keys(prefix):
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(await self.get(key))
            paths.append(path)
        return paths

    def _keys(self, prefix: str) -> Iterator[str]:
        for found in self._client.list_objects(self.access.bucket, prefix, recursive=True):
            if not found.is_dir:
                yield str(found.object_name)

    def _get(self, key: str) -> bytes:
        answer = self._client.get_object(self.access.bucket, key)
        try:
            data: bytes = answer.read()
            return data
        finally:
            answer.close()
            answer.release_conn()


def lines_of(name: str, data: bytes) -> list[bytes]:
    """The lines of a file of JSON Lines."""
    plain = gzip.decompress(data) if name.endswith(".gz") else data
    assert plain.endswith(b"\n")
    return plain[:-1].split(b"\n")


def signed(digest: bytes) -> Json:
    """What a digest says: the first of its two lines."""
    first, _, _ = digest.partition(b"\n")
    said: Json = json.loads(first)
    return said


async def ask_for_files(platform: PlatformTeam, tenant: Tenant, *labels: str, **audit: Any) -> None:
    """Have the events of the tenant's channels filed from now on."""
    for label in labels or ("Twilio", "SendGrid"):
        await platform.client.put_channel(tenant.id, label, settings={"audit": {"enabled": True, **audit}})


async def files_of(tenant: Tenant) -> list[AuditFile]:
    """All sealed files, the latest first."""
    return [file async for file in tenant.client.audit_files(page_size=500)]


async def filed(tenant: Tenant, events: int, *, within_s: float = 60.0) -> list[AuditFile]:
    """The files, as soon as ``events`` lie in them."""

    async def probe() -> list[AuditFile] | None:
        files = await files_of(tenant)
        return files if sum(file.events for file in files) >= events else None

    return await until(f"{events} events in files", probe, within_s=within_s)


async def in_digests(tenant: Tenant, files: Sequence[AuditFile], *, within_s: float = 60.0) -> list[AuditFile]:
    """The same files, as soon as each is in a digest that is in its place."""
    ids = {file.id for file in files}

    async def probe() -> list[AuditFile] | None:
        found = [file for file in await files_of(tenant) if file.id in ids]
        if len(found) < len(ids) or not all(file.digest for file in found):
            return None
        # A digest is recorded before it is uploaded: only what is in the bucket can be verified.
        return found if (await verified(tenant)).files >= len(ids) else None

    return await until(f"{len(ids)} files in digests", probe, within_s=within_s)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found."""

    digests: int
    files: int
    invalid: Sequence[AuditFinding]


async def verified(tenant: Tenant, *heads: str) -> Verified:
    """What is said of everything that the tenant has."""
    told = [one async for one in tenant.client.verify_audits(heads=heads)]
    assert [one.done for one in told] == [False] * (len(told) - 1) + [True]
    invalid = [finding for one in told for finding in one.findings if not finding.valid]
    return Verified(told[-1].digests, told[-1].files, invalid)
