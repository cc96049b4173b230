"""Which addresses are the same person's: what ``addresses`` leaves apart, since providers need it so, is one here.

Nothing here raises, whatever the text.
"""

from __future__ import annotations

import re

from backhaul_channels.addresses import email, is_international, is_settled, phone

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,31}):(?=\S)")
SAME_AS_THE_NUMBER = frozenset({"rcs", "tel", "sms", "mms"})
"""Channels that reach whoever has the number. Twilio holds opt-outs from them for one."""

NUMBERED = SAME_AS_THE_NUMBER | {"whatsapp", "viber", "voice"}
"""Channels behind which a number stands in the addresses that providers write."""

# Mobile numbers that are written in two ways, both of which reach the person: with Mexico's former 1, with Argentina's
# 9, which local numbers do not have, and without the ninth digit that Brazil gave to those that begin with 6 to 9.
# WhatsApp tells the one where the other was written to. In none of these countries is another number written so.
_WRITTEN_IN_TWO_WAYS = frozenset({"52", "54", "55"})
_TWO_WAYS = re.compile(r"(?:(\+52)1(\d{10})|(\+54)9(\d{10})|(\+55\d\d)([6-9]\d{7}))(;ext=\d+)?", re.ASCII)
_BRAZIL = "+55"
_EXTENSION = re.compile(r";ext=[0-9]{1,8}\Z")
# Quotes around what needs none say nothing (RFC 5321, 4.1.2).
_NEEDLESS_QUOTES = re.compile(r'"([^\s<>()\[\],;:\\"@]+)"(@[^@]+)')
_MAILTO = "mailto"


def person(text: str) -> str:
    """Who is reached by ``text``, whichever the channel; empty where nobody is named.

    A number is one person's for messages, calls and WhatsApp, and with any extension: whoever wants to be forgotten
    names the number. Other channels' own ids of a person stay apart, as nobody can tell whose they are.
    """
    if is_canonical(text):
        return text
    scheme = scheme_of(text)
    if "@" in text and scheme in ("", _MAILTO):
        return mailbox(text)
    kept = number(text)
    rest = without_extension(kept if kept.startswith("+") else kept.partition(":")[2])
    return rest if is_international(rest) else kept


def spellings(whom: str) -> list[str]:
    """The canonical addresses (``addresses.canonical``) of ``whom``, a result of ``person``, that providers write; a
    number's also with any extension behind it (``;ext=``). Behind a channel that is none of ``NUMBERED`` a number is
    not looked for.
    """
    if "@" in whom:
        local, _, domain = whom.rpartition("@")
        return [scheme + text for scheme in ("", f"{_MAILTO}:") for text in (whom, f'"{local}"@{domain}')]
    if not is_international(whom):
        return [whom]
    return [scheme + each for each in _ways(whom) for scheme in ("", *(f"{one}:" for one in sorted(NUMBERED)))]


def _ways(whom: str) -> list[str]:
    """A number, and the other way in which it is written."""
    country, rest = whom[:3], whom[3:]
    if country == "+52" and len(rest) == 10:
        return [whom, f"+521{rest}"]
    if country == "+54" and len(rest) == 10:
        return [whom, f"+549{rest}"]
    if country == _BRAZIL and len(rest) == 11 and rest[2] == "9" and rest[3] in "6789":
        return [whom, f"+55{rest[:2]}{rest[3:]}"]
    return [whom]


def is_canonical(text: str) -> bool:
    """Whether ``text`` is a number that ``number`` and ``person`` leave as it is: the quick way for those who have
    many."""
    return is_settled(text) and (text[1:3] not in _WRITTEN_IN_TWO_WAYS or _in_one_way(text) == text)


def number(text: str) -> str:
    """What ``addresses.phone`` makes of it, in one way where two reach the same, and without a channel that reaches
    whoever has the number."""
    kept = phone(text)
    if kept.startswith("+"):
        return _in_one_way(kept)
    channel, _, rest = kept.partition(":")
    if not rest.startswith("+"):
        return kept
    found = _in_one_way(rest)
    return found if channel in SAME_AS_THE_NUMBER else f"{channel}:{found}"


def mailbox(text: str) -> str:
    """What ``addresses.email`` makes of it, without ``mailto:`` and without quotes that say nothing."""
    kept = email(text.strip()[len(_MAILTO) + 1 :] if scheme_of(text) == _MAILTO else text)
    match = _NEEDLESS_QUOTES.fullmatch(kept)
    return match[1] + match[2] if match else kept


def without_extension(text: str) -> str:
    """A number as ``number`` has it, without the extension behind it."""
    return _EXTENSION.sub("", text)


def scheme_of(text: str) -> str:
    """The channel or URI scheme before an address, in lower case; empty where there is none."""
    match = _SCHEME.match(text.strip()) if ":" in text else None
    return match[1].lower() if match else ""


def _in_one_way(text: str) -> str:
    match = _TWO_WAYS.fullmatch(text)
    if match is None:
        return text
    country, rest, *extension = (group for group in match.groups() if group is not None)
    return "".join((country, "9" if country.startswith(_BRAZIL) else "", rest, *extension))
