"""What tests of filing share: real servers, events on EVENTS, copies as processes, and what lies in the bucket then."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backhaul_audit.documents import SEALED, to_sealed
from backhaul_audit.model import SealedFile
from backhaul_common import mongo
from backhaul_common.ids import derived_id
from backhaul_common.names import (
    AGAIN_HEADER,
    AUDIT_CHAINS_COLLECTION,
    AUDIT_CONTENTS_COLLECTION,
    AUDIT_FILES_COLLECTION,
    AUDIT_POSITION_COLLECTION,
    TENANT_CHANGED_SUBJECT,
    TENANTS_COLLECTION,
    events_subject,
)
from backhaul_common.tenants import Channel, Tenant
from backhaul_common.vocabulary import Words
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from backhaul_testing import make
from backhaul_testing.waiting import until
from minio import Minio
from nats.aio.client import Client as NatsClient

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
"""A Fernet key."""

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

_KINDS = Words(event_pb2.EventKind.DESCRIPTOR)


def asking(tenant_id: str, *, registration: str = "", **audit: Any) -> Tenant:
    """A tenant whose channels Twilio and SendGrid ask for audit files."""
    wanted = {"audit": {"enabled": True, **audit}}
    made = make.tenant(tenant_id, twilio=wanted, sendgrid=wanted)
    return made.model_copy(update={"registration": registration}) if registration else made


def event(of: Tenant, name: str, *, channel: str = "sendgrid", revision: int = 0, **fields: Any) -> Event:
    """An event whose id follows from ``name``, and whose line says the id and the revision."""
    event_id = derived_id("event", of.registration, name)
    raw = fields.pop("raw", None)
    if raw is None:
        raw = json.dumps({"id": event_id, "revision": revision, "name": name}).encode()
    return Event(
        id=event_id,
        tenant_id=of.id,
        registration=of.registration,
        channel=channel,
        provider=channel,
        kind=fields.pop("kind", event_pb2.EVENT_KIND_DELIVERED),
        revision=revision,
        received_at_us=fields.pop("received_at_us", 0) or time.time_ns() // 1000,
        source=fields.pop("source", callback_pb2.SOURCE_CALLBACK),
        raw=raw,
        **fields,
    )


@dataclass
class Rig:
    """Servers of a test, and what it knows of them."""

    nats: NatsClient
    database: mongo.Database
    s3: Minio
    bucket: str
    environment: Mapping[str, str]
    logs: Path
    copies: list[subprocess.Popen[bytes]] = field(default_factory=list)

    async def register(self, *tenants: Tenant) -> None:
        for one in tenants:
            await self.database[TENANTS_COLLECTION].replace_one({"_id": one.id}, one.to_document(), upsert=True)
            await self.nats.publish(TENANT_CHANGED_SUBJECT, one.id.encode())

    async def publish(self, of: Tenant, *events: Event, again: bool = False) -> int:
        """One message with ``events``; its position."""
        subject = events_subject(of.queue_path, events[0].channel, _KINDS.word(events[0].kind), events[0].error_code)
        headers = {AGAIN_HEADER: "1"} if again else None
        data = EventBatch(events=events).SerializeToString()
        return (await self.nats.jetstream().publish(subject, data, headers=headers)).seq

    def start(self, **settings: Any) -> subprocess.Popen[bytes]:
        """One more copy of the service, as a process."""
        return self._run(["-m", "backhaul_audit"], settings)

    def start_until(self, step: str, **settings: Any) -> subprocess.Popen[bytes]:
        """One that does not get beyond a step: see ``filing_program``."""
        return self._run([str(Path(__file__).with_name("filing_program.py")), step], settings)

    def _run(self, program: Sequence[str], settings: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self.environment}
        environment |= {f"BACKHAUL_{name.upper()}": str(value) for name, value in settings.items()}
        with (self.logs / f"audit-{len(self.copies)}.log").open("wb") as log:
            copy = subprocess.Popen([sys.executable, *program], env=environment, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603  # the service itself
        self.copies.append(copy)
        return copy

    def log(self, copy: int = 0) -> str:
        """What the copy that was started first has said, or another one by its number."""
        return (self.logs / f"audit-{copy}.log").read_text()

    def kill(self, copy: subprocess.Popen[bytes]) -> None:
        copy.send_signal(signal.SIGKILL)
        copy.wait()

    async def died(self, copy: subprocess.Popen[bytes], *, within_s: float = 60) -> None:
        """Return when the copy has died by itself, and another one need not wait any more to take its place.

        How long that takes is held elsewhere: here the dead one was heard of long ago.
        """

        async def dead() -> bool:
            return copy.poll() is not None

        await until("the end of a copy", dead, within_s=within_s, pause_s=0.05)
        assert copy.returncode == -signal.SIGKILL
        await self.database[AUDIT_POSITION_COLLECTION].update_many({}, {"$set": {"seen_at": LONG_AGO}})

    async def stopped(self, copy: subprocess.Popen[bytes], *, within_s: float = 60) -> None:
        """Return when the copy has stopped by itself, as by SIGSTOP."""

        async def stopped() -> bool:
            return os.waitid(os.P_PID, copy.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None  # noqa: ASYNC222  # with WNOHANG it does not wait

        await until("a copy to stop", stopped, within_s=within_s, pause_s=0.05)

    async def said(self, line: str, *, copy: int = 0, within_s: float = 60) -> None:
        """Return when the copy has said ``line``."""

        async def there() -> bool:
            return line in self.log(copy).splitlines()

        await until(f"a copy to say {line!r}", there, within_s=within_s, pause_s=0.05)

    def stop_all(self) -> None:
        for copy in self.copies:
            if copy.poll() is None:
                self.kill(copy)

    async def files(self) -> list[SealedFile]:
        """All sealed files, by chain and number."""
        rows = await self.database[AUDIT_FILES_COLLECTION].find({"state": SEALED}).to_list(None)
        files = [to_sealed(row) for row in rows]
        return sorted(files, key=lambda one: (one.plan.pile.of.id, one.number))

    def bytes_of(self, file: SealedFile) -> bytes:
        """A file as it is stored."""
        response = self.s3.get_object(bucket_name=file.plan.bucket, object_name=file.plan.key)
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()

    def lines_of(self, file: SealedFile) -> list[Any]:
        """What a file holds."""
        data = self.bytes_of(file)
        if file.plan.shape.gzip:
            data = gzip.decompress(data)
        if file.plan.shape.format == "array":
            return list(json.loads(data))
        assert data.endswith(b"\n")
        return [json.loads(line) for line in data.splitlines()]

    async def sealed(self, count: int, *, within_s: float = 60) -> list[SealedFile]:
        """Return when ``count`` events lie in sealed files."""

        async def enough() -> list[SealedFile] | None:
            files = await self.files()
            return files if sum(one.content.events for one in files) >= count else None

        return await until(f"{count} events in files", enough, within_s=within_s, pause_s=0.1)

    async def check(self, expected: Sequence[Event], *, objects: bool = True) -> list[SealedFile]:
        """Each of ``expected`` lies in exactly one file, nothing else does, and the books agree with the bucket."""
        files = await self.files()
        found: Counter[tuple[str, int]] = Counter()
        for file in files:
            lines = self.lines_of(file)
            ids = [(line["id"], line["revision"]) for line in (one.get("raw", one) for one in lines)]
            assert len(ids) == file.content.events
            row = await self.database[AUDIT_CONTENTS_COLLECTION].find_one({"_id": file.plan.id})
            assert row is not None
            assert [row["ids"][at : at + 16].hex() for at in range(0, len(row["ids"]), 16)] == [one for one, _ in ids]
            found.update(ids)
        wanted = Counter({(one.id, one.revision): 1 for one in expected})
        assert found == wanted, f"{len(found - wanted)} too often, {len(wanted - found)} missing"
        numbers: dict[str, list[int]] = {}
        for file in files:
            numbers.setdefault(file.plan.pile.of.id, []).append(file.number)
        for of, some in numbers.items():
            assert some == list(range(1, len(some) + 1)), of
            row = await self.database[AUDIT_CHAINS_COLLECTION].find_one({"_id": of})
            assert row is not None
            assert row["number"] == len(some)
        if objects:
            stored = {one.object_name for one in self.s3.list_objects(self.bucket, prefix="tenants/", recursive=True)}
            assert stored == {file.plan.key for file in files}
        return files


class Objects:
    """``Destinations`` whose one bucket remembers what was to be deleted from it."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    def named(self, registration: str, destination: str) -> Any:
        return self

    def lying(self, registration: str, destination: str, bucket: str) -> Any:
        return self

    def of(self, tenant: Tenant, channel: Channel) -> Any:
        return self

    async def delete(self, key: str) -> datetime | None:
        self.deleted.append(key)
        return None
