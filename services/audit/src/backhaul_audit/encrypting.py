"""Lines in which what is personal is encrypted, under a key per person. ``decrypting`` opens them again.

A line is the same however often it is made, as long as the person's key is: AES-SIV (RFC 5297) needs no nonce, and
takes what stands in clear beside it, the event's id and revision, so that no line passes for another event's.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence

import msgspec
from backhaul_common.times import time_of
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event

from backhaul_audit.keyring import Keyring
from backhaul_audit.lines import Lines, associated, wording

MAX_TEXT = 128
"""Characters of a text that a provider or a tenant chose, and that stands in clear."""

_MIN_TELLING = 5
"""Characters of an address that cannot stand in a text by chance."""

_encode = msgspec.json.Encoder().encode


class Public(msgspec.Struct):
    """What is no person's, and stands in clear: fields of the normalised event, as ``Lines`` writes them."""

    id: str
    revision: int
    kind: str | None
    channel: str
    provider: str
    provider_status: str | None
    error_code: str | None
    error_class: str | None
    occurred_at: str | None
    received_at: str | None
    source: str | None
    communication_id: str | None
    by_machine: bool


class EncryptedLines:
    """Writes lines as ``Lines`` does, and encrypts them."""

    def __init__(self, lines: Lines, keyring: Keyring) -> None:
        self._lines = lines
        self._keyring = keyring
        self._kind = wording(event_pb2.EventKind.DESCRIPTOR)
        self._error_class = wording(event_pb2.ErrorClass.DESCRIPTOR)
        self._source = wording(callback_pb2.Source.DESCRIPTOR)

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

    def _in_clear(self, event: Event) -> Public:
        told = event.recipient.rpartition(":")[2].strip().lstrip("+").casefold()
        return Public(
            event.id,
            event.revision,
            self._kind(event.kind),
            event.channel,
            event.provider,
            _telling_nobody(event.provider_status, told),
            _telling_nobody(event.error_code, told),
            self._error_class(event.error_class),
            time_of(event.occurred_at_us),
            time_of(event.received_at_us),
            self._source(event.source),
            _telling_nobody(event.communication_id, told),
            event.by_machine,
        )


def _telling_nobody(text: str, address: str) -> str | None:
    """A text that a provider or a tenant chose; None where it could name whoever has the ``address``, or anybody."""
    if not text:
        return text
    if len(text) > MAX_TEXT or "@" in text or (len(address) >= _MIN_TELLING and address in text.casefold()):
        return None
    return text
