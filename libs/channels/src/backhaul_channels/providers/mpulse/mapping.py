"""mPulse's words, as far as they can be guessed: it publishes no description of what it posts. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backhaul_channels.engines.mapped import names
from backhaul_channels.event import EventKind

# What follows the usual names is rarer, and counts where none of them is there.
NAMES: Final[Mapping[str, str]] = {
    **names.USUAL_NAMES,
    "mid": "message_id",
    "memberphone": "person",
    "memberemail": "person",
    "replytext": "text",
    "programname": "communication",
}

STATUSES: Final[Mapping[str, EventKind]] = {
    "keyword": EventKind.INBOUND,
    "keywordreply": EventKind.INBOUND,
    "inboundmessage": EventKind.INBOUND,
}
