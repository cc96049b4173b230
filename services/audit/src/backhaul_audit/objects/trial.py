"""Whether a bucket holds to what it accepts, tried out on objects that are deleted again.

Servers have been seen to take If-None-Match, and retention, and to do as if they had not.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import islice

from minio import Minio
from minio.commonconfig import GOVERNANCE
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.objectlockconfig import ObjectLockConfig
from minio.retention import Retention

from backhaul_audit.objects.http import NotS3

PREFIX = "backhaul-probe/"
"""Under which everything lies that a trial writes."""
HOLD_S = 60
"""How long the lock holds that is tried out. Servers' clocks may differ by some seconds."""
ABANDONED_S = 900
"""What is older was left by a trial that did not come to its end."""
MAX_LISTED = 10_000
"""How much is looked at of what is said to lie there: a trial writes a handful."""
_PART_BYTES = 5 << 20
"""The least that S3 takes for a part which is not the last."""

REPLACES = (
    "The bucket replaces objects although it is asked not to (If-None-Match): two copies of the audit service could "
    "write one file over another."
)
REPLACES_PARTS = (
    "The bucket replaces objects that are sent in parts although it is asked not to (If-None-Match): two copies of the "
    "audit service could write one large file over another."
)
REPLACES_AT_ONCE = (
    "Of two that create one object at the same moment the bucket lets both succeed: two copies of the audit service "
    "could write one file over another."
)
LISTS_LATE = "The bucket does not list at once what was written: what looks for files may miss the latest ones."
LISTS_DELETED = "The bucket lists for a while what was deleted: files may seem to be there that are not."
NO_LOCK = "The bucket has no object lock: who may delete there can delete files. Digests tell when one is missing."
NO_DEFAULT = (
    "The bucket has object lock but no default retention, so files are not locked: who may delete there can delete "
    "them. Digests tell when one is missing."
)
LOCK_UNKNOWN = (
    "Whether the bucket has object lock is not known: the credentials lack s3:GetBucketObjectLockConfiguration."
)
LOCK_REFUSED = "The bucket says that it has object lock, and locks no object."
LOCK_IGNORED = "The bucket deletes objects although object lock should hold them: files are not safe there."
BYPASSES = (
    "The bucket's default retention is of mode GOVERNANCE, and the credentials may delete in spite of it: take "
    "s3:BypassGovernanceRetention from them, or use mode COMPLIANCE."
)

_NO_LOCKS = frozenset({"ObjectLockConfigurationNotFoundError", "NotImplemented", "MethodNotAllowed", "InvalidRequest"})
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "OperationAborted"})


@dataclass(slots=True)
class Outcome:
    """``weaknesses`` in sentences; ``left`` objects of the trial are still there, since a lock holds them."""

    weaknesses: list[str] = field(default_factory=list)
    left: int = 0


class Trial:
    """One trial of one bucket. Every method blocks, and raises what the client raises."""

    def __init__(self, plain: Minio, creating: Minio, bucket: str) -> None:
        self._plain = plain
        self._creating = creating
        self._bucket = bucket
        self._folder = f"{PREFIX}{uuid.uuid4().hex}/"
        self._locks: ObjectLockConfig | None = None
        self._written: set[str] = set()
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Try everything, and delete what was written."""
        self._clear(PREFIX, before=datetime.now(UTC) - timedelta(seconds=ABANDONED_S))
        self._look_for_locks()
        try:
            self._conditions()
            self._listing()
            if self._locks is not None:
                self._lock()
        finally:
            bypassed = self._clear(self._folder)
        self._outcome.left = sum(1 for _ in self._versions(self._folder))
        if not self._outcome.left and any(self._plain.list_objects(self._bucket, self._folder, recursive=True)):
            self._weak(LISTS_DELETED)
        if bypassed and self._locks is not None and self._locks.mode == GOVERNANCE:
            self._weak(BYPASSES)
        return self._outcome

    def clear(self) -> int:
        """Delete what earlier trials have left; how many objects are there still."""
        self._clear(PREFIX, before=datetime.now(UTC) - timedelta(seconds=HOLD_S))
        return sum(1 for _ in self._versions(PREFIX))

    def _look_for_locks(self) -> None:
        try:
            self._locks = self._plain.get_object_lock_config(self._bucket)
        except (S3Error, NotS3) as exc:
            code = exc.code if isinstance(exc, S3Error) else ""
            if code == "AccessDenied":
                self._weak(LOCK_UNKNOWN)
            elif code in _NO_LOCKS or (isinstance(exc, NotS3) and exc.status in (400, 404, 405, 501)):
                self._weak(NO_LOCK)
            else:
                raise
            return
        if self._locks.mode is None:
            self._weak(NO_DEFAULT)

    def _conditions(self) -> None:
        whole, twice = f"{self._folder}whole", f"{self._folder}twice"
        self._put(whole, b"1")
        if self._put(whole, b"2"):
            self._weak(REPLACES)
        elif self._put(whole, bytes(_PART_BYTES + 1)):
            self._weak(REPLACES_PARTS)
        with ThreadPoolExecutor(2) as threads:
            both = all(threads.map(lambda data: self._put(twice, data), (b"1", b"2")))
        if both and REPLACES not in self._outcome.weaknesses:
            self._weak(REPLACES_AT_ONCE)

    def _listing(self) -> None:
        listing = self._plain.list_objects(self._bucket, self._folder, recursive=True)
        listed = {found.object_name for found in islice(listing, MAX_LISTED)}
        if not self._written <= listed:
            self._weak(LISTS_LATE)

    def _lock(self) -> None:
        key = f"{self._folder}locked"
        try:
            self._put(key, b"1", held=True)
        except S3Error as exc:
            if exc.response.status not in (400, 501):
                raise
            self._weak(LOCK_REFUSED)
            return
        version = next((version for name, version, _ in self._versions(key) if name == key), None)
        if version is None:
            self._weak(LOCK_REFUSED)
            return
        try:
            self._plain.remove_object(self._bucket, key, version_id=version)
        except S3Error as exc:
            if exc.response.status >= 500:
                raise
            return
        # What counts is what it does, not what it answers.
        if all(name != key for name, _, _ in self._versions(key)):
            self._weak(LOCK_IGNORED)

    def _put(self, key: str, data: bytes, *, held: bool = False) -> bool:
        # A bucket that locks everything for long would keep what a trial writes: a short lock of its own comes before.
        short = held or (self._locks is not None and self._locks.mode is not None)
        until = datetime.now(UTC) + timedelta(seconds=HOLD_S)
        try:
            self._creating.put_object(
                self._bucket,
                key,
                BytesIO(data),
                len(data),
                part_size=_PART_BYTES,
                num_parallel_uploads=1,
                retention=Retention(GOVERNANCE, until) if short else None,
            )
        except S3Error as exc:
            if exc.response.status == 412 or exc.code in _TAKEN:
                return False
            raise
        self._written.add(key)
        return True

    def _versions(self, prefix: str) -> Iterator[tuple[str, str | None, datetime | None]]:
        """Key, version and time of every version of every object under ``prefix``."""
        for versions in (True, False):
            try:
                listing = self._plain.list_objects(self._bucket, prefix, recursive=True, include_version=versions)
                for found in islice(listing, MAX_LISTED):
                    version = found.version_id if found.version_id != "null" else None
                    yield str(found.object_name), version or None, found.last_modified
            except (S3Error, NotS3) as exc:
                if versions and (isinstance(exc, NotS3) or exc.code in ("NotImplemented", "AccessDenied")):
                    continue
                raise
            return

    def _clear(self, prefix: str, before: datetime | None = None) -> bool:
        """Delete, also what is locked where the credentials may; whether anything was that a lock should have held."""
        bypassed = False
        for key, version, modified in list(self._versions(prefix)):
            if before is not None and (modified is None or modified > before):
                continue
            try:
                self._plain.remove_object(self._bucket, key, version_id=version)
            except S3Error as exc:
                if exc.response.status >= 500:
                    raise
                bypassed = self._bypass(key, version) or bypassed
        return bypassed

    def _bypass(self, key: str, version: str | None) -> bool:
        each = [DeleteObject(key, version)]
        try:
            return not list(self._plain.remove_objects(self._bucket, each, bypass_governance_mode=True))
        except S3Error as exc:
            if exc.response.status >= 500:
                raise
            return False

    def _weak(self, sentence: str) -> None:
        if sentence not in self._outcome.weaknesses:
            self._outcome.weaknesses.append(sentence)


def tried(plain: Minio, creating: Minio, bucket: str) -> Outcome:
    """What a trial of the bucket finds."""
    return Trial(plain, creating, bucket).run()


def cleared(plain: Minio, creating: Minio, bucket: str) -> int:
    """How many objects of earlier trials are left after another attempt to delete them."""
    return Trial(plain, creating, bucket).clear()
