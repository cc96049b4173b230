"""What the field ``message`` holds: a text, a file, a place, a button that was pressed, or what went wrong."""

from __future__ import annotations

import re

from backhaul_channels.engines.rcs import Attributes, Pressed, file_of, is_file, place_of, pressed_of, written
from backhaul_channels.values import bounded

_HTTP_STATUS = re.compile(r"status code ([1-5][0-9]{2})\b", re.IGNORECASE | re.ASCII)
# "Limite de créditos do cliente atingido", and the same "da conta", behind which the account's id follows. The words
# without accents decide, since an accent has two spellings.
_CUSTOMERS_CREDIT = re.compile(r"\bdo\s+cliente\s+atingido\b", re.IGNORECASE)
_ACCOUNTS_CREDIT = re.compile(r"\bda\s+conta\s+atingido\b(.*)", re.IGNORECASE | re.DOTALL)
# What may stand around an id in a sentence.
_AROUND = " \t\r\n.,;:\"'()[]"


def text_in(message: object) -> str:
    """The text of a message; empty for one without, such as a file."""
    return written(message.get("text") if isinstance(message, dict) else message)


def described(message: object) -> Attributes:
    """The kind of a message's content, its file and its place, as attributes."""
    if not isinstance(message, dict):
        return []
    # A file stands under its own kind (image, contact), and in messages of the type text under ``text``.
    file = next((value for value in message.values() if is_file(value)), None)
    kind = bounded(message.get("contentType"))
    return [("content_type", kind), *file_of(file), *place_of(message.get("location"))]


def pressed(message: object) -> Pressed:
    """The button that was pressed."""
    inner = message.get("suggestionResponse") if isinstance(message, dict) else None
    return pressed_of(inner if isinstance(inner, dict) else message)


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
