"""Protobuf's wire format, as far as it spares decoding what is already encoded."""

from __future__ import annotations

from collections.abc import Iterable

_LENGTH_DELIMITED = 2


def repeated(field_number: int, messages: Iterable[bytes]) -> bytes:
    """A serialised message whose only field, ``field_number`` (1 to 15), repeats the serialised ``messages``.

    In protobuf a message is its fields one after another: for each, a tag, a length, and the bytes.
    https://protobuf.dev/programming-guides/encoding/
    """
    tag = field_number << 3 | _LENGTH_DELIMITED
    parts: list[bytes] = []
    for message in messages:
        prefix = bytearray((tag,))
        length = len(message)
        while length > 0x7F:
            prefix.append(length & 0x7F | 0x80)
            length >>= 7
        prefix.append(length)
        parts += (bytes(prefix), message)
    return b"".join(parts)
