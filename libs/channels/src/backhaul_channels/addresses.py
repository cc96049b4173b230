"""One canonical form of each address, by which people are compared, searched for and suppressed.

What people are shown stays as the provider wrote it.
"""

from __future__ import annotations


def canonical(address: str) -> str:
    """``address`` in the form in which all spellings of it are one: what is compared and stored for searching.

    An e-mail address loses its case. Whatever is no address of a known family is only trimmed.
    """
    trimmed = address.strip()
    return trimmed.lower() if "@" in trimmed else trimmed
