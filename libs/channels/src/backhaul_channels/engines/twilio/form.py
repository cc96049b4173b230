"""What Twilio signs of a form."""

from __future__ import annotations

import re
from binascii import a2b_qp
from itertools import chain
from string import ascii_letters, digits

_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# Letters, digits and what joins words, as in MessagingBinding.Address or SipHeader_X-Any.
_IN_NAMES = (ascii_letters + digits + "_.-").encode()
_USUAL = 1024
"""Bytes of a form up to which looking for what is wrong costs less than decoding it."""
_ACCOUNT = b"AccountSid"
_MAX_ACCOUNT = 34
FORM_BEGINS = b"AccountSidAC"
"""What Twilio signs of a form begins with its account, for no other field's name sorts before that one's."""


def signed_material(body: bytes) -> bytes | None:
    """What Twilio appends to the URL before it signs: for every field name in byte order and every different value of
    it in byte order, the name and the value, decoded. None for a form that Twilio does not write. Never raises.

    The scheme puts no mark between the address, the names and the values, so whoever has one signed request could move
    characters from one to the other. Names therefore have their shape, and so has AccountSid, with which Twilio's forms
    begin: it can neither take in what follows it nor be made of other fields.
    """
    if not _is_escaped(body):
        return None
    pairs = [field.split(b"=") for field in body.split(b"&")]
    try:
        named = dict(pairs)
    except ValueError:
        # A field without a value, one with an equals sign in its value, or none at all.
        return _signed_material_slowly(body)
    names = b"".join(named)
    if len(named) != len(pairs) or not (names.isalnum() or _well_named(names)) or b"" in named:
        return _signed_material_slowly(body)
    account = named.get(_ACCOUNT)
    if account is not None and not _is_account(account):
        return None
    # Names sort as they do decoded, and one by one, since each is there once and holds nothing that is escaped. What is
    # decoded holds no equals sign, which _unquote has to look for.
    ordered = sorted(named)
    signed = b"".join([name + named[name] for name in ordered])
    return _begun_by(ordered[0], a2b_qp(signed.replace(b"+", b" ").replace(b"%", b"=")))


def _signed_material_slowly(body: bytes) -> bytes | None:
    fields = [field.partition(b"=") for field in body.replace(b"+", b" ").split(b"&") if field]
    names = [name for name, _, _ in fields]
    # What stands in a name is never escaped, so names are looked at before anything is decoded.
    if b"" in names or not _well_named(b"".join(names)):
        return None
    decoded = {(name, a2b_qp(value.replace(b"=", b"%3D").replace(b"%", b"="))) for name, _, value in fields}
    pairs = sorted(decoded)
    if any(name == _ACCOUNT and not _is_account(value) for name, value in pairs):
        return None
    # A set of pairs, sorted, is just what is signed: names in order, within a name its values in order, repetitions
    # gone.
    return _begun_by(pairs[0][0], b"".join(chain.from_iterable(pairs))) if pairs else b""


def _begun_by(first: bytes, material: bytes) -> bytes | None:
    return None if first != _ACCOUNT and material.startswith(FORM_BEGINS) else material


def _is_escaped(body: bytes) -> bool:
    """Whether every percent sign has its two digits, as those of every library have that writes forms. Looking for one
    that has not takes 5 ms for 64 KB of them; so they are decoded, and the lengths compared."""
    if b"%" not in body:
        return True
    if len(body) < _USUAL:
        return _PERCENT.search(body) is None
    quoted = body.replace(b"=", b"&").replace(b"%", b"=")
    # At the end of a line, quoted-printable has another meaning for it.
    if b"=\n" in quoted or b"=\r" in quoted:
        return False
    return len(a2b_qp(quoted)) == len(quoted) - 2 * quoted.count(b"=")


def _well_named(names: bytes) -> bool:
    return not names.translate(None, _IN_NAMES)


def _is_account(value: bytes) -> bool:
    # Twilio's have 32 hexadecimal digits; those of examples have fewer or others. None has more.
    return value.startswith(b"AC") and value.isalnum() and len(value) <= _MAX_ACCOUNT
