"""What a sender tells of a message that it sent, or could not send: one JSON object a send, read the same for all
providers. Pure, and what the gateway refuses a send by as well.

A provider's refusal while a message is handed over causes no callback, and what could not even be made causes nothing
at all. Told as sends, both become events as callbacks do.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Any, Final

import msgspec

from backhaul_channels.adapter import Adapter, Context, MalformedError
from backhaul_channels.engines.times import microseconds_of
from backhaul_channels.event import EventKind, NormalizedEvent
from backhaul_channels.reading import explained
from backhaul_channels.values import MAX_ADDRESS, MAX_ID, MAX_VALUE, MAX_WORD

MAX_SENDS: Final = 10_000
"""Sends that are told at once."""

MAX_SEND_BYTES: Final = 32 << 10
"""Of one send. As an event it must fit into a message of the stream, with its own text beside what was read of it."""

MAX_ATTRIBUTES: Final = 64
MAX_NAME: Final = 128
"""Characters of an attribute's name."""

UNSENT: Final = "unsent-"
"""What the message ids begin with that refused messages get here, since they have none of the provider's."""

_KEY: Final = "send:"
"""What the keys of sends begin with, so that they are no provider's."""


class SendStatus(StrEnum):
    """What became of a message: it was handed over to the provider, the provider ``REFUSED`` it at once, or it could
    not be made."""

    SENT = "sent"
    REFUSED = "refused"
    NOT_GENERATED = "not_generated"


_KINDS: Final = {
    SendStatus.SENT: EventKind.QUEUED,
    SendStatus.REFUSED: EventKind.REJECTED,
    SendStatus.NOT_GENERATED: EventKind.FAILED,
}

_Id = Annotated[str, msgspec.Meta(max_length=MAX_ID)]
_Address = Annotated[str, msgspec.Meta(max_length=MAX_ADDRESS)]


class SendError(MalformedError):
    """A send that is wrong: which ``field``, what is wrong with it, and the ``fix``. Each is a sentence."""

    def __init__(self, field: str, message: str, fix: str) -> None:
        super().__init__(f"{message} {fix}")
        self.field = field
        self.message = message
        self.fix = fix


class Send(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One message to one person. Texts are at most as long as events keep them; what is left out is empty.

    ``channel`` is the label of a channel, and no part of what is stored. ``message_id`` is the provider's, as it
    answered to the sending. ``communication``, ``batch`` and ``member`` are the sender's ids, as is ``id``, of this
    send alone. ``sent_at`` has a time zone. ``idempotency`` is set by whoever takes the send in: it tells apart two
    that say the same.
    """

    channel: Annotated[str, msgspec.Meta(max_length=MAX_NAME)] = ""
    message_id: _Id = ""
    recipient: _Address = ""
    sender: _Address = ""
    communication: _Id = ""
    batch: _Id = ""
    member: _Id = ""
    sent_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    id: _Id = ""
    status: SendStatus = SendStatus.SENT
    error_code: Annotated[str, msgspec.Meta(max_length=MAX_WORD)] = ""
    error_text: Annotated[str, msgspec.Meta(max_length=MAX_VALUE)] = ""
    attributes: Annotated[
        dict[
            Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)],
            Annotated[str, msgspec.Meta(max_length=MAX_VALUE)],
        ],
        msgspec.Meta(max_length=MAX_ATTRIBUTES),
    ] = {}
    idempotency: Annotated[str, msgspec.Meta(max_length=MAX_NAME)] = ""

    @property
    def names_itself(self) -> bool:
        """Whether it is known by an id, and not by all that it says."""
        return bool(self.id.strip() or self.message_id.strip())


_TEXTS: Final = ("message_id", "recipient", "sender", "communication", "batch", "member", "id", "error_code")
_decode = msgspec.json.Decoder(Send).decode
_encode = msgspec.json.Encoder().encode
_AT = re.compile(r"^(?P<what>.*?) - at (?:`key` in )?`\$\.?(?P<field>\w*)")
_MOST = re.compile(r"of length <= (?P<most>\d+)$")
_UNKNOWN = re.compile(r"unknown field `(?P<field>.*)`")


def encoded(send: Send) -> bytes:
    """``send`` as one part of a callback: a JSON object."""
    return _encode(send)


def parse_send(part: bytes | msgspec.Raw) -> Send:
    """``part`` as a send, which may still contradict itself. Raises SendError."""
    if len(memoryview(part)) > MAX_SEND_BYTES:
        raise SendError(
            "", f"The send is longer than {MAX_SEND_BYTES} bytes.", "Leave out what is not needed of attributes."
        )
    try:
        return _decode(part)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise SendError("", "The send is not valid JSON.", "Send each as one JSON object, in UTF-8.") from exc


def read_send(part: bytes, adapter: Adapter[Any], context: Context[Any]) -> NormalizedEvent:
    """``part`` as an event of a channel that ``adapter`` reads. Raises SendError."""
    return event_of(parse_send(part), adapter, context)


def event_of(send: Send, adapter: Adapter[Any], context: Context[Any]) -> NormalizedEvent:
    """``send`` as an event of a channel that ``adapter`` reads. Raises SendError where it contradicts itself."""
    text = {name: getattr(send, name).strip() for name in _TEXTS}
    _check(send, text)
    key = _key_of(send, text)
    try:
        recipient, family = adapter.sent_to(text["message_id"], text["recipient"], context.settings)
        if text["message_id"]:
            name, provisional = adapter.sent_name(text["message_id"], recipient, context.settings)
        else:
            name, provisional = f"{UNSENT}{_digest(key)}", False
    except SendError:
        raise
    except MalformedError as exc:
        raise SendError(str(exc).partition(" ")[0], str(exc), "Give what the provider's callbacks have.") from exc
    # What people have in hand finds the message, whatever it is called.
    references = [text["id"], text["message_id"] if text["message_id"] != name else ""]
    code = text["error_code"]
    event = NormalizedEvent(
        kind=_KINDS[send.status],
        key=key,
        provider_status=send.status.value,
        message_id=name,
        provisional=provisional,
        recipient=recipient,
        recipient_family=family,
        sender=text["sender"],
        occurred_at_us=microseconds_of(send.sent_at) if send.sent_at is not None else None,
        error_code=code,
        error_text=send.error_text,
        invalid_recipient=code != "" and adapter.is_invalid_recipient(code, context.settings),
        communication_id=text["communication"],
        batch_id=text["batch"],
        member_key=text["member"],
        references=[one for one in dict.fromkeys(references) if one],
        attributes=list(send.attributes.items()),
    )
    return explained(adapter, event) if code else event


def _check(send: Send, text: dict[str, str]) -> None:
    for name, value in text.items():
        if "\0" in value:
            raise SendError(name, f"{name} has a character that stands in no id and no address: NUL.", "Leave it out.")
    if send.status is SendStatus.SENT:
        if not text["message_id"]:
            raise SendError(
                "message_id",
                "message_id is missing, and only what was sent has one.",
                "Give the id that the provider answered with, or the status refused or not_generated.",
            )
        if text["error_code"] or send.error_text:
            raise SendError(
                "status",
                "What was sent has no error.",
                "Leave error_code and error_text out, or give the status refused or not_generated.",
            )
    elif not any(text[name] for name in ("message_id", "id", "recipient", "member")):
        raise SendError(
            "recipient",
            "Nothing tells whom the message was for.",
            "Give a recipient, a member, or an id of your own.",
        )
    if text["batch"] and not text["communication"]:
        raise SendError("batch", "A batch is one of a communication.", "Give the communication too.")
    if text["member"] and not text["communication"]:
        raise SendError("member", "A member is one of a communication.", "Give the communication too.")
    if send.sent_at is not None and microseconds_of(send.sent_at) <= 0:
        raise SendError("sent_at", "sent_at lies before 1970.", "Give the time at which it was sent, or leave it out.")


def _key_of(send: Send, text: dict[str, str]) -> str:
    """What the fact is known by: the sender's id, else the provider's, else all that it says."""
    own = f"id:{text['id']}" if text["id"] else text["message_id"]
    if own:
        key = f"{_KEY}{send.status.value}:{own}"
        return key if len(key) <= MAX_ID else f"{_KEY}{send.status.value}:{_digest(key)}"
    said = [
        send.status.value,
        *text.values(),
        send.error_text,
        microseconds_of(send.sent_at) if send.sent_at is not None else None,
        sorted(send.attributes.items()),
        send.idempotency,
    ]
    # Encoded as JSON, so that no two lists run together into the same bytes.
    return f"{_KEY}{_digest(_encode(said))}"


def _digest(text: str | bytes) -> str:
    return blake2b(text.encode() if isinstance(text, str) else text, digest_size=16).hexdigest()


def _invalid(message: str) -> SendError:
    """What msgspec found, naming the field."""
    if unknown := _UNKNOWN.search(message):
        field = unknown["field"][:MAX_NAME]
        return SendError(field, f"A send has no field {field!r}.", f"Its fields are {', '.join(_shown_fields())}.")
    if found := _AT.match(message):
        field = found["field"]
        return SendError(field, f"{field or 'The send'}: {found['what']}.", _fix(field, found["what"]))
    return SendError("", f"{message}.", "Send each as one JSON object.")


def _fix(field: str, what: str) -> str:
    """What to write in place of a value of which msgspec says ``what``."""
    if fix := _FIXES.get(field):
        return fix
    most = _MOST.search(what)
    return f"Give {most['most']} characters at most." if most else "Give a text, in quotes."


def _shown_fields() -> list[str]:
    return [name for name in Send.__struct_fields__ if name != "idempotency"]


_FIXES: Final = {
    "sent_at": "Write a time with its zone, such as 2026-11-26T12:00:00Z.",
    "status": f"Give one of {', '.join(SendStatus)}.",
    "attributes": f"Give an object of {MAX_ATTRIBUTES} texts at most, whose names have 1 to {MAX_NAME} characters, and "
    f"whose values {MAX_VALUE} at most.",
}
