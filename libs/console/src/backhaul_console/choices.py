"""What may be chosen in forms of filters. The API's own words; a test holds them against its OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence

from backhaul_console.texts import _
from backhaul_console.visits import Visit
from backhaul_console.words import words

KINDS = (
    "queued",
    "sent",
    "delivered",
    "undelivered",
    "failed",
    "rejected",
    "bounced",
    "deferred",
    "read",
    "opened",
    "clicked",
    "complained",
    "unsubscribed",
    "subscribed",
    "inbound",
    "canceled",
    "expired",
    "blocked_credit",
    "duplicate_blocked",
    "initiated",
    "ringing",
    "answered",
    "completed",
    "busy",
    "no_answer",
    "unknown",
)
FULFILMENT = ("queued", "sent", "delivered", "undelivered", "failed", "invalidnumber")
_FULFILMENT_NAMES = {"invalidnumber": "InvalidNumber"}

Choices = Sequence[tuple[str, str]]
"""Pairs of what the API takes, and how it is shown."""


def kinds(chosen: str) -> Choices:
    """Kinds of events, and states of messages."""
    return _any([(word, words(word)) for word in KINDS], chosen)


def fulfilment(chosen: str) -> Choices:
    """What a message counts as."""
    return _any([(word, words(_FULFILMENT_NAMES.get(word, word))) for word in FULFILMENT], chosen)


async def channels(visit: Visit, chosen: str) -> Choices:
    """The tenant's channels."""
    return _any([(one.label, one.label) for one in await visit.api.channels()], chosen)


def _any(options: list[tuple[str, str]], chosen: str) -> Choices:
    """With none of them first. What an address has chosen is always there: a form that is sent again must not change
    it."""
    known = {option for option, _text in options}
    more = [(chosen, chosen)] if chosen and chosen not in known else []
    return [("", _("all")), *options, *more]
