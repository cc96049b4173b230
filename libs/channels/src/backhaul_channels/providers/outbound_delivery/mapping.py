"""Outbound Delivery's words, as far as they can be guessed: nothing is published about what is posted. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backhaul_channels.engines.mapped import names
from backhaul_channels.event import EventKind

# An offer's id is nearer to what is counted than a campaign's, which may have several.
NAMES: Final[Mapping[str, str]] = {
    "offerid": "communication",
    "offerhistoryid": "communication",
    **names.USUAL_NAMES,
    "fulfilmentstate": "status",
    "fulfillmentstate": "status",
    "deliveryid": "message_id",
    "address": "person",
}

# The six fulfilment states.
STATUSES: Final[Mapping[str, EventKind]] = {
    "queued": EventKind.QUEUED,
    "sent": EventKind.SENT,
    "delivered": EventKind.DELIVERED,
    "undelivered": EventKind.UNDELIVERED,
    "failed": EventKind.FAILED,
    "invalidnumber": EventKind.FAILED,
}
