"""One bucket: an ``Objects`` over the ``minio`` client, which blocks, in threads of the bucket's own."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from itertools import islice
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.objectstore import signing_region
from backhaul_common.outages import Repeated
from minio import Minio
from minio.error import S3Error
from minio.helpers import check_bucket_name

from backhaul_audit.objects.credentials import provider
from backhaul_audit.objects.failures import FAILURES, code_of, failure, in_words, unfit
from backhaul_audit.objects.http import NotS3, Pieces, Pool, one_call
from backhaul_audit.objects.place import Place
from backhaul_audit.ports import ObjectInfo

T = TypeVar("T")

PART_BYTES = 16 << 20
"""What is larger is sent in parts of this size."""
MAX_WRITING = 4
MAX_READING = 8
"""Threads for what is filed, and for all else: neither who reads nor another bucket that hangs keeps it from filing."""
MAX_KEPT = 32
"""Connections that are kept for the next reading. An object that is being read has one, also between two pieces."""
MAX_KEY_BYTES = 1024
MAX_LINK_S = 7 * 86_400
"""How long a link may be valid: what S3 allows."""
PAGE_KEYS = 1000
MAX_VERSIONS = 100_000
"""How many are looked at of what begins with one key: more would be somebody's invention."""

_META = "x-amz-meta-"
_LOCKED = frozenset({"AccessDenied", "ObjectLocked", "InvalidRequest", "MethodNotAllowed", "OperationAborted"})
_NO_LOCK = frozenset(
    {"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest", "NotImplemented"}
    | {"NoSuchKey", "NoSuchVersion", "MethodNotAllowed", "NoSuchRetention", "NoSuchObjectLegalHold", "AccessDenied"}
)
_COLLISIONS = frozenset({"ConditionalRequestConflict", "OperationAborted", "NoSuchUpload"})
"""Two came at once, or what came first ended the upload of these parts."""
_NO_VERSIONS = frozenset({"NotImplemented", "MethodNotAllowed", "AccessDenied"})
_TYPES = {".json": "application/json", ".jsonl": "application/x-ndjson", ".gz": "application/gzip"}


class Bucket:
    """An ``Objects``. Closed by ``close``; what is still going on fails then. One that is dropped without it ends with
    what goes on in it."""

    def __init__(self, place: Place) -> None:
        """FAILED_PRECONDITION in words, where ``place`` cannot be one. Nothing is connected to here."""
        self.place = place
        self._former = False
        self._writing = _Threads(MAX_WRITING, "write", place)
        self._reading = _Threads(MAX_READING, "read", place)
        self._pools = (
            Pool(connections=MAX_KEPT, tls=place.tls),
            Pool(create=True, connections=MAX_WRITING, tls=place.tls),
        )
        try:
            credentials = provider(place, self._pools[0])
            self._minio, self._creating, self._public = (
                _client(place, endpoint, credentials, pool)
                for endpoint, pool in (
                    (place.endpoint, self._pools[0]),
                    (place.endpoint, self._pools[1]),
                    (place.public_endpoint or place.endpoint, self._pools[0]),
                )
            )
            check_bucket_name(place.bucket)
        except ValueError:
            raise unfit(place) from None

    @property
    def bucket(self) -> str:
        """See ``Objects``."""
        return self.place.bucket

    def beside(self, name: str) -> Bucket:
        """The bucket of that name, where files were put before this one was set in its place. It has this one's
        threads and connections, and ends with it. FAILED_PRECONDITION where no bucket can be called so."""
        other = copy(self)
        other.place = replace(self.place, bucket=name)
        other._former = True  # of this class
        try:
            check_bucket_name(name)
        except ValueError:
            raise unfit(other.place) from None
        return other

    async def trial(self, work: Callable[[Minio, Minio], T]) -> T:
        """What ``work`` returns, of the client and of the one that replaces nothing: for the probe, which does what
        ``Objects`` has no call for. It may take its time, in a thread of those that do not file."""
        return await self._reading.done(lambda: work(self._minio, self._creating), self.place)

    def close(self) -> None:
        """Let go of everything; who waits for an answer gets UNAVAILABLE."""
        for threads in (self._writing, self._reading):
            threads.close()
        for pool in self._pools:
            pool.end()

    async def create(self, key: str, data: bytes | Sequence[bytes], metadata: Mapping[str, str]) -> bool:
        """See ``Objects``. Whoever is cancelled meanwhile does not know whether it will be stored."""
        work = partial(self._create, _checked(key), data, {_META + name: text for name, text in metadata.items()})
        return await self._writing.done(work, self.place)

    async def stat(self, key: str) -> ObjectInfo | None:
        """See ``Objects``."""
        return await self._reading.done(partial(self._stat, _checked(key)), self.place)

    async def read(self, key: str, *, chunk: int = 1 << 20) -> AsyncGenerator[bytes, None]:
        """See ``Objects``."""
        opened = await self._reading.done(partial(self._open, _checked(key)), self.place)
        try:
            while piece := await self._reading.done(partial(opened.next, chunk), self.place):
                yield piece
        finally:
            opened.leave(self._reading)

    async def delete(self, key: str) -> datetime | None:
        """See ``Objects``. FAILED_PRECONDITION where a legal hold keeps it, which has no end of its own.

        In a bucket that keeps versions every version is deleted.
        """
        return await self._reading.done(partial(self._delete, _checked(key)), self.place)

    async def keys(self, prefix: str, after: str = "") -> AsyncGenerator[str, None]:
        """See ``Objects``."""
        listing = self._minio.list_objects(self.bucket, prefix=prefix, recursive=True, start_after=after or None)

        def page() -> list[str]:
            return [found.object_name for found in islice(listing, PAGE_KEYS)]

        while keys := await self._reading.done(page, self.place):
            for key in keys:
                yield key

    async def link(self, key: str, valid_s: int) -> str:
        """See ``Objects``."""
        expires = timedelta(seconds=min(max(valid_s, 1), MAX_LINK_S))
        link = partial(self._public.presigned_get_object, self.bucket, _checked(key), expires=expires)
        return await self._reading.done(link, self.place)

    def _create(self, key: str, data: bytes | Sequence[bytes], metadata: dict[str, Any]) -> bool:
        body: Any = BytesIO(data) if isinstance(data, bytes) else Pieces(data)
        size = len(data) if isinstance(data, bytes) else sum(map(len, data))
        try:
            stored = self._creating.put_object(
                self.bucket,
                key,
                body,
                size,
                content_type=_TYPES.get(key[key.rfind(".") :], "application/octet-stream"),
                metadata=metadata,
                part_size=PART_BYTES,
                # One part after another: each is a copy, and other files are uploaded meanwhile.
                num_parallel_uploads=1,
            )
        except S3Error as exc:
            if exc.response.status == 412:
                return False
            if exc.code not in _COLLISIONS:
                raise
        else:
            # A completion that failed late says so in an answer that began well. The client looks for no error there.
            if stored.etag:
                return True
        if self._stat(key) is not None:
            return False
        raise unavailable("Object storage")

    def _stat(self, key: str) -> ObjectInfo | None:
        try:
            found = self._minio.stat_object(self.bucket, key)
        except (S3Error, NotS3) as exc:
            if _gone(exc):
                # The answer to HEAD has no body, so it does not say what is missing.
                self._require_bucket()
                return None
            raise
        headers = {name.lower(): text for name, text in (found.metadata or {}).items()}
        metadata = {name[len(_META) :]: text for name, text in headers.items() if name.startswith(_META)}
        return ObjectInfo(found.size or 0, metadata, found.last_modified or datetime.fromtimestamp(0, UTC))

    def _require_bucket(self) -> None:
        if not self._minio.bucket_exists(self.bucket):
            message = f"The bucket {self.bucket!r} does not exist."
            raise BackhaulError(Code.FAILED_PRECONDITION, message, fix="Create it, or correct its name.")

    def _open(self, key: str) -> _Opened:
        try:
            return _Opened(self._minio.get_object(self.bucket, key), self._pools[0])
        except S3Error as exc:
            if exc.code in ("NoSuchKey", "NoSuchVersion"):
                raise BackhaulError(Code.NOT_FOUND, "There is no such object.") from None
            raise

    def _delete(self, key: str) -> datetime | None:
        if self._former and not self._minio.bucket_exists(self.bucket):
            return None
        locked: datetime | None = None
        for version in self._versions(key):
            until = self._delete_version(key, version)
            if until is not None:
                locked = max(until, locked or until)
        return locked

    def _versions(self, key: str) -> list[str | None]:
        """The versions of an object; None stands for the only one, in a bucket that keeps none."""
        listing = self._minio.list_objects(self.bucket, prefix=key, recursive=True, include_version=True)
        try:
            # Each page lists what is deleted behind what is not, so all that begins with the key is gone through.
            found = [entry.version_id for entry in islice(listing, MAX_VERSIONS) if entry.object_name == key]
        except (S3Error, NotS3) as exc:
            if isinstance(exc, S3Error) and exc.code not in _NO_VERSIONS:
                raise
            return self._unlisted_versions(key)
        return [None if version in (None, "", "null") else version for version in found]

    def _unlisted_versions(self, key: str) -> list[str | None]:
        try:
            found = self._minio.stat_object(self.bucket, key)
        except S3Error as exc:
            if _gone(exc):
                self._require_bucket()
                return []
            raise
        if found.version_id not in (None, "", "null"):
            message = f"The bucket {self.bucket!r} keeps versions, and the credentials may not list them."
            raise BackhaulError(Code.FAILED_PRECONDITION, message, fix="Grant them s3:ListBucketVersions.")
        return [None]

    def _delete_version(self, key: str, version: str | None) -> datetime | None:
        try:
            self._minio.remove_object(self.bucket, key, version_id=version)
        except S3Error as exc:
            if _gone(exc):
                return None
            if exc.code not in _LOCKED and exc.response.status != 403:
                raise
            if (until := self._locked_until(key, version)) is not None:
                return until
            raise
        return None

    def _locked_until(self, key: str, version: str | None) -> datetime | None:
        retention = _unless_none(lambda: self._minio.get_object_retention(self.bucket, key, version_id=version))
        if retention is not None and _aware(retention.retain_until_date) > datetime.now(UTC):
            return _aware(retention.retain_until_date)
        if _unless_none(lambda: self._minio.is_object_legal_hold_enabled(self.bucket, key, version_id=version)):
            message = "A legal hold keeps an object that should be deleted."
            raise BackhaulError(Code.FAILED_PRECONDITION, message, fix="Whoever placed it has to lift it.")
        return None


class _Threads:
    """Some threads for one kind of calls. They end with whoever has this."""

    def __init__(self, most: int, name: str, place: Place) -> None:
        self._pool = ThreadPoolExecutor(most, f"objects-{name}")
        self._trouble = Repeated("object_storage", endpoint=place.endpoint, bucket=place.bucket, calls=name)

    async def done(self, work: Callable[[], T], place: Place) -> T:
        """What ``work`` returns, done in a thread; what it raises, in words about ``place``."""
        try:
            future = self._pool.submit(contextvars.copy_context().run, _as_one, work)
        except RuntimeError:
            # It was closed.
            raise unavailable("Object storage") from None
        try:
            result = await asyncio.wrap_future(future)
        except FAILURES as exc:
            error = failure(exc, place)
            if error.code in (Code.UNAVAILABLE, Code.FAILED_PRECONDITION):
                self._trouble.warning(code_of(exc), problem=in_words(error))
            raise error from None
        self._trouble.over()
        return result

    def after(self, work: Callable[[], None]) -> None:
        """Do ``work`` some time, and at once where this was closed."""
        try:
            self._pool.submit(work)
        except RuntimeError:
            work()

    def close(self) -> None:
        """Take no more calls."""
        self._pool.shutdown(wait=False)


def _as_one(work: Callable[[], T]) -> T:
    with one_call():
        return work()


class _Opened:
    """An object that is being read, by one thread after another."""

    def __init__(self, response: urllib3.BaseHTTPResponse, pool: Pool) -> None:
        self._response = response
        self._pool = pool
        self._lock = Lock()

    def next(self, size: int) -> bytes:
        with self._lock:
            return self._pool.read(self._response, size)

    def leave(self, threads: _Threads) -> None:
        """Close it, off the event loop: whoever was cancelled may have left a thread that still reads."""
        threads.after(self._close)

    def _close(self) -> None:
        with self._lock:
            self._response.close()
            self._response.release_conn()


def _client(place: Place, endpoint: str, credentials: Any, pool: Pool) -> Minio:
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or url.path not in ("", "/"):
        raise ValueError("no URL of a server")
    return Minio(
        url.netloc,
        secure=url.scheme == "https",
        # Named, so that no request asks where the bucket lies.
        region=signing_region(place.endpoint, place.region) or None,
        credentials=credentials,
        http_client=pool,
    )


def _checked(key: str) -> str:
    parts = key.split("/")
    if len(key.encode()) > MAX_KEY_BYTES or "\\" in key or any(part in ("", ".", "..") for part in parts):
        # Servers and clients disagree about those, or take them for another key.
        raise BackhaulError(Code.INVALID_ARGUMENT, "That is no key that every object storage can have.")
    return key


def _gone(exc: Exception) -> bool:
    return isinstance(exc, S3Error) and exc.response.status == 404 and exc.code != "NoSuchBucket"


def _unless_none(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except S3Error as exc:
        if exc.code in _NO_LOCK:
            return None
        raise


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
