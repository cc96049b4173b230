"""The usual words of webhooks, as far as they mean the same wherever they are used, and how words are compared."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Final

from backhaul_channels.event import ConsentAction, ErrorClass, EventKind


class Direction(StrEnum):
    """Which way a message went: from the tenant, or to it."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


@lru_cache(maxsize=4096)
def squeezed(word: str) -> str:
    """``word`` as it is compared: its letters and digits, whatever their case and whatever stands between them. Words
    that are not longer than MAX_WORD should come here only."""
    return "".join(character for character in word.casefold() if character.isalnum())


STATUSES: Final[Mapping[str, EventKind]] = {
    word: kind
    for kind, words in {
        EventKind.QUEUED: "accepted buffered created enqueued pending processed processing queued scheduled submitted",
        EventKind.SENT: "dispatched intransit sending sent",
        EventKind.DELIVERED: "delivered deliveredtohandset delivery delivrd success successful",
        EventKind.UNDELIVERED: "nondelivered notdelivered undeliv undeliverable undelivered",
        EventKind.FAILED: "deliveryfailed error fail failed failure invalidaddress invaliddestination invalidemail "
        "invalidmsisdn invalidnumber invalidrecipient",
        EventKind.REJECTED: "blocked dropped refused rejectd rejected suppressed",
        EventKind.BOUNCED: "bounce bounced hardbounce hardbounced softbounce softbounced",
        EventKind.DEFERRED: "deferred delayed deliverydelayed",
        EventKind.READ: "displayed read seen",
        EventKind.OPENED: "open opened",
        EventKind.CLICKED: "click clicked linkclicked",
        EventKind.COMPLAINED: "complained complaint spam spamcomplaint spammed spamreport",
        EventKind.UNSUBSCRIBED: "optedout optout unsubscribe unsubscribed",
        EventKind.SUBSCRIBED: "optedin optin resubscribed subscribe subscribed",
        EventKind.INBOUND: "inbound incoming mo received replied reply",
        EventKind.CANCELED: "canceled cancelled deleted",
        EventKind.EXPIRED: "expired timedout timeout",
        EventKind.BLOCKED_CREDIT: "insufficientcredit insufficientfunds nocredit outofcredit",
        EventKind.DUPLICATE_BLOCKED: "duplicate duplicated",
        EventKind.INITIATED: "initiated",
        EventKind.RINGING: "ringing",
        EventKind.ANSWERED: "answered inprogress",
        EventKind.COMPLETED: "completed",
        EventKind.BUSY: "busy",
        EventKind.NO_ANSWER: "noanswer",
    }.items()
    for word in words.split()
}
"""Words of statuses, squeezed."""

INVALID_RECIPIENT: Final = frozenset(
    {"invalidaddress", "invaliddestination", "invalidemail", "invalidmsisdn", "invalidnumber", "invalidrecipient"}
)
"""Statuses and error codes by which an address does not exist, squeezed."""

ERROR_CLASSES: Final[Mapping[str, ErrorClass]] = {
    "hardbounce": ErrorClass.HARD,
    "hardbounced": ErrorClass.HARD,
    "softbounce": ErrorClass.TRANSIENT,
    "softbounced": ErrorClass.TRANSIENT,
}
"""Statuses that say themselves whether the address will ever work, squeezed."""

DIRECTIONS: Final[Mapping[str, Direction]] = {
    **dict.fromkeys(("fromuser", "in", "inbound", "incoming", "mo", "mobileoriginated", "received"), Direction.INBOUND),
    **dict.fromkeys(("mobileterminated", "mt", "out", "outbound", "outgoing", "sent", "touser"), Direction.OUTBOUND),
}
"""Words of directions, squeezed."""

NO_ERROR: Final = frozenset({"0", "00", "000", "none", "noerror", "ok"})
"""Error codes that say that there is no error, squeezed."""

CONSENTS: Final[Mapping[EventKind, ConsentAction]] = {
    EventKind.UNSUBSCRIBED: ConsentAction.OPT_OUT,
    EventKind.SUBSCRIBED: ConsentAction.OPT_IN,
}

WITH_ERRORS: Final = frozenset(
    {
        EventKind.UNKNOWN,
        EventKind.UNDELIVERED,
        EventKind.FAILED,
        EventKind.REJECTED,
        EventKind.BOUNCED,
        EventKind.DEFERRED,
        EventKind.CANCELED,
        EventKind.EXPIRED,
        EventKind.BLOCKED_CREDIT,
        EventKind.DUPLICATE_BLOCKED,
        EventKind.BUSY,
        EventKind.NO_ANSWER,
    }
)
"""Kinds that say that something went wrong; an error code beside any other is a detail."""
