"""One record of SendGrid's API as a fact: a row of a list of suppressed addresses, or a mail and one of its events.

``{"list": name, "row": {…}}`` and ``{"mail": {…}, "event": {…}}``, each part as the API told it; of a mail without an
event it is the status that tells. They become what the webhook would have posted, so that both are read by one rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from backhaul_channels.adapter import MalformedError
from backhaul_channels.addresses import email
from backhaul_channels.event import NormalizedEvent
from backhaul_channels.jsonparts import decode_object
from backhaul_channels.providers.sendgrid.mapping import (
    HARD_BOUNCE,
    MAIL_EVENTS,
    MAIL_STATUSES,
    SUPPRESSION_FIELDS,
    SUPPRESSIONS,
    UNKNOWN_FIELDS,
)
from backhaul_channels.providers.sendgrid.names import x_message_id
from backhaul_channels.providers.sendgrid.normalize import fact_of, normalize_event
from backhaul_channels.values import MAX_ADDRESS, MAX_ID, MAX_VALUE, bounded, id_of, text_of

GROUPS = "group_unsubscribes"

_SECOND = 1_000_000
# What a server says begins with its reply code, and mostly with an enhanced one behind it.
_CODES = re.compile(r"\s*(?:([245])[0-9]{2})(?:[ -]+([245]\.[0-9]{1,3}\.[0-9]{1,3})\b)?", re.ASCII)
# A time that is there to be hashed or read, and replaced.
_ANY_TIME = 1


def normalize_record(part: bytes, message_id_from: tuple[str, ...]) -> NormalizedEvent:
    """``part`` as a fact; one of the webhook's own events is read as that. Raises MalformedError, naming the field."""
    record = decode_object(part)
    if "list" in record:
        return _suppressed(record, len(part), message_id_from)
    if "mail" in record:
        return _mailed(record, len(part), message_id_from)
    return normalize_event(part, message_id_from)


def time_us(value: object) -> int | None:
    """An ISO 8601 time in unix microseconds, by UTC where it does not say; None for what is none."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        at_us = round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * _SECOND)
    except (ValueError, OverflowError):
        return None
    return at_us if at_us > 0 else None


def created_field(listing: str) -> str:
    """Where a row of that list has the time of its creation, in unix seconds."""
    return "created_at" if listing == GROUPS else "created"


def _suppressed(record: Mapping[str, Any], size: int, message_id_from: tuple[str, ...]) -> NormalizedEvent:
    listing, row = text_of(record["list"]), _object(record, "row")
    if listing not in SUPPRESSIONS:
        raise MalformedError("list is none of SendGrid's lists of suppressions.")
    address = text_of(row.get("email")).strip()
    if not 0 < len(address) <= MAX_ADDRESS:
        raise MalformedError(f"email is missing, or longer than {MAX_ADDRESS} characters.")
    word, group = SUPPRESSIONS[listing], ""
    event: dict[str, Any] = {"event": word, "email": address, "timestamp": row.get(created_field(listing))}
    if listing == GROUPS:
        group = event["asm_group_id"] = id_of(row.get("group_id"), "group_id")
    if word in ("bounce", "dropped"):
        event |= {name: row.get(name) for name in ("reason", "status")}
    if (also := SUPPRESSION_FIELDS.get(listing)) is not None:
        event[also[0]] = also[1]
    fact = fact_of(event, size, message_id_from)
    # By the second of its creation: an address that was taken off a list and comes back is another fact.
    second = (fact.occurred_at_us or 0) // _SECOND
    fact.key = ":".join([listing, *([group] if group else []), email(address), str(second)])
    if fact.error_code:
        fact.error_text = bounded(row.get("reason")) or fact.error_text
    fact.attributes.append(("suppression_list", listing))
    return fact


def _mailed(record: Mapping[str, Any], size: int, message_id_from: tuple[str, ...]) -> NormalizedEvent:
    mail = _object(record, "mail")
    happened = _object(record, "event") if "event" in record else {}
    if happened:
        word, told_at = MAIL_EVENTS.get(text_of(happened.get("event_name")), ""), happened.get("processed")
    else:
        word, told_at = MAIL_STATUSES.get(text_of(mail.get("status")), ""), None
    if not word:
        raise MalformedError("Neither event_name nor status is a word that is known of a mail.")
    msg_id = id_of(mail.get("msg_id"), "msg_id")
    if not msg_id:
        raise MalformedError("msg_id is missing.")
    address = text_of(mail.get("to_email")).strip()
    reason = text_of(happened.get("reason")).strip()
    event = {
        **_arguments(mail.get("unique_args")),
        "event": word,
        "email": address,
        "timestamp": _ANY_TIME,
        "sg_message_id": msg_id,
        "sg_event_id": msg_id,
        "category": mail.get("categories"),
    }
    if word in ("bounce", "dropped"):
        event["reason"] = _quoted(reason)
    if word == "bounce":
        event["status"] = _status(reason)
        # What SendGrid does not call hard is not taken for final.
        event["type"] = "bounce" if text_of(happened.get("bounce_type")) == HARD_BOUNCE else "blocked"
    fact = fact_of(event, size, message_id_from)
    # The last event of a mail may be a later one than that which its status tells; of two times the earlier one stands.
    fact.occurred_at_us = time_us(told_at) or time_us(mail.get("last_event_time"))
    if not reason:
        # Nothing was told of why, which takes no place of what a callback has told.
        fact.attributes = [one for one in fact.attributes if one[0] not in ("reject_reason", "bounce_type")]
    alias = f"{x_message_id(msg_id)}:{email(address)}"
    if x_message_id(msg_id) and address and len(alias) <= MAX_ID and alias not in (fact.message_id, *fact.aliases):
        # By this name the sender may know it, or an event of the webhook that lacks the other.
        fact.aliases.append(alias)
    return fact


def _object(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    if not isinstance(value, dict):
        raise MalformedError(f"{name} is no object.")
    return value


def _status(reason: str) -> str | None:
    """The enhanced status code of what a server said, as the webhook has it beside the reason; where there is only a
    reply code, the one of its class that says no more."""
    codes = _CODES.match(reason)
    return None if codes is None else codes[2] or f"{codes[1]}.0.0"


def _quoted(reason: str) -> str:
    """``reason`` in quotation marks.

    A callback knows more of an error than the API does: how SendGrid has classified it. Of two errors of one code the
    one with the greater text stands, which is the one without them.
    """
    return f'"{reason[: MAX_VALUE - 2]}"' if reason else ""


def _arguments(told: object) -> dict[str, Any]:
    """The sender's arguments, which the API documents as a JSON object within a string."""
    if isinstance(told, str):
        try:
            told = msgspec.json.decode(told)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return {}
    if not isinstance(told, dict):
        return {}
    return {name: value for name, value in told.items() if name not in UNKNOWN_FIELDS}
