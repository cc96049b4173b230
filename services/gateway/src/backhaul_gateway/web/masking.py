"""Credentials masked in texts that are kept or shown: what lies in a log or a stream lives long and is seen by many."""

from __future__ import annotations

import re
from itertools import islice

_MASK = "***"

_UNDERSCORE_BYTE, _PERCENT_BYTE = b"_%"
"""Numbers, since ``95 in data`` takes a tenth of the time of ``b"_" in data`` in CPython 3.11."""

# As secrets.new_credential makes them: bhk_ or bhi_, the id, the secret. Each character may be percent-encoded, as it
# may in a URL, and that again by a proxy that puts the URL into a header; the case may be lost on the way. Any number
# of digits will do: what was cut short or lengthened by a slip opens nothing, but tells nearly as much.
# Nothing is given back (*+, ++), since no digit could be anything else: whoever sends such texts may send long ones.
_ENCODED = "%(?:25)*+"
_DIGITS = rf"(?:[0-9a-f]++|{_ENCODED}(?:3[0-9]|[46][1-6]))++"
_UNDERSCORE = rf"(?:_|{_ENCODED}5f)"
_CREDENTIAL = re.compile(
    rf"(?:b|{_ENCODED}[46]2)(?:h|{_ENCODED}[46]8)(?:[ik]|{_ENCODED}[46][9b])"
    rf"{_UNDERSCORE}{_DIGITS}{_UNDERSCORE}{_DIGITS}",
    re.IGNORECASE,
)

# What a credential's beginning leaves behind when a part of it is encoded.
_ENCODED_BEGINNING = re.compile(rb"%(?:25)*(?:[46][289b]|5f)")


# In a body it stands as it is, if at all: where a provider tells of an address, forms and JSON escape none of these
# characters. Beyond so many beginnings it is no provider's body, and looking goes on at nobody's expense.
_IN_BODY = re.compile(rb"bh[ik]_(?:[0-9a-f]++_[0-9a-f]++)?")
_MOST_IN_BODY = 1000
_BEGINNING = len("bhi_")


def masked(text: str) -> str:
    """``text``, a URL or a part of one, with three asterisks for every API key and ingest token in it."""
    return _CREDENTIAL.sub(_MASK, text)


def masked_bytes(data: bytes) -> bytes:
    """The same of bytes, of any encoding that contains ASCII. Cheap where there is nothing to mask."""
    # The pattern costs a hundred times as much as looking for what it cannot do without: two underscores first.
    if _UNDERSCORE_BYTE not in data and _PERCENT_BYTE not in data:
        return data
    lowered = data.lower()
    if b"bhi_" in lowered or b"bhk_" in lowered or (b"%" in lowered and _ENCODED_BEGINNING.search(lowered)):
        return masked(data.decode("latin-1")).encode("latin-1")
    return data


def masked_body(body: bytes) -> bytes:
    """The same of a callback's body. Providers tell the addresses that they call: Twilio's fallback requests do, and
    the webhooks of its debugger."""
    # Most forms have no underscore at all, and looking for one byte costs a tenth of looking for four.
    if _UNDERSCORE_BYTE not in body or (b"bhi_" not in body and b"bhk_" not in body):
        return body
    pieces: list[bytes] = []
    start = 0
    for match in islice(_IN_BODY.finditer(body), _MOST_IN_BODY):
        if match.end() - match.start() > _BEGINNING:
            pieces += body[start : match.start()], _MASK.encode()
            start = match.end()
    return b"".join([*pieces, body[start:]])
