"""What the field ``message`` holds: a text, a file, a place, a button that was pressed, or what went wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from backhaul_channels.jsonparts import scalar_text
from backhaul_channels.providers.rcs.mapping import FILE_ATTRIBUTES

# The provider's own limits are lower; these only keep a hostile or broken sender from filling the store.
MAX_VALUE = 4096
MAX_TEXT = 16_384

_HTTP_STATUS = re.compile(r"status code ([1-5][0-9]{2})\b", re.IGNORECASE | re.ASCII)
# "Limite de créditos do cliente atingido", and the same "da conta", behind which the account's id follows. The words
# without accents decide, since an accent has two spellings.
_CUSTOMERS_CREDIT = re.compile(r"\bdo\s+cliente\s+atingido\b", re.IGNORECASE)
_ACCOUNTS_CREDIT = re.compile(r"\bda\s+conta\s+atingido\b(.*)", re.IGNORECASE | re.DOTALL)
# What may stand around an id in a sentence.
_AROUND = " \t\r\n.,;:\"'()[]"

Attributes = list[tuple[str, str]]


class Pressed(NamedTuple):
    """A button that a person pressed: what it does (REPLY, OPENURL, CALL), what they saw, what the sender attached."""

    action: str
    option: str
    payload: str


def text_of(value: object, limit: int = MAX_VALUE) -> str:
    """A scalar as text of at most ``limit`` characters; empty for everything else."""
    return (scalar_text(value) or "")[:limit]


def written(message: object) -> str:
    """The text of a message; empty for one without, such as a file."""
    text = message.get("text") if isinstance(message, dict) else message
    return text[:MAX_TEXT] if isinstance(text, str) else ""


def described(message: object) -> Attributes:
    """The kind of a message's content, its file and its place, as attributes."""
    if not isinstance(message, dict):
        return []
    attributes = [("content_type", text_of(message.get("contentType")))]
    # A file stands under its own kind (image, contact), and in messages of the type text under ``text``.
    for value in message.values():
        if isinstance(value, dict) and not FILE_ATTRIBUTES.keys().isdisjoint(value):
            attributes += [(attribute, text_of(value.get(name))) for name, attribute in FILE_ATTRIBUTES.items()]
            break
    place = message.get("location")
    if isinstance(place, dict):
        attributes += [(name, text_of(place.get(name))) for name in ("latitude", "longitude")]
    return [(name, value) for name, value in attributes if value]


def pressed(message: object) -> Pressed:
    """The button that was pressed; each part is empty where the message does not say."""
    content: Mapping[str, Any] = message if isinstance(message, dict) else {}
    inner = content.get("suggestionResponse")
    told = inner if isinstance(inner, dict) else content
    return Pressed(text_of(told.get("type"), 64), text_of(told.get("text")), text_of(told.get("postbackData")))


def http_status(text: str) -> str:
    """The HTTP status that an error's text names; empty where it names none."""
    found = _HTTP_STATUS.search(text)
    return found[1] if found else ""


def credit(text: str) -> Attributes:
    """Whose credit is used up, the customer's or one account's, and which account's."""
    account = _ACCOUNTS_CREDIT.search(text)
    if account:
        words = account[1].strip(_AROUND).split(maxsplit=1)
        account_id = words[0].rstrip(_AROUND) if words else ""
        return [("credit_of", "account"), *([("account_id", account_id)] if account_id else [])]
    return [("credit_of", "customer")] if _CUSTOMERS_CREDIT.search(text) else []
