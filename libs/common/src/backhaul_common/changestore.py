"""The log of changes in MongoDB, as it is written."""

from __future__ import annotations

from datetime import timedelta

from backhaul_common import mongo
from backhaul_common.changelog import Begun, Outcome
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import CHANGES_COLLECTION
from backhaul_common.store_format import StoreFormat

BEGIN_S = 3.0
"""How long a change waits for its entry to be durable, before it is refused."""

COMPLETE_S = 3.0
"""How long an answer waits for its entry to say what it is."""


class MongoChanges:
    """A ``ChangeStore``. ``of`` is the registration that a change is about, whoever made it."""

    def __init__(self, database: mongo.Database, store_format: StoreFormat, *, days: int) -> None:
        """An entry is kept for so many ``days``, of those that held when it was written."""
        self._database = database
        self._collection = database[CHANGES_COLLECTION]
        self._format = store_format
        self._retention = timedelta(days=days)

    async def begin(self, begun: Begun, outcome: Outcome | None = None) -> None:
        """See ``ChangeStore``."""
        try:
            await self._begin(begun, outcome)
        except BackhaulError as exc:
            if exc.code is not Code.UNAVAILABLE:
                raise
            raise BackhaulError(
                Code.UNAVAILABLE,
                "The log of changes is away or too slow (MongoDB), and nothing is changed that is not logged.",
                fix="Try again later: nothing was done.",
                retry_after_s=exc.retry_after_s,
            ) from exc

    async def _begin(self, begun: Begun, outcome: Outcome | None) -> None:
        await self._format.ensure()
        entry = {
            "_id": begun.id,
            "at": begun.at,
            "ends_at": begun.at + self._retention,
            "author": begun.author,
            "client": begun.client,
            "tenant_id": begun.tenant_id,
            "of": begun.registration,
            "action": begun.action,
            "kind": begun.kind,
            "target": dict(begun.target),
            "trace_id": begun.trace_id,
            **({"application": begun.application} if begun.application else {}),
            **(_completed(outcome) if outcome is not None else {}),
        }
        await self._insert(begun, entry)

    async def _insert(self, _: Begun, entry: Document) -> None:
        async with mongo.operation(BEGIN_S):
            await self._collection.insert_one(entry)

    async def complete(self, id_: str, outcome: Outcome) -> None:
        """See ``ChangeStore``."""
        async with mongo.operation(COMPLETE_S):
            await self._collection.update_one({"_id": id_}, {"$set": _completed(outcome)})


def _completed(outcome: Outcome) -> Document:
    fields: Document = {
        "status": outcome.status,
        "target": dict(outcome.target),
        "before": outcome.before,
        "after": outcome.after,
        "cut": outcome.cut,
    }
    if outcome.tenant is not None:
        fields["tenant_id"], fields["of"] = outcome.tenant
    return fields
