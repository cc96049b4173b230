"""What suppression says when a person is erased: it keeps what says that they must not be contacted."""

from __future__ import annotations

from typing import Final

from backhaul_channels.people import person, spellings
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import SUPPRESSION_FACTS_COLLECTION, SUPPRESSIONS_COLLECTION
from backhaul_common.tenantdata import Asked, Kept, Receipt, no_address

from backhaul_suppression.model import Family

_REASONS: Final = (
    (SUPPRESSIONS_COLLECTION, "So that an opt-out goes on being honoured. Lift it, with evidence, to end that."),
    (SUPPRESSION_FACTS_COLLECTION, "What was said and when: of two that contradict each other, the later one counts."),
)


class KeepsSuppressions:
    """A ``RecipientData`` that erases nothing, and counts what it keeps."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database

    async def erase(self, asked: Asked) -> Receipt:
        """See ``TenantDataService.EraseRecipient``."""
        whom = person(asked.address)
        if not whom:
            raise no_address()
        query: Document = {
            "registration": asked.registration,
            "family": {"$in": [family.value for family in Family]},
            "address": {"$in": spellings(whom)},
        }
        query |= {"active": {"$exists": True}}  # The others are no rows.
        async with mongo.operation():
            found = await self._database[SUPPRESSIONS_COLLECTION].find(query, {"_id": 1}).to_list(None)
            of_rows = {"registration": asked.registration, "rows": {"$in": [row["_id"] for row in found]}}
            facts = await self._database[SUPPRESSION_FACTS_COLLECTION].count_documents(of_rows)
        counts = len(found), facts
        kept = [Kept(kind, reason, count) for (kind, reason), count in zip(_REASONS, counts, strict=True) if count]
        return Receipt(asked.before_us, {}, kept)
