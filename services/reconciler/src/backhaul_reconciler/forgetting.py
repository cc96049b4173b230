"""What was found of a channel by asking goes with it."""

from __future__ import annotations

from typing import Final

from backhaul_common import mongo
from backhaul_common.names import (
    RECONCILED_DAYS_COLLECTION,
    RECONCILED_DIFFERENCES_COLLECTION,
    RECONCILED_SEEN_COLLECTION,
)

from backhaul_reconciler.model import ChannelOf

_OF_CHANNEL: Final = (RECONCILED_DIFFERENCES_COLLECTION, RECONCILED_DAYS_COLLECTION, RECONCILED_SEEN_COLLECTION)


def forget(database: mongo.ThreadDatabase, session: mongo.Session, of: ChannelOf) -> None:
    """Delete the channel's differences and days, in the transaction that deletes its document: nothing is stored where
    that is not, so that no run of another copy adds to them."""
    mine = {
        "_id": {"$gte": f"{of.id}/", "$lt": f"{of.id}0"},
        "registration": of.registration,
        "channel": of.channel,
    }
    for name in _OF_CHANNEL:
        database[name].delete_many(mine, session=session)
