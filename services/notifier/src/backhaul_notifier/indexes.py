"""The indexes of ``deliveries`` and ``endpoints``. Each that a waiting delivery stands in costs every event its part.

``notifier_positions`` has three documents, which are found by their ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from backhaul_common.documents import Document
from backhaul_common.names import DELIVERIES_COLLECTION, ENDPOINTS_COLLECTION
from pymongo import ASCENDING, DESCENDING, IndexModel

# What waits is little of all that is kept, and what has ended leaves these indexes. A query must name the state, too.
_WAITING: Final[Document] = {"state": "waiting"}

_LATEST: Final = (("created_at_us", DESCENDING), ("_id", DESCENDING))


def _index(*fields: str | tuple[str, int], only: Document | None = None) -> IndexModel:
    keys = [(field, ASCENDING) if isinstance(field, str) else field for field in fields]
    return IndexModel(keys) if only is None else IndexModel(keys, partialFilterExpression=only)


def _has(field: str) -> Document:
    return {field: {"$exists": True}}


INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    DELIVERIES_COLLECTION: [
        # What a holder sends: as it falls due; in its order; of one key; together.
        _index("subscription", "due_at_us", "order", only=_WAITING),
        _index("subscription", "order", only=_WAITING),
        # Those without a key too, since a holder of what is ordered reads them apart.
        _index("subscription", "key", "order", only=_WAITING),
        _index("call", only=_has("call")),
        # What is released when a communication is enabled.
        _index("subscription", "communication_id", "order", only={"state": "held"}),
        # What people ask for. The types are in them so that a rare one is found without reading each document.
        _index("registration", "state", *_LATEST, "type"),
        # The subscription is first, since what was deleted is looked for by it alone.
        _index("subscription", "registration", "state", *_LATEST, "type"),
        _index("registration", "event_id"),
        _index("registration", "message_id", only=_has("message_id")),
        _index("registration", "communication_id", *_LATEST, only=_has("communication_id")),
        IndexModel("ends_at", expireAfterSeconds=0, partialFilterExpression=_has("ends_at")),
    ],
    ENDPOINTS_COLLECTION: [
        _index("due_at_us", only={"active": True} | _has("due_at_us")),
        _index("registration"),
    ],
}
