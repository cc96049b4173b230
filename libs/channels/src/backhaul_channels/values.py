"""Single values of a provider's, as an event keeps them: as text, bounded, refused by name. For all providers alike."""

from __future__ import annotations

from backhaul_channels.adapter import MalformedError
from backhaul_channels.jsonparts import scalar_text

# Characters. The providers' own limits are lower; these only keep a hostile or broken sender from filling the store.
MAX_ID = 512
MAX_ADDRESS = 320
MAX_VALUE = 4096

MAX_WORD = 64
"""Characters of a status, an error code, and whatever else a table knows."""

MAX_TEXT = 16_384
"""Characters of what a person wrote."""


def text_of(value: object) -> str:
    """A scalar as text; empty for everything else."""
    # Nearly all values are strings; asking for the type first saves a call for each.
    return value if type(value) is str else scalar_text(value) or ""


def bounded(value: object, limit: int = MAX_VALUE) -> str:
    """A scalar as text of at most ``limit`` characters; empty for everything else."""
    return text_of(value)[:limit]


def word_of(value: object, field: str) -> str:
    """A provider's word in lower case, without what surrounds it; empty where there is none. Raises MalformedError for
    one that is too long."""
    word = text_of(value).strip().lower()
    if len(word) > MAX_WORD:
        raise MalformedError(f"{field} is longer than {MAX_WORD} characters.")
    return word


def id_of(value: object, field: str) -> str:
    """A provider's id, without what surrounds it; empty where there is none. Raises MalformedError for one that is too
    long: cut, it would be another's."""
    text = text_of(value).strip()
    if len(text) > MAX_ID:
        raise MalformedError(f"{field} is longer than {MAX_ID} characters.")
    return text
