"""Mail addresses that are sent to: the same check where they are given and where they are used."""

from __future__ import annotations

import re
from typing import Final

_MAX_LOCAL, _MAX_ALL = 64, 254

# RFC 5321, 4.5.3.1, without what a header of a mail could be broken out of.
_LOCAL: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS: Final = re.compile(rf"(?P<local>{_LOCAL})@{_LABEL}(?P<more>(?:\.{_LABEL})*)")

ADDRESS_FIX: Final = "Pass name@example.com, in ASCII and without a display name."
"""What to do about one that is none."""


def is_mail_address(text: str, *, dotted: bool = True) -> bool:
    """Whether mail can be sent to ``text`` without any risk to its headers. ``dotted``: its domain has a dot, as all on
    the Internet have."""
    match = _ADDRESS.fullmatch(text)
    # A mail's header would read "=?" as the beginning of an encoded word, whose text may be anything.
    if match is None or "=?" in text or len(match["local"]) > _MAX_LOCAL or len(text) > _MAX_ALL:
        return False
    return bool(match["more"]) or not dotted
