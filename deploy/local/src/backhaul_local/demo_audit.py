"""A channel's audit files: what stands in one, and what is found where somebody changes it in the bucket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlsplit

from backhaul_client.auditmodels import AuditFile, AuditFinding, AuditRecount
from minio import Minio

from backhaul_local.demo_asking import Account, poll
from backhaul_local.demo_script import COMMUNICATION
from backhaul_local.stack import ObjectStoreAccess

SETTINGS: Final[Mapping[str, Any]] = {"save_email_events": True, "audit": {"folder": "events/email"}}
"""Of Acme's SendGrid channel: its events are filed, in this folder."""

ENV: Final[Mapping[str, str]] = {"BACKHAUL_AUDIT_MAX_FILE_AGE_S": "1", "BACKHAUL_AUDIT_DIGEST_EVERY_S": "2"}
"""Nobody waits five minutes for a file, and an hour for a digest, to see a demo."""

CHANGED = b"delivered", b"not_there"
"""What is changed in the bucket, and into what: as many letters."""

MAIL_EVENTS = 11


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What a verification said: how much is valid, and what is wrong of which object."""

    summary: Sequence[str]
    invalid: Sequence[AuditFinding]


@dataclass(frozen=True, kw_only=True)
class Audited:
    """Acme's mails in files. ``lines`` are those of the first file; ``events`` lie in all of them. ``sound``,
    ``changed`` and ``restored`` are what a verification said before somebody changed a line of it in the bucket, then,
    and when the line was put back. ``recount`` compares what the communication counts with its events, and those with
    what lies in files. ``elsewhere`` are the files that Globex sees."""

    files: Sequence[AuditFile]
    events: int
    lines: Sequence[bytes]
    sound: Verified
    changed: Verified
    restored: Verified
    recount: AuditRecount | None
    elsewhere: int


async def audit(bucket: ObjectStoreAccess, acme: Account, globex: Account) -> Audited:
    """Wait for the files and their digest, read one, and change it behind Backhaul's back."""

    async def listed() -> list[AuditFile]:
        return [file async for file in acme.client.audit_files()]

    def signed(files: list[AuditFile]) -> bool:
        return sum(file.events for file in files) >= MAIL_EVENTS and all(file.digest for file in files)

    async def content_of(file: AuditFile) -> bytes:
        return b"".join([piece async for piece in acme.client.audit_content(file.id)])

    files = await poll(listed, signed)
    if not files:
        nothing = Verified(summary=(), invalid=())
        return Audited(
            files=(), events=0, lines=(), sound=nothing, changed=nothing, restored=nothing, recount=None, elsewhere=0
        )
    # Of several files the one with the line that will be changed.
    contents = [(file, await content_of(file)) for file in files]
    file, content = next((one for one in contents if CHANGED[0] in one[1]), contents[0])
    sound = await verified(acme)
    owner = Owner(bucket, file.key)
    await owner.put(content.replace(*CHANGED))
    try:
        changed = await verified(acme)
    finally:
        await owner.put(content)
    return Audited(
        files=[file, *(one for one in files if one is not file)],
        events=sum(one.events for one in files),
        lines=content.splitlines(),
        sound=sound,
        changed=changed,
        restored=await verified(acme),
        recount=[one async for one in acme.client.recount_communication(COMMUNICATION)][-1],
        elsewhere=len([one async for one in globex.client.audit_files()]),
    )


async def verified(acme: Account) -> Verified:
    """What a verification of all of Acme's files says."""
    told = [one async for one in acme.client.verify_audits()]
    invalid = [finding for one in told for finding in one.findings if not finding.valid]
    return Verified(
        summary=[
            f"{one.valid_digests}/{one.digests} digests valid, {one.valid_files}/{one.files} files valid"
            for one in told
            if one.done
        ],
        invalid=invalid,
    )


def named(finding: AuditFinding) -> str:
    """What is wrong of what, in words as short as they can be."""
    return f"{finding.name.rpartition('/')[2]}: {finding.problem}"


def recounted(seen: AuditRecount | None) -> str:
    """What a recount says, in one line."""
    if seen is None:
        return "nothing"
    filed = sum(kind.audited for kind in seen.kinds)
    said = [
        "equal" if seen.equal else "not equal",
        f"{seen.events} events",
        f"{filed} in files",
        f"not asked: {' '.join(seen.channels_not_asked)}",
    ]
    if seen.waiting or seen.missing:
        said.append(f"{seen.waiting} waiting, {seen.missing} missing")
    return ", ".join(said)


def word_of(line: bytes) -> str:
    """What SendGrid calls the event of a line."""
    return str(json.loads(line)["event"])


class Owner:
    """Whoever has the bucket's keys: they read what lies under a key, and put there what they like."""

    def __init__(self, bucket: ObjectStoreAccess, key: str) -> None:
        endpoint = urlsplit(bucket.endpoint)
        self._client = Minio(
            endpoint.netloc,
            access_key=bucket.access_key,
            secret_key=bucket.secret_key,
            secure=endpoint.scheme == "https",
            region="us-east-1",
        )
        self._bucket = bucket.bucket
        self._key = key

    async def get(self) -> bytes:
        """What lies there."""
        return await asyncio.to_thread(self._get)

    async def put(self, data: bytes) -> None:
        """Put ``data`` where the file lies, whatever is there."""
        await asyncio.to_thread(self._client.put_object, self._bucket, self._key, BytesIO(data), len(data))

    def _get(self) -> bytes:
        answer = self._client.get_object(self._bucket, self._key)
        try:
            data: bytes = answer.read()
            return data
        finally:
            answer.close()
            answer.release_conn()
