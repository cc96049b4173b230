"""What JetStream answers to a publish."""

from __future__ import annotations

from enum import Enum

import msgspec

# https://github.com/nats-io/nats-server/blob/main/server/errors.json
_TOO_LARGE_FOR_STREAM = 10054
_BATCH_HAS_DUPLICATE = 10201


class NotStoredError(ConnectionError):
    """JetStream did not store the message, and may store it later: the stream is full, or moving."""


class MessageRefusedError(Exception):
    """JetStream will never store this message."""


class Refused(Enum):
    """Whether a batch was refused. Nothing of it is stored by it then, whatever it was refused for."""

    NO = "stored"
    FOR_DUPLICATES = "it has a message that is stored already, or one twice"
    FOR_BEING_A_BATCH = "the stream takes no batches, is full, or did not get all of it"


class _Ack(msgspec.Struct):
    seq: int = 0
    error: dict[str, object] | None = None
    batch: str = ""
    count: int = 0


_decode = msgspec.json.Decoder(_Ack).decode


def refusal(data: bytes) -> NotStoredError | MessageRefusedError | None:
    """Why JetStream did not store a message; None when it did."""
    try:
        ack = _decode(data)
    except msgspec.DecodeError:
        return NotStoredError(f"unreadable acknowledgement {data[:200]!r}")
    if ack.seq and ack.error is None:
        return None
    refused = f"JetStream refused: {ack.error}"
    if _code(ack) == _TOO_LARGE_FOR_STREAM:
        return MessageRefusedError(refused)
    return NotStoredError(refused)


def batch_refused(data: bytes, batch_id: str, count: int) -> Refused:
    """Whether the batch of ``count`` messages was refused."""
    try:
        ack = _decode(data)
    except msgspec.DecodeError:
        return Refused.FOR_BEING_A_BATCH
    if ack.seq and ack.error is None and (ack.batch, ack.count) == (batch_id, count):
        return Refused.NO
    # A server that knows nothing of batches acknowledges the last message alone.
    return Refused.FOR_DUPLICATES if _code(ack) == _BATCH_HAS_DUPLICATE else Refused.FOR_BEING_A_BATCH


def _code(ack: _Ack) -> object:
    return ack.error.get("err_code") if ack.error is not None else None
