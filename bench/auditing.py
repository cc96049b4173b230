"""Audit: from EVENTS to files in a real S3 server, over a bare loop that does what cannot be left out."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from backhaul_audit.shaping import compressor
from backhaul_client import AsyncAdminClient
from backhaul_common.ids import derived_id
from backhaul_common.names import AUDIT_FILES_COLLECTION, channel_key, events_subject
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import EventBatch
from generators import LoadError
from installation import Installation
from minio import Minio
from report import Report

EVENTS_A_MESSAGE = 250
"""As the normalizer puts them together when it is busy."""

_TENANT = "auditing"
_CHANNEL, _ENCRYPTED = "SendGrid", "Encrypted"
_IN_FLIGHT = 16
_PATIENCE_S = 60.0
_LOOK_S = 0.05


@dataclass(frozen=True)
class _Floors:
    """Events per CPU second of bare loops."""

    isal: float
    zlib: float


@dataclass(frozen=True)
class _Round:
    """``per_core`` are events per CPU second; ``floors`` are the same of bare loops over the same bytes."""

    per_core: float
    per_second: float
    floors: _Floors
    resident_mb: float
    bytes: int


async def measure(site: Installation, report: Report, *, rounds: int, events: int) -> None:
    """``audit_events_per_core_s`` and ``audit_vs_floor``: ``events`` events a round, which wait in EVENTS."""
    await site.stop("normalizer", "suppression")
    await site.ensure("gateway")
    await site.register(_TENANT)
    async with AsyncAdminClient(site.stack.gateway_url, site.stack.admin_token) as platform:
        for label in (_CHANNEL, _ENCRYPTED):
            audit = {"enabled": True, "gzip": True, "encrypt_people": label == _ENCRYPTED}
            await platform.put_channel(
                _TENANT,
                label,
                **{**site.traffic.channels[_CHANNEL], "provider": "sendgrid", "settings": {"audit": audit}},
            )
    registration = await site.registration(_TENANT)
    # A round's last file is closed by its age.
    site.stack.service("audit").env["BACKHAUL_AUDIT_MAX_FILE_AGE_S"] = "1"
    await site.ensure("audit")
    # What a process does for the first time is not what it costs.
    for label in (_CHANNEL, _ENCRYPTED):
        await _round(site, label, _messages(site, registration, label, 5 * EVENTS_A_MESSAGE))
    measured, encrypted = [], []
    for round_ in range(rounds):
        site.say(f"audit, round {round_ + 1} of {rounds}")
        measured.append(await _round(site, _CHANNEL, _messages(site, registration, _CHANNEL, events)))
        encrypted.append(await _round(site, _ENCRYPTED, _messages(site, registration, _ENCRYPTED, events)))
    await site.stop("audit")
    note = f"of about 1 KB, {EVENTS_A_MESSAGE} a message; gzip, SHA-256, PUT; CPU of audit"
    report.add(
        "audit_events_per_core_s", [one.per_core for one in measured], "events / CPU s", aim="≥ 50,000", note=note
    )
    loop = "over a loop that compresses, hashes and puts the same bytes with the same client, with"
    vs_zlib = [one.per_core / one.floors.zlib for one in measured]
    report.add("audit_vs_floor", vs_zlib, "ratio of CPU", aim="≥ 0.5", note=f"{loop} gzip of level 6")
    vs_isal = [one.per_core / one.floors.isal for one in measured]
    report.add("audit_vs_isal_floor", vs_isal, "ratio of CPU", note=f"{loop} the faster gzip that audit has")
    ratio = [one.per_core / plain.per_core for one, plain in zip(encrypted, measured, strict=True)]
    report.add(
        "audit_encrypted_vs_plain", ratio, "ratio of CPU", note="encrypt_people; each third event a new person's"
    )
    larger = [one.bytes / plain.bytes for one, plain in zip(encrypted, measured, strict=True)]
    report.add("audit_encrypted_bytes", larger, "ratio", note="as stored, over files that are not encrypted")
    report.add("audit_events_s", [one.per_second for one in measured], "events/s", note="by the clock")
    report.add("audit_resident_mb", [one.resident_mb for one in measured], "MB", note="after each round")


async def _round(site: Installation, label: str, messages: Sequence[bytes]) -> _Round:
    files = site.database[AUDIT_FILES_COLLECTION]
    earlier = [row["_id"] async for row in files.find({}, {"_id": 1})]
    count = len(messages) * EVENTS_A_MESSAGE
    before = site.meter.read()
    subject = events_subject(_TENANT, channel_key(label), "delivered", "")
    for at in range(0, len(messages), _IN_FLIGHT):
        await asyncio.gather(*(site.js.publish(subject, one) for one in messages[at : at + _IN_FLIGHT]))
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            rows = [row async for row in files.find({"_id": {"$nin": earlier}, "state": "sealed"})]
            if (filed := sum(row["events"] for row in rows)) >= count:
                break
            if not site.stack.service("audit").running:
                raise LoadError(f"audit has ended:\n{site.stack.service('audit').log_tail()}")
            await asyncio.sleep(_LOOK_S)
    after = site.meter.read()
    if filed != count:
        raise LoadError(f"{count} events were to be filed, and {filed} were.")
    used = after.since(before)["audit"]
    keys = [row["key"] for row in rows]
    floor = await asyncio.to_thread(_floor, site, keys, count)
    stored = sum(row["bytes"] for row in rows)
    return _Round(count / used, count / (after.at - before.at), floor, site.meter.resident_mb()["audit"], stored)


def _floor(site: Installation, keys: Sequence[str], count: int) -> _Floors:
    """A loop that makes the same objects of the same bytes, with audit's compression and with the usual one."""
    store = site.stack.object_store
    assert store is not None
    client = Minio(
        store.endpoint.removeprefix("http://"), store.access_key, store.secret_key, secure=False, region="us-east-1"
    )
    contents = []
    for key in keys:
        answer = client.get_object(store.bucket, key)
        contents.append(gzip.decompress(answer.data))
        answer.close()

    def own(content: bytes) -> bytes:
        compress = compressor()
        return compress.compress(content) + compress.flush()

    def usual(content: bytes) -> bytes:
        # Level 6 is what gzip has where nobody names one; Python's own default of 9 would flatter.
        return gzip.compress(content, compresslevel=6)

    floors = []
    for compressed in (own, usual):
        began = time.process_time()
        for n, content in enumerate(contents):
            stored = compressed(content)
            hashlib.sha256(content).hexdigest()
            hashlib.sha256(stored).hexdigest()
            client.put_object(store.bucket, f"floor/{compressed.__name__}/{keys[n]}", io.BytesIO(stored), len(stored))
        floors.append(count / (time.process_time() - began))
    return _Floors(*floors)


def _messages(site: Installation, registration: str, label: str, events: int) -> list[bytes]:
    """Messages of EVENTS, as the normalizer makes them of a SendGrid webhook."""
    made = []
    now_us = time.time_ns() // 1000
    for start in range(0, events, EVENTS_A_MESSAGE):
        batch = EventBatch()
        for one in site.traffic.sendgrid_events(EVENTS_A_MESSAGE):
            raw = json.dumps(one).encode()
            batch.events.add(
                id=derived_id(registration, str(one["sg_event_id"])),
                tenant_id=_TENANT,
                registration=registration,
                channel=channel_key(label),
                provider="sendgrid",
                kind=event_pb2.EVENT_KIND_DELIVERED,
                provider_status="delivered",
                message_id=str(one["sg_message_id"]),
                recipient=str(one["email"]),
                communication_id=str(one["communicationId"]),
                occurred_at_us=int(one["timestamp"]) * 1_000_000,
                received_at_us=now_us + start,
                source=callback_pb2.SOURCE_CALLBACK,
                verification=callback_pb2.VERIFICATION_VERIFIED,
                raw=raw,
            )
        made.append(batch.SerializeToString())
    return made
