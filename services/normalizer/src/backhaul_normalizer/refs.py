"""Where the events of a message lie, and what must be known of them without looking there: a few bytes each.

A message's document has the references of its events in one binary field. So the document that a batch must read
anyway tells which of the batch's events are stored already, and where all of the message's are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntFlag
from typing import NamedTuple

MAX_REFS = 128
"""References in a message's document; what else belongs to the message has an entry each. Providers tell ten or twenty
events of a message."""

_FORM = struct.Struct("<16s12sBBBx8sIqqq")
REF_BYTES = _FORM.size


class Mark(IntFlag):
    """What must be known of an event where its reference is read."""

    PROVISIONAL = 1
    """It uses a further name of its message."""
    ONCE = 2
    """Its kind happens to a message once."""
    DUPLICATE = 4
    """It counts as another one."""
    ENTRY = 8
    """It has an entry, too."""
    REVISED = 16
    """A later callback changed it, or moved it."""
    BY_MACHINE = 32
    """No person brought it about."""


class Ref(NamedTuple):
    """One event, by its id, and where it is: in the bucket of that id, at ``slot``.

    ``kind`` is the number of the contract's EventKind, and ``marks`` are of ``Mark``. ``digest`` is that of what was
    told, ``size`` the bytes of the payload when it was referred to, and ``stream_seq`` the position in CALLBACKS of
    what brought it first.
    """

    id: bytes
    bucket: bytes
    slot: int
    kind: int
    marks: int
    digest: bytes
    size: int
    occurred_at_us: int
    received_at_us: int
    stream_seq: int


def pack(refs: Iterable[Ref]) -> bytes:
    """``refs`` one after another, ``REF_BYTES`` each."""
    return b"".join([_FORM.pack(*ref) for ref in refs])


def unpack(packed: bytes) -> Iterator[Ref]:
    """The references in ``packed``."""
    return map(Ref._make, _FORM.iter_unpack(packed))
