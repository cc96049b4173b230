"""Lines in which what is personal is encrypted, under a key per person. ``decrypting`` opens them again.

A line is the same however often it is made, as long as the person's key is: AES-SIV (RFC 5297) needs no nonce, and
takes what stands in clear beside it, the event's id and revision, so that no line passes for another event's.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from backhaul_proto.event.v1.event_pb2 import Event

from backhaul_audit.keyring import Keyring
from backhaul_audit.lines import Lines, associated, writer_of

PUBLIC: Final = (
    "id",
    "revision",
    "kind",
    "channel",
    "provider",
    "provider_status",
    "error_code",
    "error_class",
    "occurred_at_us",
    "received_at_us",
    "source",
    "communication_id",
    "by_machine",
)
"""Fields of an event that are no person's, and stand in clear."""

_TEXTS = ("provider_status", "error_code", "communication_id")
"""Those of them that others choose."""

MAX_TEXT = 128
"""Characters of such a text that stands in clear."""

_MIN_TELLING = 5
"""Characters of an address that cannot stand in a text by chance."""

_encode = msgspec.json.Encoder().encode


class EncryptedLines:
    """Writes lines as ``Lines`` does, and encrypts them."""

    def __init__(self, lines: Lines, keyring: Keyring) -> None:
        self._lines = lines
        self._keyring = keyring
        self._public = writer_of(Event.DESCRIPTOR, PUBLIC)

    async def expect(self, batches: Iterable[tuple[str, Sequence[Event]]]) -> None:
        """Ask for the keys of all these at once: each are events of one registration. Raises as ``of`` does."""
        await self._keyring.learn(batches)

    async def of(self, registration: str, events: Sequence[Event], *, with_event: bool) -> list[bytes]:
        """A line each, without the line break. UNAVAILABLE; FAILED_PRECONDITION where keys cannot be decrypted."""
        people = await self._keyring.of(registration, events)
        plain = self._lines.of(events, with_event=with_event)
        lines = []
        for event, held, line in zip(events, people, plain, strict=True):
            public = _encode(self._in_clear(event))
            if held.cipher is None or event.received_at_us < held.erased_before_us:
                lines.append(b'{"event":%b,"person":null,"encrypted":null}' % public)
                continue
            encrypted = b64encode(held.cipher.encrypt(line, associated(event.id, event.revision)))
            lines.append(
                b'{"event":%b,"person":"%b","encrypted":"%b"}' % (public, held.key_id.encode("ascii"), encrypted)
            )
        return lines

    def _in_clear(self, event: Event) -> dict[str, Any]:
        fields = dict(self._public(event))
        for name in _TEXTS:
            if (text := fields[name]) and _may_tell(text, event.recipient):
                fields[name] = None
        return fields


def _may_tell(text: str, recipient: str) -> bool:
    """Whether a text that a provider or a tenant chose could name the person."""
    if len(text) > MAX_TEXT or "@" in text:
        return True
    bare = recipient.rpartition(":")[2].strip().lstrip("+")
    return len(bare) >= _MIN_TELLING and bare.casefold() in text.casefold()
