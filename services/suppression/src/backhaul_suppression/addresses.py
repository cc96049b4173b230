"""Which address a text is: one about which somebody asks, and one of which an event tells."""

from __future__ import annotations

import re
import unicodedata

from backhaul_channels.addresses import email, is_international
from backhaul_channels.people import SAME_AS_THE_NUMBER, is_canonical, mailbox, number, scheme_of, without_extension
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import SuppressionSettings

from backhaul_suppression.model import Address, Family, ScopeKind

# RFC 5321, 4.5.3.1.
MAX_LOCAL_BYTES = 64
MAX_EMAIL_BYTES = 254
MAX_ADDRESS = 512

_FIELD = "address"
# Channels of people who have a number. What follows is one, or has letters, as WhatsApp's own ids of a person do.
_OF_NUMBERS = SAME_AS_THE_NUMBER | {"whatsapp"}
_WHATSAPP = "whatsapp:"
# Their addresses of people have an @, and are no mail addresses.
_OF_HOSTS = frozenset({"sip", "sips"})
# Control characters, marks without a width, halves of surrogate pairs.
_UNSEEN = frozenset({"Cc", "Cf", "Cs"})
_ATOMS = r'[^\s<>()\[\],;:\\"@]+'
_LOCAL = re.compile(rf'{_ATOMS}|"[^"\\]*"')
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+|\[[0-9a-z.:]+\]")


def address_of(registration: str, text: str, family: Family | None = None) -> Address:
    """The address that somebody asks about, or tells of. Without a family the text tells it: a number's is PHONE.

    Raises BackhaulError INVALID_ARGUMENT of the field ``address`` for what is no address of the family. Whatever may be
    one in two spellings is refused too: a number without its country is a different one in each.
    """
    if family is not Family.EMAIL and is_canonical(text):
        return Address(registration, family or Family.PHONE, text)
    if not text or text.isspace():
        raise _invalid("The address is missing.", "Send a number as E.164 (+14155550123), or an e-mail address.")
    if len(text) > MAX_ADDRESS:
        raise _invalid(f"The address is longer than {MAX_ADDRESS} characters.", "Send one address.")
    told = told_address(registration, text, family)
    if _is_unreadable(told.text):
        raise _invalid("The address has characters that nobody sees.", "Send it without them.")
    if told.family is Family.EMAIL:
        if "%" in text and scheme_of(text) == "mailto":
            raise _invalid("The address is written as a part of a URI.", "Send it as name@example.com.")
        _check_email(told.text)
    else:
        _check_number(told.text, told.family)
    return told


def told_address(registration: str, text: str, family: Family | None = None) -> Address:
    """The address of which an event tells. Never raises: what is none of the family is kept as it is, as a person whom
    a provider knows by it must not be contacted there. Without a family everything but an e-mail address is PHONE."""
    if family is None:
        family = Family.EMAIL if "@" in text and scheme_of(text) in ("", "mailto") else Family.PHONE
    if family is Family.PHONE:
        # Nobody writes to an extension: the message goes to the number.
        return Address(registration, family, without_extension(number(text)))
    if family is Family.VOICE:
        return Address(registration, family, number(text))
    return Address(registration, family, mailbox(text))


def sender_of(text: str) -> str:
    """A sender's id as scopes and ``Sending`` have it; empty where ``text`` names none. Never raises."""
    return email(text) if "@" in text else number(text)


def scope_id(kind: ScopeKind, text: str) -> str:
    """The id of a sender, a messaging service or a group that somebody names, as facts and questions compare it: only
    senders have more than one spelling. Never raises."""
    return sender_of(text) if kind is ScopeKind.SENDER else text.strip()


def spellings(address: Address, settings: SuppressionSettings) -> tuple[Address, ...]:
    """``address``, and behind it every other one about which the same words are said: of a number that of WhatsApp, and
    the other way round, where the tenant's setting takes them for one."""
    if settings.whatsapp != "phone" or address.family is not Family.PHONE:
        return (address,)
    text = address.text
    if text.startswith("+"):
        return address, address._replace(text=_WHATSAPP + text)
    if text.startswith(_WHATSAPP + "+"):
        return address, address._replace(text=text.removeprefix(_WHATSAPP))
    return (address,)


def _is_unreadable(text: str) -> bool:
    return not text.isprintable() and any(unicodedata.category(character) in _UNSEEN for character in text)


def _check_number(text: str, family: Family) -> None:
    channel = scheme_of(text)
    rest = text[len(channel) + 1 :] if channel else text
    if is_international(without_extension(rest)):
        return
    is_id = channel not in _OF_NUMBERS or any(map(str.isalpha, rest))
    if channel and family is Family.PHONE and not rest.startswith("+") and is_id:
        _check_id(channel, rest)
        return
    if not channel and "@" in rest:
        raise _invalid("An e-mail address is none of this family.", "Leave the family out, or name EMAIL.")
    if rest.startswith("+"):
        raise _invalid("The number is of no country, or too short, or too long.", "Send it as E.164: +14155550123.")
    raise _invalid(
        "The address is no number in the international form.",
        "Send it as E.164, with a plus and its country code: +14155550123.",
    )


def _check_id(channel: str, rest: str) -> None:
    """A person's id on a channel, which nobody but the channel can read; but never another address behind a word."""
    is_mail = channel == "mailto" or ("@" in rest and channel not in _OF_HOSTS)
    if is_mail or rest.startswith("/") or scheme_of(rest) in _OF_NUMBERS:
        raise _invalid("Another address stands behind the channel.", "Send that address by itself.")


def _check_email(text: str) -> None:
    local, at, domain = text.rpartition("@")
    if not at or not _LOCAL.fullmatch(local):
        raise _invalid("The address is no e-mail address.", "Send it as name@example.com, or name the right family.")
    if not local.isascii() and unicodedata.normalize("NFKC", local) != local:
        raise _invalid("The e-mail address has characters that look like others.", "Send it with usual letters.")
    if len(local.encode()) > MAX_LOCAL_BYTES or len(text.encode()) > MAX_EMAIL_BYTES:
        raise _invalid("The e-mail address is longer than RFC 5321 allows.", "Send one address.")
    if not _DOMAIN.fullmatch(domain):
        raise _invalid("The e-mail address has no domain that can be in the DNS.", "Send it as name@example.com.")


def _invalid(message: str, fix: str) -> BackhaulError:
    return BackhaulError(Code.INVALID_ARGUMENT, message, field=_FIELD, fix=fix)
