"""That all destinations of a member were processed, sent to or failed: said once a member, where somebody wants it.

Within the transaction that processes the last one it cannot be seen: another copy may process another one at the same
time. So it is looked at after the commit, whoever commits last sees all of them, and the member's document keeps that
it was said. What a crash leaves unsaid is said when the callback is delivered again, or by ``relinking``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final

from backhaul_common import mongo, outbox, wanted
from backhaul_common.documents import Document
from backhaul_common.fence import Living, living
from backhaul_common.names import MEMBERS_COLLECTION, MESSAGES_COLLECTION, NORMALIZER_OUTBOX
from backhaul_common.notices import entry, notice_id
from backhaul_proto.event.v1.event_pb2 import Attribute
from backhaul_proto.notice.v1.notice_pb2 import About, Notice

from backhaul_normalizer.communications.documents import FAILED, PROCESSED
from backhaul_normalizer.writing import Commands

MAX_AT_ONCE: Final = 250
"""Members in one transaction, each of which has some messages."""

_MEMBER = {"registration": 1, "batch_id": 1, "key": 1, "destinations": 1}
_MESSAGE = {"fulfilment": 1, "channel": 1, "message_id": 1, "communication_id": 1}


class MembersProcessed:
    """Says it. ``written`` is called after a commit that wrote notices."""

    def __init__(self, database: mongo.Database, written: Callable[[], None], now_us: Callable[[], int]) -> None:
        self._database = database
        self._written = written
        self._now_us = now_us

    async def check(self, members: Mapping[bytes, str], tenants: Collection[str]) -> None:
        """Say it of those of ``members``, by ``_id`` each with its registration, of whom it is so and was not said.
        They are of these tenants. UNAVAILABLE, and all may be done again then."""
        if not members:
            return
        wanting = await wanted.wanting(self._database, set(members.values()), wanted.MEMBER_PROCESSED)
        left = [key for key, registration in sorted(members.items()) if registration in wanting]
        while left:
            some, left = left[:MAX_AT_ONCE], left[MAX_AT_ONCE:]
            work = partial(_say, some, tenants, self._now_us())
            async with mongo.translated():
                said = await mongo.in_transaction(self._database, work)
            if said:
                self._written()


def _say(
    members: Sequence[bytes],
    tenants: Collection[str],
    now_us: int,
    database: mongo.ThreadDatabase,
    session: mongo.Session,
) -> int:
    """Of how many it is said now."""
    owners = {one.registration: (tenant, one) for tenant, one in living(database, session, tenants).items()}
    query: Document = {
        "_id": {"$in": list(members)},
        "registration": {"$in": list(owners)},
        "processed": {"$exists": False},
        # Each has a message, or it needs no further look.
        "destinations": {"$not": {"$elemMatch": {"holder": {"$exists": False}}}},
    }
    rows = list(database[MEMBERS_COLLECTION].find(query, _MEMBER, session=session, batch_size=MAX_AT_ONCE + 1))
    holders = [one["holder"] for row in rows for one in row["destinations"]]
    if not holders:
        return 0
    found = database[MESSAGES_COLLECTION].find(
        {"_id": {"$in": holders}}, _MESSAGE, session=session, batch_size=len(holders) + 1
    )
    messages = {message["_id"]: message for message in found}
    entries, updates = [], []
    for row in rows:
        own = [messages.get(one["holder"], {}) for one in row["destinations"]]
        if all(message.get("fulfilment") in PROCESSED for message in own):
            tenant, owner = owners[row["registration"]]
            entries.append(entry(_notice(row, own, tenant, owner, now_us), owner.path))
            # Two copies that would say it meet here.
            updates.append({"q": {"_id": row["_id"]}, "u": {"$set": {"processed": True}, "$inc": {"version": 1}}})
    Commands(database, session).update(MEMBERS_COLLECTION, updates)
    outbox.write(database, session, NORMALIZER_OUTBOX, entries)
    return len(entries)


def _notice(member: Document, messages: Sequence[Document], tenant: str, owner: Living, now_us: int) -> Notice:
    failed = sum(message["fulfilment"] in FAILED for message in messages)
    told = {"member_key": member["key"], "destinations": len(messages), "failed": failed}
    first = messages[0]
    return Notice(
        id=notice_id(owner.registration, wanted.MEMBER_PROCESSED, member["_id"].hex()),
        tenant_id=tenant,
        registration=owner.registration,
        type=wanted.MEMBER_PROCESSED,
        occurred_at_us=now_us,
        about=About(
            channel=first["channel"],
            communication_id=first["communication_id"],
            message_id=first["message_id"],
            recipient=member["destinations"][0]["recipient"],
            reference=member["batch_id"],
        ),
        text=f"All destinations of a member were processed: {len(messages)}, of which {failed} failed.",
        attributes=[Attribute(name=name, value=str(value)) for name, value in told.items()],
    )
