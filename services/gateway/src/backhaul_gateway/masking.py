"""Credentials masked in texts that are kept or shown: what lies in a log or a stream lives long and is seen by many."""

from __future__ import annotations

import re

_MASK = "***"

_CREDENTIAL = re.compile(
    # As secrets.new_credential makes them: bhk_ or bhi_, the id, the secret. Each character may be percent-encoded, as
    # it may in a URL, and the case may be lost on the way. Any number of digits will do: what was cut short or
    # lengthened by a slip opens nothing, but tells nearly as much.
    r"(?:b|%[46]2)(?:h|%[46]8)(?:[ik]|%[46][9b])(?:_|%5f)"
    r"(?:[0-9a-f]|%(?:3[0-9]|[46][1-6]))+(?:_|%5f)"
    r"(?:[0-9a-f]|%(?:3[0-9]|[46][1-6]))+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """``text``, a URL or a part of one, with three asterisks for every API key and ingest token in it."""
    return _CREDENTIAL.sub(_MASK, text)
