"""One event of SendGrid's event webhook as a fact."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from backhaul_channels.adapter import MalformedError
from backhaul_channels.event import (
    AddressFamily,
    Consent,
    ConsentBy,
    ConsentScope,
    ErrorClass,
    EventKind,
    NormalizedEvent,
)
from backhaul_channels.jsonparts import decode_object, scalar_text
from backhaul_channels.providers.sendgrid.errors import explain
from backhaul_channels.providers.sendgrid.mapping import (
    ACCOUNT_ERRORS,
    CLASSIFICATIONS,
    CONSENTS,
    ERROR_TEXTS,
    EVENTS,
    FIELDS,
    INVALID_ADDRESS_CLASSIFICATION,
    NOT_FINAL,
    REJECT_REASONS,
    SINGLE_SEND,
    TYPES,
    UNKNOWN_FIELDS,
)
from backhaul_channels.providers.sendgrid.names import fact_key, is_test, message_names
from backhaul_channels.values import MAX_ID, MAX_VALUE, MAX_WORD, text_of

MAX_VARS = 256

# The Single Send example of the documentation counts milliseconds where all others count seconds. Seconds beyond this
# would be after the year 5138.
_FIRST_MILLISECONDS = 100_000_000_000
_LAST_SECOND = 253_402_300_799
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,9})?", re.ASCII)
# Of SMTP: 5.1.1, or a reply code alone.
_STATUS = re.compile(r"\s*[245](\.[0-9]{1,3}\.[0-9]{1,3}|[0-9]{2})\s*", re.ASCII)
_REPLY_CODE = re.compile(r"\s*([245][0-9]{2})\b", re.ASCII)
_WORDS = re.compile(r"[a-z0-9]+", re.ASCII)


def normalize_event(part: bytes, message_id_from: tuple[str, ...]) -> NormalizedEvent:
    """``part`` as a fact; its message is named by the first of the keys ``message_id_from`` that it has.

    Raises MalformedError, naming the field.
    """
    return fact_of(decode_object(part), len(part), message_id_from)


def fact_of(event: Mapping[str, Any], size: int, message_id_from: tuple[str, ...]) -> NormalizedEvent:
    """An event as the webhook writes it, of ``size`` bytes, as a fact. Raises MalformedError, naming the field."""
    word = _event_word(event.get("event"))
    occurred_at_us = unix_us(event.get("timestamp"))
    names = message_names(event, message_id_from)
    fields = _own_fields(word, event)
    attributes, custom = _sort_fields(event, fields, message_id_from)
    if size > MAX_VALUE:
        # A shorter event cannot hold a longer value, which spares the many short ones the cutting.
        attributes, custom = _cut(attributes), _cut(custom[:MAX_VARS])
    category = event.get("category")
    if category:
        _add_categories(category, custom)
    if names.sg_message_id and names.sg_message_id != names.message_id:
        attributes.append(("sg_message_id", names.sg_message_id[:MAX_ID]))
    if is_test(names):
        attributes.append(("test", "true"))
    failure = _NONE
    if word in ERROR_TEXTS:
        failure = _failure(word, event, fields, attributes)
    elif word == "account_status_change" and (code := text_of(event.get("type"))) in ACCOUNT_ERRORS:
        failure = _Failure(code)
    recipient = text_of(event.get("email"))[:MAX_ID]
    return NormalizedEvent(
        kind=EVENTS.get(word, EventKind.UNKNOWN),
        key=fact_key(event, word, fields, names.message_id),
        provider_status=word,
        message_id=names.message_id,
        recipient=recipient,
        recipient_family=AddressFamily.EMAIL if recipient else AddressFamily.UNKNOWN,
        consent=_consent(word, event) if word in CONSENTS else None,
        sender=text_of(event.get("from"))[:MAX_ID] if word == "deferred" else "",
        occurred_at_us=occurred_at_us,
        error_code=failure.code,
        error_text=failure.text,
        error_class=failure.error_class,
        error_url=failure.url,
        invalid_recipient=failure.invalid_recipient,
        provisional=names.provisional,
        by_machine=word == "open" and text_of(event.get("sg_machine_open")).strip().lower() in ("true", "1"),
        aliases=names.aliases,
        references=names.references,
        vars=custom,
        attributes=attributes,
    )


def _event_word(value: object) -> str:
    """The event as the table writes it, whatever its case and whatever stands between its words."""
    word = value.strip().lower() if isinstance(value, str) else ""
    if not word or len(word) > MAX_WORD:
        raise MalformedError(f"event is missing, or no string of at most {MAX_WORD} characters.")
    if word in FIELDS:
        return word
    words = _WORDS.findall(word)
    # The documentation writes "spam report" in one place and "spamreport" in all others.
    for spelling in ("_".join(words), "".join(words)):
        if spelling in FIELDS:
            return spelling
    return word


def _own_fields(word: str, event: Mapping[str, Any]) -> Mapping[str, str]:
    """The fields that are SendGrid's in this event, each with its attribute; every other one is the sender's."""
    fields = FIELDS.get(word, UNKNOWN_FIELDS)
    if "mc_stats" in event:
        fields = {**fields, **SINGLE_SEND}
    if word not in ("bounce", "dropped"):
        return fields
    # SendGrid leaves both out of some bounces and drops. What is there then is a custom argument of that name.
    foreign = set()
    if "status" in event and not _STATUS.fullmatch(text_of(event["status"])):
        foreign.add("status")
    if "type" in event and _plain(event["type"]) not in TYPES:
        foreign.add("type")
    return {name: attribute for name, attribute in fields.items() if name not in foreign} if foreign else fields


def _sort_fields(
    event: Mapping[str, Any], fields: Mapping[str, str], message_id_from: tuple[str, ...]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(attributes, vars): what SendGrid says, and what the sender attached."""
    attributes: list[tuple[str, str]] = []
    custom: list[tuple[str, str]] = []
    own = fields.get
    for name, value in event.items():
        attribute = own(name)
        if attribute == "":
            continue
        text = value if type(value) is str else scalar_text(value)
        if text is None:
            continue
        if attribute is not None:
            attributes.append((attribute, text))
        # A custom argument that names the message is its id, not one of its parameters.
        elif name not in message_id_from:
            custom.append((name, text))
    return attributes, custom


def _cut(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name[:MAX_VALUE], value[:MAX_VALUE]) for name, value in pairs]


def _add_categories(category: object, custom: list[tuple[str, str]]) -> None:
    # A string, or an array of them.
    for entry in category[:MAX_VARS] if isinstance(category, list) else (category,):
        text = scalar_text(entry)
        if text:
            custom.append(("category", text[:MAX_VALUE]))


class _Failure(NamedTuple):
    """What went wrong. ``reading`` completes a code without a class."""

    code: str = ""
    text: str = ""
    error_class: ErrorClass = ErrorClass.UNKNOWN
    url: str = ""
    invalid_recipient: bool = False


_NONE = _Failure()


def _failure(
    word: str, event: Mapping[str, Any], fields: Mapping[str, str], attributes: list[tuple[str, str]]
) -> _Failure:
    """What went wrong with a mail; attributes get SendGrid's own words for it.

    The code is SMTP's enhanced status, or else the reply code that the text begins with; of a drop, which no server has
    answered, why SendGrid dropped it. The class is what SendGrid says, and where that leaves it open, the code's.
    """
    text = next((text for name in ERROR_TEXTS[word] if (text := text_of(event.get(name)))), "")
    code = text_of(event.get("status")).strip() if "status" in fields else ""
    if not code and (reply := _REPLY_CODE.match(text)):
        code = reply[1]
    error_class, invalid = ErrorClass.UNKNOWN, False
    kind = _plain(event.get("type")) if "type" in fields else ""
    if word == "deferred":
        error_class = ErrorClass.TRANSIENT
    elif word == "dropped":
        reason = REJECT_REASONS.get(_plain(event.get("reason")))
        by_type = REJECT_REASONS.get(kind, ("other", ""))
        invalid = (reason or by_type)[0] == "invalid"
        attributes.append(("reject_reason", (reason or by_type)[0]))
        if reason is not None:
            # Its own reason says all: a type beside it is that of an earlier mail.
            code, kind = reason[1], ""
        code = code or by_type[1]
    else:
        classification = _plain(event.get("bounce_classification"))
        # Without a type it is a bounce proper; only blocks are always marked. A block is a matter of the moment, also
        # where it is classified as the address's fault, and SendGrid goes on sending there.
        kind = kind or "bounce"
        error_class = CLASSIFICATIONS.get(classification, ErrorClass.UNKNOWN)
        invalid = kind == "bounce" and classification == INVALID_ADDRESS_CLASSIFICATION
        attributes.append(("bounce_type", kind))
    url = ""
    if (meaning := explain(code)) is not None:
        text, error_class, url = text or meaning.text, error_class or meaning.error_class, meaning.url
    if kind in NOT_FINAL and error_class in (ErrorClass.UNKNOWN, ErrorClass.HARD):
        error_class = ErrorClass.TRANSIENT
    elif kind == "bounce" and not error_class:
        # SendGrid takes it for final, and sends there no more.
        error_class = ErrorClass.HARD
    return _Failure(code, text[:MAX_VALUE], error_class, url, invalid)


def _consent(word: str, event: Mapping[str, Any]) -> Consent:
    # In a global unsubscription a field of that name is the sender's.
    group = text_of(event.get("asm_group_id"))[:MAX_ID] if "asm_group_id" in FIELDS[word] else ""
    return Consent(ConsentBy.PROVIDER, CONSENTS[word], "", ConsentScope.GROUP if group else ConsentScope.UNKNOWN, group)


def _plain(value: object) -> str:
    """A text's words in lower case, without punctuation and without the remark in brackets that may follow."""
    return " ".join(_WORDS.findall(text_of(value)[:MAX_VALUE].partition("(")[0].lower()))


def unix_us(timestamp: object) -> int:
    """A unix time in seconds, or in milliseconds, in microseconds. Raises MalformedError."""
    # bool is an int to Python, and no time to anybody.
    if type(timestamp) is int:
        number: int | float = timestamp
    elif type(timestamp) is float:
        number = timestamp
    elif isinstance(timestamp, str) and _NUMBER.fullmatch(timestamp.strip()):
        number = float(timestamp) if "." in timestamp else int(timestamp)
    else:
        raise MalformedError("timestamp is missing or no number; it must be a unix time in seconds or milliseconds.")
    scale = 1_000 if number > _FIRST_MILLISECONDS else 1_000_000
    if not 0 < number * scale <= _LAST_SECOND * 1_000_000:
        raise MalformedError("timestamp is no unix time in seconds or milliseconds between the years 1970 and 9999.")
    return round(number * scale)
