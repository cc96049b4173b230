"""One message's event, whichever way Twilio told of it: what the words mean, and what is kept of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from backhaul_channels.adapter import EventKind, MalformedError, NormalizedEvent
from backhaul_channels.providers.twilio.mapping import (
    ERROR_CODES,
    FIELDS,
    INVALID_RECIPIENT,
    KEYWORDS,
    OPT_OUT_TYPES,
    STATUSES,
)
from backhaul_channels.providers.twilio.values import MAX_ADDRESS, MAX_ID, MAX_STATUS, MAX_TEXT, MAX_VALUE


@dataclass(slots=True)
class Told:
    """What a form or a CloudEvent says of a message; what it does not say is empty. ``status`` is in lower case."""

    message_id: str
    status: str
    inbound: bool
    from_address: str = ""
    to_address: str = ""
    text: str = ""
    opt_out_type: str = ""
    error_code: str = ""
    error_text: str = ""
    occurred_at_us: int | None = None
    attributes: list[tuple[str, str]] = field(default_factory=list)
    tags: list[tuple[str, str]] = field(default_factory=list)


def fact(told: Told) -> NormalizedEvent:
    """``told`` as a fact; its attributes are added to. Raises MalformedError."""
    message_id, status = told.message_id, told.status
    if len(message_id) > MAX_ID:
        raise MalformedError(f"MessageSid is longer than {MAX_ID} characters.")
    if len(status) > MAX_STATUS:
        raise MalformedError(f"MessageStatus is longer than {MAX_STATUS} characters.")
    error_code, error_text = _error(told)
    if told.inbound:
        _add_keyword(told)
        recipient, sender, text = told.from_address, told.to_address, told.text
        # Of a message that is still being received the text may be missing; as the same fact it would hide the whole.
        key = f"{message_id}:{'receiving' if status == 'receiving' else 'inbound'}"
    else:
        # The text of one's own message comes back in Event Streams; it is no reply.
        recipient, sender, text, key = told.to_address, told.from_address, "", f"{message_id}:{status}"
    return NormalizedEvent(
        kind=EventKind.INBOUND if told.inbound else STATUSES.get(status, EventKind.UNKNOWN),
        key=key,
        provider_status=status,
        message_id=message_id,
        recipient=recipient[:MAX_ADDRESS],
        sender=sender[:MAX_ADDRESS],
        occurred_at_us=told.occurred_at_us,
        error_code=error_code,
        error_text=error_text[:MAX_VALUE],
        text=text[:MAX_TEXT],
        invalid_recipient=error_code in INVALID_RECIPIENT,
        vars=told.tags,
        attributes=told.attributes,
    )


def classify_keyword(text: str, opt_out_type: str) -> tuple[str, str, str]:
    """(STOP, START or HELP; the keyword; who says so) for an inbound message, three empty strings for any other.

    ``OptOutType`` wins: where Twilio sends it, it has matched the tenant's own keywords, and has already answered. Then
    the ``provider`` says so, otherwise our reading of the ``keyword``.
    """
    stripped = text.strip()
    word = stripped.upper() if len(stripped) <= MAX_STATUS else ""
    declared = opt_out_type.upper()
    if declared in OPT_OUT_TYPES:
        return declared, word, "provider"
    # Upper-casing maps a few letters outside of ASCII onto ASCII ones; Twilio does not take them for its keywords.
    meaning = KEYWORDS.get(word) if stripped.isascii() else None
    return (meaning, word, "keyword") if meaning else ("", "", "")


def _add_keyword(told: Told) -> None:
    meaning, keyword, by = classify_keyword(told.text, told.opt_out_type)
    if meaning:
        told.attributes += [("opt_out", meaning), ("opt_out_by", by), ("keyword", keyword)]


def _error(told: Told) -> tuple[str, str]:
    """Code and text of what went wrong with the message; both empty for events that have no error."""
    fields = FIELDS.get(told.status)
    if (fields is not None and "ErrorCode" not in fields) or told.inbound:
        return "", ""
    code, text = told.error_code, told.error_text
    if code == "0":
        # Exported records write "no error" so.
        return "", text
    known = ERROR_CODES.get(code)
    if known is not None:
        told.attributes.append(("error_class", known.error_class))
        text = text or known.text
    return code[:MAX_STATUS], text
