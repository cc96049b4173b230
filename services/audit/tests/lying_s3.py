"""A small S3 server in memory, without signatures, that may lie: it accepts what it does not hold to.

It exists for what no honest server does. What buckets do otherwise is tested on a real one.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "backhaul"

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers, body."""


@dataclass
class Lies:
    """What the server accepts and does not do, or answers at random."""

    replaces: bool = False
    """If-None-Match on an object that comes as a whole."""
    replaces_parts: bool = False
    """If-None-Match on the completion of one that came in parts."""
    replaces_at_once: bool = False
    """If-None-Match while another request for the same key is under way."""
    deletes_locked: bool = False
    refuses_locks: bool = False
    """Says that the bucket has object lock, and takes no retention."""
    lists_late: bool = False
    """An object is listed only once something else was listed."""
    lists_deleted: bool = False
    no_bypass: bool = False
    """Governance holds for everybody."""
    answer: Answer | None = None
    """What everything is answered with."""
    completes_with_error: str = ""
    """The code of an error in an answer of status 200 to the completion of parts."""


@dataclass
class Stored:
    """One version of an object."""

    key: str
    version: str
    data: bytes
    headers: dict[str, str]
    seen: bool = False
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def until(self) -> datetime | None:
        text = self.headers.get("x-amz-object-lock-retain-until-date", "")
        return datetime.fromisoformat(text) if text else None


class LyingS3:
    """``requests`` are the methods, paths with query and headers of all that came, in order."""

    def __init__(self, *, locks: bool = False, lies: Lies | None = None) -> None:
        self.locks = locks
        self.lies = lies or Lies()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.objects: list[Stored] = []
        self.deleted: list[str] = []
        self.uploads: dict[str, tuple[str, dict[str, str], dict[int, bytes]]] = {}
        self.lock = threading.RLock()
        self._meeting = threading.Barrier(2)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve; the endpoint's URL."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Tests say what happened."""

            def any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): text for name, text in self.headers.items()}
                status, answered, data = outer.handle(self.command, self.path, headers, body)
                self.send_response(status)
                for name, text in answered.items():
                    self.send_header(name, text)
                if "content-length" not in {name.lower() for name in answered}:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

        for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
            setattr(Handler, f"do_{method}", Handler.any)
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """What one request is answered with."""
        if self.lies.replaces_at_once and method == "PUT" and headers.get("if-none-match"):
            # Both look before either writes.
            free = not self._versions(unquote(urlsplit(path).path).partition(f"/{BUCKET}/")[2])
            try:
                self._meeting.wait(1)
            except threading.BrokenBarrierError:
                self._meeting.reset()
            if free:
                headers = {name: text for name, text in headers.items() if name != "if-none-match"}
        with self.lock:
            self.requests.append((method, path, headers))
            if self.lies.answer is not None:
                return self.lies.answer
            url = urlsplit(path)
            query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
            bucket, _, key = unquote(url.path)[1:].partition("/")
            if bucket != BUCKET:
                return error(404, "NoSuchBucket")
            if "delete" in query:
                return self._deleted_together(headers, body)
            if not key:
                return self._of_bucket(method, query)
            return self._of_object(method, key, query, headers, body)

    def _of_bucket(self, method: str, query: Mapping[str, str]) -> Answer:
        if method == "HEAD":
            return 200, {}, b""
        if "object-lock" in query:
            if not self.locks:
                return error(404, "ObjectLockConfigurationNotFoundError")
            return xml(
                "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>"
            )
        versions = "versions" in query
        prefix, after = query.get("prefix", ""), query.get("start-after", "")
        rows = []
        for stored in sorted(self.objects, key=lambda stored: stored.key.encode()):
            if stored.key.startswith(prefix) and stored.key > after and (stored.seen or not self.lies.lists_late):
                version = f"<VersionId>{stored.version}</VersionId><IsLatest>true</IsLatest>" if versions else ""
                tag = "Version" if versions else "Contents"
                when = stored.modified.isoformat(timespec="milliseconds").replace("+00:00", "Z")
                rows.append(
                    f"<{tag}><Key>{escape(quote(stored.key))}</Key>{version}<LastModified>{when}</LastModified>"
                    f"<ETag>&quot;x&quot;</ETag><Size>{len(stored.data)}</Size></{tag}>"
                )
            stored.seen = True
        if self.lies.lists_deleted and not versions:
            rows += [
                f"<Contents><Key>{escape(quote(key))}</Key><Size>1</Size><ETag>x</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for key in self.deleted
                if key.startswith(prefix)
            ]
        root = "ListVersionsResult" if versions else "ListBucketResult"
        return xml(
            f"<{root}><Name>{BUCKET}</Name><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
            f"{''.join(rows)}</{root}>"
        )

    def _of_object(
        self, method: str, key: str, query: Mapping[str, str], headers: dict[str, str], body: bytes
    ) -> Answer:
        if "uploads" in query or "uploadId" in query:
            return self._of_upload(method, key, query, headers, body)
        if method == "DELETE":
            return self._deleted(key, query.get("versionId", ""), headers)
        if method != "PUT":
            return self._shown(key, query)
        if self._versions(key) and "if-none-match" in headers and not self.lies.replaces:
            return error(412, "PreconditionFailed")
        if self.lies.refuses_locks and "x-amz-object-lock-mode" in headers:
            return error(400, "InvalidRequest")
        stored = self._store(key, body, headers)
        return 200, {"ETag": '"x"', **({"x-amz-version-id": stored.version} if self.locks else {})}, b""

    def _of_upload(
        self, method: str, key: str, query: Mapping[str, str], headers: dict[str, str], body: bytes
    ) -> Answer:
        if "uploads" in query:
            upload = uuid.uuid4().hex
            self.uploads[upload] = (key, headers, {})
            return xml(f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>")
        if (found := self.uploads.get(query["uploadId"])) is None:
            return error(404, "NoSuchUpload")
        if method == "PUT":
            found[2][int(query["partNumber"])] = body
            return 200, {"ETag": f'"{len(body)}"'}, b""
        held_to = "if-none-match" in headers and not self.lies.replaces_parts
        if method == "POST" and (self.lies.completes_with_error or (held_to and self._versions(key))):
            return error(200, lie) if (lie := self.lies.completes_with_error) else error(412, "PreconditionFailed")
        del self.uploads[query["uploadId"]]
        if method == "DELETE":
            return 204, {}, b""
        self._store(key, b"".join(found[2][number] for number in sorted(found[2])), found[1])
        tag = "<ETag>&quot;x&quot;</ETag>"
        return xml(f"<CompleteMultipartUploadResult><Bucket>b</Bucket>{tag}</CompleteMultipartUploadResult>")

    def _shown(self, key: str, query: Mapping[str, str]) -> Answer:
        found = self._versions(key)
        if not found:
            return error(404, "NoSuchKey")
        stored = found[-1]
        if "retention" in query:
            if stored.until is None:
                return error(404, "NoSuchObjectLockConfiguration")
            until = stored.headers["x-amz-object-lock-retain-until-date"]
            return xml(f"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>")
        shown = {name: text for name, text in stored.headers.items() if name.startswith("x-amz-meta-")}
        shown |= {"Last-Modified": format_datetime(stored.modified, usegmt=True), "ETag": '"x"'}
        shown |= {"Content-Length": str(len(stored.data)), "Content-Type": "application/octet-stream"}
        return 200, shown, stored.data

    def _deleted(self, key: str, version: str, headers: Mapping[str, str]) -> Answer:
        bypass = headers.get("x-amz-bypass-governance-retention") == "true" and not self.lies.no_bypass
        for stored in self._versions(key):
            if version in ("", stored.version):
                locked = stored.until is not None and stored.until > datetime.now(UTC)
                if locked and not bypass and not self.lies.deletes_locked:
                    return error(403, "AccessDenied")
                self.objects.remove(stored)
                self.deleted.append(key)
        return 204, {}, b""

    def _deleted_together(self, headers: Mapping[str, str], body: bytes) -> Answer:
        rows = []
        for key, version in re.findall(r"<Key>(.*?)</Key>(?:<VersionId>(.*?)</VersionId>)?", body.decode()):
            status, _, _ = self._deleted(key, version, headers)
            if status != 204:
                rows.append(f"<Error><Key>{key}</Key><Code>AccessDenied</Code></Error>")
        return xml(f"<DeleteResult>{''.join(rows)}</DeleteResult>")

    def _versions(self, key: str) -> list[Stored]:
        return [stored for stored in self.objects if stored.key == key]

    def _store(self, key: str, data: bytes, headers: dict[str, str]) -> Stored:
        if not self.locks:
            self.objects = [stored for stored in self.objects if stored.key != key]
        stored = Stored(key, uuid.uuid4().hex if self.locks else "null", data, headers)
        self.objects.append(stored)
        return stored


def xml(text: str) -> Answer:
    """An answer that went well."""
    return 200, {"Content-Type": "application/xml"}, re.sub(r">\s+<", "><", text).encode()


def error(status: int, code: str, message: str = "") -> Answer:
    """One that did not."""
    text = f"<Error><Code>{code}</Code><Message>{message or 'secret words of the server'}</Message></Error>"
    return status, {"Content-Type": "application/xml"}, text.encode()
