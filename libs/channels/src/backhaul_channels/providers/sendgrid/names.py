"""What one event of SendGrid's is called: its message, by each of its names, and itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from backhaul_channels.adapter import MalformedError
from backhaul_channels.addresses import email
from backhaul_channels.jsonparts import scalar_text
from backhaul_channels.providers.sendgrid.mapping import DISTINGUISHING, IDENTITY, TEST_MESSAGE

# SendGrid's own limits are lower (100 characters for an event id, 10,000 bytes for all custom arguments).
MAX_ID = 512

ONE_PERSON = "sg_message_id"
ONE_MAIL = "smtp-id"
"""SendGrid's own names: the first is of one mail to one person, the second of one mail to all its recipients."""


class Names(NamedTuple):
    """A message's names, as NormalizedEvent has them."""

    message_id: str
    provisional: bool
    aliases: list[str]
    references: list[str]


def text_of(value: object) -> str:
    """A scalar as text; empty for everything else."""
    # Nearly all values are strings; asking for the type first saves a call for each.
    return value if type(value) is str else scalar_text(value) or ""


def bare_smtp_id(event: Mapping[str, Any]) -> str:
    """The ``smtp-id`` without the angle brackets, which it has in some events and lacks in others."""
    return text_of(event.get(ONE_MAIL)).strip().removeprefix("<").removesuffix(">").strip()


def message_names(event: Mapping[str, Any], message_id_from: tuple[str, ...]) -> Names:
    """What the message is called by the keys ``message_id_from``, and, after those, by SendGrid's own.

    ``sg_message_id`` is of one person's mail. Whatever else names a mail names it for all its recipients, so the
    recipient is added; where there is none, that names no message. Raises MalformedError for a name that is too long.
    """
    person = email(text_of(event.get("email"))[:MAX_ID])
    sg_message_id = text_of(event.get(ONE_PERSON)).strip()
    smtp_id = bare_smtp_id(event)
    texts = [sg_message_id.partition(".")[0]]
    local = smtp_id.partition("@")[0]
    if local and local != texts[0] and sg_message_id.startswith(f"{local}."):
        # The older ids have dots themselves, and sg_message_id begins with what the smtp-id begins with.
        texts.append(local)
    names: list[str] = []
    provisional = False
    order = _whole_order(message_id_from)
    for key in order:
        if key == ONE_PERSON:
            value = name = sg_message_id
        else:
            value = smtp_id if key == ONE_MAIL else text_of(event.get(key)).strip()
            name = f"{value}:{person}" if value and person else ""
        if value:
            texts.append(value)
        if not name or name in names:
            continue
        if len(name) <= MAX_ID:
            provisional = provisional or (not names and key != order[0])
            names.append(name)
        elif not names:
            raise MalformedError(f"{key} is too long: with the recipient, at most {MAX_ID} characters name a message.")
    message_id = names[0] if names else ""
    references = [text for text in dict.fromkeys(texts) if text and text != message_id and len(text) <= MAX_ID]
    return Names(message_id, provisional, names[1:], references)


@lru_cache(maxsize=256)
def _whole_order(message_id_from: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*message_id_from, ONE_PERSON, ONE_MAIL)))


def fact_key(event: Mapping[str, Any], word: str, fields: Mapping[str, str], message_id: str) -> str:
    """SendGrid's id of the event, or else a hash of what the event's own ``fields`` say. Raises MalformedError."""
    event_id = text_of(event.get("sg_event_id")).strip()
    if event_id:
        if len(event_id) > MAX_ID:
            raise MalformedError(f"sg_event_id is longer than {MAX_ID} characters.")
        # The documentation shows one id on events of different types, so the id alone might drop one of them.
        return f"{event_id}:{word}"
    identity = [message_id, word, *(text_of(event.get(name)) if name in fields else "" for name in IDENTITY)]
    own = [text_of(event.get(name)) if name in fields else "" for name in DISTINGUISHING.get(word, ())]
    # Keys are contracts, so an event without these fields keeps the key that the others alone give it.
    if any(own):
        identity += own
    # Encoded as JSON, so that no two lists run together into the same bytes.
    return f"sha256:{sha256(msgspec.json.encode(identity)).hexdigest()[:40]}"


def is_test(event: Mapping[str, Any]) -> bool:
    """Whether SendGrid's console made the event up for its test button: its mail has the id of the examples."""
    for name in (text_of(event.get(ONE_PERSON)).strip(), bare_smtp_id(event)):
        if name.startswith(TEST_MESSAGE) and name[len(TEST_MESSAGE) :][:1] in ("", ".", "@"):
            return True
    return False
