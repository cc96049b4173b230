"""What one event of SendGrid's is called: its message, by each of its names, and itself."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from backhaul_channels.adapter import MalformedError
from backhaul_channels.addresses import email
from backhaul_channels.providers.sendgrid.mapping import DISTINGUISHING, IDENTITY, TEST_MESSAGE
from backhaul_channels.values import MAX_ID, id_of, text_of

ONE_PERSON = "sg_message_id"
ONE_MAIL = "smtp-id"
"""SendGrid's own names: the first is of one mail to one person, the second of one mail to all its recipients."""


_OWN_HOST = "ismtpd"
"""Stands in the host of each smtp-id that SendGrid has made. What stands before the host is then X-Message-Id, which
SendGrid has answered to the sending: of all names the one that the sender knows."""

_OF_ONE_PERSON = (".filter", ".recvd-")
"""One of these stands behind X-Message-Id in each ``sg_message_id``."""

_USUAL_KEYS = (ONE_PERSON, ONE_MAIL)
_USUAL = 256
"""Characters of SendGrid's own names together; with the recipient they are never too long for a name."""


class Names(NamedTuple):
    """A message's names, as NormalizedEvent has them; and the two of SendGrid's own that the event has."""

    message_id: str
    provisional: bool
    aliases: list[str]
    references: list[str]
    sg_message_id: str
    smtp_id: str


def message_names(event: Mapping[str, Any], message_id_from: tuple[str, ...]) -> Names:
    """What the message is called by the keys ``message_id_from``, and, after those, by SendGrid's own.

    ``sg_message_id`` is of one person's mail. Whatever else names a mail names it for all its recipients, so the
    recipient is added; where there is none, that names no message. Raises MalformedError for a name that is too long.
    """
    person = email(text_of(event.get("email"))[:MAX_ID])
    sg_message_id = text_of(event.get(ONE_PERSON)).strip()
    # It has angle brackets in some events and lacks them in others.
    smtp_id = text_of(event.get(ONE_MAIL)).strip().removeprefix("<").removesuffix(">").strip()
    if message_id_from == _USUAL_KEYS and sg_message_id and len(sg_message_id) + len(smtp_id) < _USUAL:
        # Nearly every event. What follows is what _by_all_keys makes of it, in a third of the time.
        local, _, host = smtp_id.partition("@")
        references = _references(sg_message_id, sg_message_id, local)
        if not smtp_id:
            return Names(sg_message_id, False, [], references, sg_message_id, smtp_id)
        if smtp_id != sg_message_id and smtp_id not in references:
            references.append(smtp_id)
        alias = f"{local if local and _OWN_HOST in host else smtp_id}:{person}"
        aliases = [alias] if person and alias != sg_message_id else []
        return Names(sg_message_id, False, aliases, references, sg_message_id, smtp_id)
    return _by_all_keys(event, message_id_from, person, sg_message_id, smtp_id)


def _by_all_keys(
    event: Mapping[str, Any], message_id_from: tuple[str, ...], person: str, sg_message_id: str, smtp_id: str
) -> Names:
    names: list[str] = []
    texts: list[str] = []
    provisional = False
    order = message_id_from
    for own in (ONE_PERSON, ONE_MAIL):
        if own not in order:
            order = (*order, own)
    for key in order:
        if key == ONE_PERSON:
            value = name = sg_message_id
        else:
            value = smtp_id if key == ONE_MAIL else text_of(event.get(key)).strip()
            name = _mail_name(value if key != ONE_MAIL else _mail_of(value), person)
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
    references = _references(message_id, sg_message_id, smtp_id.partition("@")[0])
    references += [
        text for text in dict.fromkeys(texts) if text != message_id and len(text) <= MAX_ID and text not in references
    ]
    return Names(message_id, provisional, names[1:], references, sg_message_id, smtp_id)


def sent_name(message_id: str, recipient: str, message_id_from: tuple[str, ...]) -> tuple[str, bool]:
    """What a mail to ``recipient`` is called that its sender knows by ``message_id``, and whether that is a further
    name: by X-Message-Id, an smtp-id or an ``sg_message_id``; where the channel names messages by an argument of the
    sender's, by the value of that. Raises MalformedError."""
    first, own = message_id_from[0], message_id.removeprefix("<").removesuffix(">").strip()
    if first in _USUAL_KEYS and any(mark in own for mark in _OF_ONE_PERSON):
        return own, first != ONE_PERSON
    person = email(recipient)
    if not person:
        raise MalformedError("recipient is missing: SendGrid gives one id to a mail to several people.")
    name = _mail_name(_mail_of(own) if first in _USUAL_KEYS else message_id, person)
    if len(name) > MAX_ID:
        raise MalformedError(f"message_id is too long: with the recipient, at most {MAX_ID} characters name a message.")
    return name, first == ONE_PERSON


def is_of_one_person(message_id: str) -> bool:
    """Whether a message is named by its ``sg_message_id``: all other names have the recipient behind a colon."""
    _, colon, person = message_id.rpartition(":")
    return not colon or "@" not in person


def x_message_id(sg_message_id: str) -> str:
    """What SendGrid has answered to the sending; empty where that cannot be told."""
    places = [place for mark in _OF_ONE_PERSON if (place := sg_message_id.find(mark)) > 0]
    return sg_message_id[: min(places)] if places else ""


def _mail_of(smtp_id: str) -> str:
    """What names the mail in an smtp-id."""
    local, _, host = smtp_id.partition("@")
    return local if local and _OWN_HOST in host else smtp_id


def _mail_name(mail: str, person: str) -> str:
    return f"{mail}:{person}" if mail and person else ""


def _references(message_id: str, sg_message_id: str, local: str) -> list[str]:
    """X-Message-Id: what ``sg_message_id`` begins with, up to its first dot. Older ids have dots themselves; of those
    it is ``local``, what the smtp-id begins with, too."""
    short = sg_message_id.partition(".")[0]
    references = [short] if short and short != message_id and len(short) <= MAX_ID else []
    if local and local not in (short, message_id) and sg_message_id.startswith(f"{local}.") and len(local) <= MAX_ID:
        references.append(local)
    return references


def fact_key(event: Mapping[str, Any], word: str, fields: Mapping[str, str], message_id: str) -> str:
    """SendGrid's id of the event, or else a hash of what the event's own ``fields`` say. Raises MalformedError."""
    event_id = id_of(event.get("sg_event_id"), "sg_event_id")
    if event_id:
        # The documentation shows one id on events of different types, so the id alone might drop one of them.
        return f"{event_id}:{word}"
    identity = [message_id, word, *(text_of(event.get(name)) if name in fields else "" for name in IDENTITY)]
    own = [text_of(event.get(name)) if name in fields else "" for name in DISTINGUISHING.get(word, ())]
    # Keys are contracts, so an event without these fields keeps the key that the others alone give it.
    if any(own):
        identity += own
    # Encoded as JSON, so that no two lists run together into the same bytes.
    return f"sha256:{sha256(msgspec.json.encode(identity)).hexdigest()[:40]}"


def is_test(names: Names) -> bool:
    """Whether SendGrid's console made the event up for its test button: its mail has the id of the examples."""
    for name in (names.sg_message_id, names.smtp_id):
        if name.startswith(TEST_MESSAGE) and name[len(TEST_MESSAGE) :][:1] in ("", ".", "@"):
            return True
    return False
