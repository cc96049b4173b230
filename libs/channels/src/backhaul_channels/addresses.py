"""One canonical form of each address, by which people are compared, searched for and suppressed.

What people are shown stays as the provider wrote it. Nothing here raises, whatever the text; every function leaves its
own results as they are; a text that is no address of the family is only trimmed.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import idna
from phonenumbers import (
    NumberParseException,
    PhoneMetadata,
    PhoneNumberFormat,
    format_number,
    is_valid_number,
    parse,
    region_code_for_country_code,
)

# RFC 5321 allows an e-mail address 254 octets and a number has 15 digits. Whatever is longer than this is no address.
_LONGEST = 512
_MAX_NUMBER = 64

_STRICT = re.compile(r"\+[1-9][0-9]{6,14}")
# A channel or a URI scheme before the address: whatsapp:, rcs:, messenger:, tel:. Schemes have no case (RFC 3986).
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,31}):(?=\S)")
# What people and address books put between digits: blanks, hyphens, dots, brackets. No slash, which begins a second
# number, and no letters, since a word is no number.
_BETWEEN = r"[\s.()\[\]\-\u2010-\u2015\u2212\uff0d]"
_WRITTEN = re.compile(
    rf"{_BETWEEN}*(?P<plus>[+\uff0b]|00)(?P<digits>(?:{_BETWEEN}*\d){{7,17}}){_BETWEEN}*"
    r"(?:(?:;\s*ext=|,?\s*(?:extension|extn|ext|x)\.?:?\s*|#\s*)(?P<extension>\d{1,8}))?",
    re.IGNORECASE,
)
# Copied from an address book, a number often stands between marks of direction that nobody sees.
_INVISIBLE = dict.fromkeys(
    [0xAD, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), *range(0x2066, 0x206A)]
)
_DOMAIN = re.compile(r"[^\s\x00-\x1f\x7f<>,;()\\\"\ud800-\udfff]+")


def canonical(text: str) -> str:
    """``text`` in the form in which all spellings of one address are one; the family is told by what the text is.

    What holds an ``@`` is an e-mail address, everything else is left to ``phone``.
    """
    return email(text) if "@" in text else phone(text)


def phone(text: str) -> str:
    """An international number as E.164, with ``;ext=`` and an extension where it has one.

    A number needs its country: it begins with ``+``, or with ``00`` if it is valid so. What libphonenumber holds valid
    gets libphonenumber's form, without the zero that people write after a country code that does not want one. Any
    other number of a known country only loses what stands between its digits. The channel before a number
    (``whatsapp:``) stays, in lower case, as consent to one channel is none to another; ``tel:`` is no channel.
    National numbers, short codes and senders with letters stay as they are.
    """
    if is_settled(text):
        return text
    trimmed = text.strip()
    if len(trimmed) > _MAX_NUMBER:
        return trimmed
    scheme = _SCHEME.match(trimmed)
    if not scheme:
        return _from_written(trimmed) or trimmed
    channel, rest = scheme[1].lower() + ":", trimmed[scheme.end() :]
    number = rest if is_settled(rest) else _from_written(rest)
    if number and channel == "tel:":
        return number
    return channel + (number or rest)


def is_settled(text: str) -> bool:
    """Whether ``text`` is a number of a known country in E.164's form, about which ``phone`` changes nothing.

    Such a text is canonical as it is; whoever has many asks this first. libphonenumber only ever changes what
    begins, after the country code, with the prefix that it takes off there.
    """
    if not _STRICT.fullmatch(text):
        return False
    country = _country(text[1:4])
    if country is None:
        return False
    end, prefix = country
    # A prefix may also be nothing at all, as Argentina's is optional.
    return prefix is None or not (match := prefix.match(text, end)) or match.end() == end


def is_international(text: str) -> bool:
    """Whether ``text`` has E.164's form, and the code of a country that there is."""
    return _STRICT.fullmatch(text) is not None and _country(text[1:4]) is not None


def email(text: str) -> str:
    """An e-mail address in lower case, its domain as DNS knows it: in ASCII (IDNA), without the root's dot.

    The part before the ``@`` loses its case too: hardly any server tells ``User`` from ``user``, and nearly all people
    who write both mean one mailbox. Of ``Name <address>`` the address counts.
    """
    trimmed = text.strip()
    if len(trimmed) > _LONGEST:
        return trimmed
    address = trimmed
    if address.endswith(">") and "<" in address:
        address = address[address.rindex("<") + 1 : -1].strip()
    local, _, domain = address.rpartition("@")
    domain = domain.rstrip(".")
    if not local or not _DOMAIN.fullmatch(domain):
        return trimmed
    if address.isascii():
        return f"{local}@{domain}".lower()
    return f"{_lower(local)}@{_in_ascii(domain)}"


@lru_cache(maxsize=2048)
def _country(digits: str) -> tuple[int, re.Pattern[str] | None] | None:
    """(Where a number goes on behind the plus and the country code that ``digits`` begin with, what libphonenumber
    takes off there); None where they begin with none. No country code begins another one."""
    for length in (1, 2, 3):
        known, prefix = _national_prefix(digits[:length])
        if known:
            return 1 + length, prefix
    return None


@lru_cache(maxsize=2048)
def _national_prefix(code: str) -> tuple[bool, re.Pattern[str] | None]:
    """(Whether ``code`` is a country's, what libphonenumber takes off the beginning of a number there)."""
    region = region_code_for_country_code(int(code))
    metadata = PhoneMetadata.metadata_for_region_or_calling_code(int(code), region)
    if metadata is None:
        return False, None
    prefix: str | None = metadata.national_prefix_for_parsing
    return True, re.compile(prefix) if prefix else None


def _from_written(text: str) -> str:
    """The number that is written in ``text`` in any way; empty where it holds none, or more than that."""
    match = _WRITTEN.fullmatch(text.translate(_INVISIBLE))
    if not match:
        return ""
    digits = _digits(match["digits"])
    number = _e164(digits, only_valid=match["plus"] == "00")
    if not number:
        return ""
    return f"{number};ext={_digits(match['extension'])}" if match["extension"] else number


def _digits(text: str) -> str:
    return "".join(str(unicodedata.decimal(character)) for character in text if character.isdecimal())


def _e164(digits: str, *, only_valid: bool) -> str:
    """The number of these digits, country code first; empty for one of no country and, if asked, for an invalid one."""
    plain = f"+{digits}"
    if not only_valid and is_settled(plain):
        return plain
    valid = _if_valid(digits)
    # Very few numbers would lose digits each time anew. They keep those that they have, or one person had many forms.
    if valid and _if_valid(valid[1:]) in ("", valid):
        return valid
    known = _country(digits[:3]) is not None
    return "" if only_valid or not known or not _STRICT.fullmatch(plain) else plain


def _if_valid(digits: str) -> str:
    try:
        number = parse(f"+{digits}")
    except NumberParseException:
        return ""
    return format_number(number, PhoneNumberFormat.E164) if is_valid_number(number) else ""


def _lower(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def _in_ascii(domain: str) -> str:
    try:
        return idna.encode(domain, uts46=True).decode().rstrip(".").lower()
    except (UnicodeError, IndexError):
        # No domain that can be registered, and still the same one however it is written.
        return _lower(domain)
