"""A channel whose files are encrypted per person: who can read them, and what an erasure leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
from backhaul_client import AsyncAdminClient
from backhaul_client.auditmodels import AuditErasure, AuditFile
from backhaul_testing.posts import send

from backhaul_local.demo_asking import Account, poll
from backhaul_local.demo_audit import Owner, Verified, verified
from backhaul_local.stack import ObjectStoreAccess

LABEL: Final = "Receipts"
SETTINGS: Final[Mapping[str, Any]] = {"audit": {"enabled": True, "encrypt_people": True}}
"""Of the channel: its events are filed, and nobody but Backhaul can read who they are about."""

ADA, BEN = "+15005550021", "+15005550022"
"""Who get receipts. Ada is erased afterwards."""

STATUSES = ("sent", "delivered")
RECEIPTS = {
    ADA: "SM7c30214d9eb56fa8c2f516d7e8a9132b",
    BEN: "SM8d41325eafc670b9d30627e8f9ba243c",
}
"""By whom they are for, each with the message's id."""

PEOPLE_EVENTS = len(RECEIPTS) * len(STATUSES)


@dataclass(frozen=True, kw_only=True)
class Erased:
    """Lines as they are ``stored`` in the bucket, and as the API gives them ``before`` and ``after`` Ada was erased.
    ``unchanged`` is whether the bucket has the same lines then; ``files`` are how many Acme has by then, on whatever
    channel, and ``sound`` is what a verification said of them."""

    stored: Sequence[bytes]
    before: Sequence[bytes]
    erasure: AuditErasure
    after: Sequence[bytes]
    unchanged: bool
    files: int
    sound: Verified


async def erase(
    http: httpx.AsyncClient, address: str, platform: AsyncAdminClient, bucket: ObjectStoreAccess, acme: Account
) -> Erased:
    """Have receipts filed that were posted to ``address``, and Ada erased."""
    await platform.put_channel(
        acme.tenant.id,
        LABEL,
        provider="twilio",
        secrets=[acme.twilio.auth_token],
        settings=SETTINGS,
        verification="enforce",
    )
    for person, sid in RECEIPTS.items():
        for status in STATUSES:
            await send(http, acme.twilio.status(address, sid, status, to=person))

    async def listed() -> list[AuditFile]:
        return [file async for file in acme.client.audit_files(channel=LABEL)]

    def signed(files: list[AuditFile]) -> bool:
        return sum(file.events for file in files) >= PEOPLE_EVENTS and all(file.digest for file in files)

    files = await poll(listed, signed)

    async def stored() -> list[bytes]:
        return [line for file in files for line in (await Owner(bucket, file.key).get()).splitlines()]

    async def decrypted() -> list[bytes]:
        pieces = [piece for file in files async for piece in acme.client.audit_content(file.id, decrypted=True)]
        return b"".join(pieces).splitlines()

    lines, before = await stored(), await decrypted()
    erasure = await acme.client.erase_person(ADA)
    sound = await verified(acme)
    return Erased(
        stored=lines,
        before=before,
        erasure=erasure,
        after=await decrypted(),
        unchanged=await stored() == lines,
        files=len([file async for file in acme.client.audit_files()]),
        sound=sound,
    )


def about(lines: Sequence[bytes], person: str) -> int:
    """How many lines tell of a person, by number or by message."""
    return sum(person.encode() in line or RECEIPTS[person].encode() in line for line in lines)
