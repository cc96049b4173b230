"""What is left of messages and dead letters where the person is erased. Pure; ``backhaul_common.erased`` has events."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from backhaul_common.documents import Document
from backhaul_proto.callback.v1.callback_pb2 import Callback

LETTER_REASON = "The person whom it was about is erased, and with them what it held."

MESSAGE: Document = dict.fromkeys(("recipient", "address", "sender", "pair", "error_text", "error_url"), "")
"""What a message loses."""

_MIN_TELLING = 7
"""Characters of an address that hardly stand in a body by chance."""


class Telling:
    """Finds callbacks that could not be read and have somebody's address somewhere in them."""

    def __init__(self, spellings: Sequence[str]) -> None:
        found = {one.rpartition(":")[2].lstrip("+").casefold() for one in spellings}
        texts = {one for one in found if len(one) >= _MIN_TELLING or "@" in one}
        # No number is a part of a longer one; but zeros in front of it stand for a plus.
        each = [
            rf"(?:(?<![0-9])|(?<=00)){one}(?![0-9])" if one.isdecimal() else re.escape(one) for one in sorted(texts)
        ]
        self._pattern = re.compile("|".join(each).encode("utf-8", "surrogatepass")) if each else None

    def tells(self, callback: Callback) -> bool:
        """Whether it does."""
        if self._pattern is None:
            return False
        texts = (callback.body, unquote_to_bytes(callback.body), unquote_to_bytes(callback.url), callback.headers)
        return any(self._pattern.search(text.lower()) for text in texts)


def letter_without_person(callback: Callback) -> bytes:
    """What is kept of a dead letter's callback: by which it is known, and nothing that it held."""
    return Callback(
        id=callback.id,
        tenant_id=callback.tenant_id,
        registration=callback.registration,
        channel=callback.channel,
        provider=callback.provider,
        received_at_us=callback.received_at_us,
    ).SerializeToString()
