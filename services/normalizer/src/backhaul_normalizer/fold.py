"""Events into message states: pure, and the same for every order of arrival.

Every field of a message but ``created_at_us``, which only says when it was first heard of, is a maximum, a minimum, a
union or a sum over its distinct events, so folding commutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from backhaul_channels import EventKind, NormalizedEvent
from backhaul_common.documents import Document

from backhaul_normalizer.communications.documents import told_key
from backhaul_normalizer.counts import UNIQUE
from backhaul_normalizer.facts import MAX_REFERENCES, address_of, is_default, pair_key
from backhaul_normalizer.hours import hour_of
from backhaul_normalizer.model import KIND_NAMES, Fact
from backhaul_normalizer.states import OUTBOUND, RANK, fulfilment_of, next_state, place_of

_KINDS = {kind.value: kind for kind in EventKind}
JOINED = ("communication_at_us", "communication_place", "communication_id")
"""A message's fields of its communication: behind the time and the place of the event that named it."""

MEMBER = ("member_at_us", "member_place", "batch_id", "member_key")
"""A message's fields of the member that it is to, behind the time and the place of the event that named that one."""

_LAST_US = 1 << 62
"""Added to the time of an event that names a communication by a default: it comes after all others."""
EMPTY: Document = {
    "fulfilment": "",
    "recipient": "",
    "address": "",
    "sender": "",
    "communication_id": "",
    "communication_at_us": 0,
    "communication_place": 0,
    "error_code": "",
    "error_text": "",
    "invalid_recipient": False,
}
"""What every message has from its beginning, until something else is told of it."""

_ERROR = ("invalid_recipient", "error_code", "error_text", "error_class", "error_url")
"""A message's fields of its error: all of one event."""
_MEANING = ("error_class", "error_url")
"""Those of them that few messages have."""
_NO_ERROR: tuple[bool | str, ...] = (False, "", "", "", "")
_FEW = ("by_machine", "duplicates")
"""Counts by kind that few messages have: openings and clicks of machines; events that count as another one."""
_NOT_ALWAYS = (*_FEW, *_MEANING, *MEMBER, "told", "references", "first_at_us", "pair", "hour")
"""Fields that a message has only where something was told of them. ``first_at_us`` is when it was sent: the earliest
that happened to it; ``pair`` is between which two. ``hour`` is in which it counts: the earliest of what happened to it,
or, as long as it was not sent, of all that was told of it."""

_NEVER_US = 1 << 63
"""Later than everything."""


def new_message(fact: Fact) -> Document:
    """The document of a message of which nothing has been folded yet; ``fact`` is the first event that names it."""
    return {
        "_id": fact.message,
        "registration": fact.origin.registration,
        "channel": fact.origin.channel,
        "message_id": fact.event.message_id,
        "provider": fact.origin.provider,
        "created_at_us": fact.origin.received_at_us,
        **_nothing_known(),
    }


def folded(message: Document, facts: Iterable[Fact]) -> Document:
    """``message`` as it is after ``facts``, none of which it has seen. ``message`` itself is not touched."""
    after = {**message, "kinds": dict(message["kinds"])}
    for counts in _FEW:
        if counts in after:
            after[counts] = dict(after[counts])
    for fact in facts:
        _learn(after, fact)
        # Who is erased is named again by what arrives since.
        if fact.event.recipient and fact.origin.received_at_us >= after.get("erased_before_us", _NEVER_US):
            after.pop("address_expired", None)
    if "address_expired" in after:
        after |= {"recipient": "", "address": "", "sender": ""}
    after["fulfilment"] = fulfilment_of(_KINDS[after["state"]], invalid_recipient=after["invalid_recipient"])
    if "first_at_us" in after and (
        "pair" not in after or after["address"] != message["address"] or after["sender"] != message["sender"]
    ):
        pair = pair_key(after["registration"], after["address"], after["sender"])
        if pair:
            after["pair"] = pair
    return after


def refolded(message: Document, facts: Iterable[Fact]) -> Document:
    """``message`` folded anew out of ``facts``, which are all that it has."""
    kept = {name: value for name, value in message.items() if name not in _NOT_ALWAYS}
    return folded({**kept, **_nothing_known()}, facts)


def shifted(message: Document, gone: Sequence[Fact], come: Sequence[Fact]) -> Document:
    """``message`` without ``gone``, which it has seen, and with ``come``, where its other events are too many to read.

    Its counts and its state are exact. Of what else ``gone`` had told, nothing is taken back that is better than what
    ``come`` tells; but for the error, where no event is left of the kind that had told it.
    """
    after = folded(message, come)
    for fact in gone:
        name = KIND_NAMES[fact.event.kind]
        after["event_count"] -= 1
        after["duplicates" if fact.duplicate_of else "kinds"][name] -= 1
        if fact.event.by_machine and name in UNIQUE:
            after["by_machine"][name] -= 1
    after["kinds"] = {name: count for name, count in after["kinds"].items() if count}
    for counts in _FEW:
        if counts in after:
            after[counts] = {name: count for name, count in after[counts].items() if count}
    if after["state"] not in after["kinds"]:
        left = [kind for name in after["kinds"] if (kind := _KINDS[name]) in RANK]
        after["state"] = max(left, key=RANK.__getitem__, default=EventKind.UNKNOWN).value
        _set_error(after, _NO_ERROR)
        after["fulfilment"] = fulfilment_of(_KINDS[after["state"]], invalid_recipient=False)
    return after


def _nothing_known() -> dict[str, Any]:
    return {
        "state": EventKind.UNKNOWN.value,
        **EMPTY,
        "kinds": {},
        "event_count": 0,
        "last_event_at_us": 0,
    }


def _learn(message: Document, fact: Fact) -> None:
    event = fact.event
    name = KIND_NAMES[event.kind]
    _take_state(message, name, event)
    # A provider reports one recipient and sender a message. Where two events disagree, the least wins: any rule will do
    # that does not depend on which came first.
    if _is_better(event.recipient, message["recipient"]):
        message["recipient"] = event.recipient
        message["address"] = address_of(event.recipient)
    if _is_better(event.sender, message["sender"]):
        message["sender"] = event.sender
    if fact.communication_id:
        # The event that happened first says where the message belongs: what a later one says moves it nowhere.
        # A channel's default only counts where no event says anything.
        at_us = fact.occurred_at_us + (_LAST_US if is_default(fact, fact.communication_id) else 0)
        named = at_us, place_of(_KINDS[name]), fact.communication_id
        if not message["communication_id"] or named < tuple(message[field] for field in JOINED):
            message.update(zip(JOINED, named, strict=True))
    if fact.member_key or fact.batch_id:
        _take_member(message, fact, name)
    if event.references:
        known = message.get("references", [])
        if not set(event.references).issubset(known):
            message["references"] = sorted({*known, *event.references})[:MAX_REFERENCES]
    outbound, sent = event.kind in OUTBOUND, "first_at_us" in message
    hour = hour_of(fact.occurred_at_us, fact.origin.received_at_us)
    if outbound and not sent:
        message["hour"] = hour
    elif outbound or not sent:
        message["hour"] = min(hour, message.get("hour", hour))
    if outbound and fact.occurred_at_us < message.get("first_at_us", _NEVER_US):
        message["first_at_us"] = fact.occurred_at_us
    counts = message.setdefault("duplicates", {}) if fact.duplicate_of else message["kinds"]
    counts[name] = counts.get(name, 0) + 1
    if event.by_machine and name in UNIQUE:
        by_machine = message.setdefault("by_machine", {})
        by_machine[name] = by_machine.get(name, 0) + 1
    message["event_count"] += 1
    message["last_event_at_us"] = max(message["last_event_at_us"], fact.occurred_at_us)


def _take_member(message: Document, fact: Fact, name: str) -> None:
    """As with its communication, the event that happened first says whose it is."""
    told = fact.occurred_at_us, place_of(_KINDS[name]), fact.batch_id, fact.member_key
    if "member_at_us" in message and told >= tuple(message[field] for field in MEMBER):
        return
    message.update(zip(MEMBER, told, strict=True))
    if fact.member_key:
        message["told"] = told_key(message["registration"], fact.member_key)
    else:
        message.pop("told", None)


def _take_state(message: Document, name: str, event: NormalizedEvent) -> None:
    """The state, and the error that belongs to it."""
    if name == message["state"]:
        # Two events of the deciding kind that differ in their error: the greater one stands, whichever came first.
        if _has_error(event):
            _set_error(message, max(_error_of(event), tuple(message.get(field, "") for field in _ERROR)))
    elif next_state(_KINDS[message["state"]], event.kind) is event.kind:
        message["state"] = name
        if _has_error(event):
            _set_error(message, _error_of(event))
        elif message["error_code"] or message["error_text"] or message["invalid_recipient"] or "error_class" in message:
            _set_error(message, _NO_ERROR)


def _has_error(event: NormalizedEvent) -> bool:
    return bool(event.error_code or event.error_text or event.invalid_recipient or event.error_class)


def _error_of(event: NormalizedEvent) -> tuple[bool | str, ...]:
    return event.invalid_recipient, event.error_code, event.error_text, event.error_class.value, event.error_url


def _set_error(message: Document, error: tuple[bool | str, ...]) -> None:
    for field, value in zip(_ERROR, error, strict=True):
        if value or field not in _MEANING:
            message[field] = value
        else:
            message.pop(field, None)


def _is_better(told: str, known: str) -> bool:
    return bool(told) and told != known and (not known or told < known)
