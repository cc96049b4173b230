"""One message's event, whichever way Twilio told of it: what the words mean, and what is kept of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from backhaul_channels.adapter import MalformedError
from backhaul_channels.event import (
    AddressFamily,
    Classification,
    Consent,
    ConsentBy,
    ConsentScope,
    EventKind,
    NormalizedEvent,
    Reply,
)
from backhaul_channels.providers.twilio.mapping import (
    FIELDS,
    INVALID_RECIPIENT,
    OPT_OUT_TYPES,
    STATUSES,
)
from backhaul_channels.values import MAX_ADDRESS, MAX_ID, MAX_TEXT, MAX_VALUE, MAX_WORD


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
    messaging_service: str = ""
    reply: Reply | None = None
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
    if len(status) > MAX_WORD:
        raise MalformedError(f"MessageStatus is longer than {MAX_WORD} characters.")
    error_code, error_text = _error(told)
    consent, classification = None, None
    if told.inbound:
        # Twilio keeps opt-outs by messaging service, so that is what they cover where the message came to one.
        scope = told.messaging_service[:MAX_ID]
        scope_kind = ConsentScope.MESSAGING_SERVICE if scope else ConsentScope.UNKNOWN
        classification = Classification(scope_kind=scope_kind, scope=scope) if scope else None
        consent = consent_of(told, scope_kind, scope)
        recipient, sender, text = told.from_address, told.to_address, told.text
        # Also of one that is still being received, whose text may be missing: it is one reply, and each completes it.
        key = f"{message_id}:inbound"
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
        recipient_family=family_of(recipient),
        consent=consent,
        classification=classification,
        reply=told.reply if told.inbound else None,
        vars=told.tags,
        attributes=told.attributes,
    )


def consent_of(told: Told, scope_kind: ConsentScope, scope: str) -> Consent | None:
    """What Twilio says that an inbound message says about consent, if it does: where ``OptOutType`` is there, it has
    matched the tenant's own keywords, and has already answered."""
    action = OPT_OUT_TYPES.get(told.opt_out_type.upper())
    if action is None:
        return None
    word = told.text.strip()
    return Consent(ConsentBy.PROVIDER, action, word.upper() if len(word) <= MAX_WORD else "", scope_kind, scope)


def family_of(address: str) -> AddressFamily:
    """The family of a message's recipient: a number, with or without the channel before it (``whatsapp:``), or nothing
    that is known (a page of Messenger, say)."""
    number = address[:1] == "+" or address.rpartition(":")[2][:1] == "+"
    return AddressFamily.PHONE if number else AddressFamily.UNKNOWN


def _error(told: Told) -> tuple[str, str]:
    """Code and text of what went wrong with the message; both empty for events that have no error."""
    fields = FIELDS.get(told.status)
    if (fields is not None and "ErrorCode" not in fields) or told.inbound:
        return "", ""
    code, text = told.error_code, told.error_text
    if code == "0":
        # Exported records write "no error" so.
        return "", text
    return code[:MAX_WORD], text
