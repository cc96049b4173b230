"""What audit knows: piles of events that become files, and sealed files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from backhaul_digests.model import Chain, ChainKey


class FileFormat(StrEnum):
    """How a file is written."""

    JSON_LINES = "jsonl"
    ARRAY = "array"


class PileKey(NamedTuple):
    """What goes into one file together: events of one channel and one chain."""

    registration: str
    channel: str
    chain: Chain

    @property
    def of(self) -> ChainKey:
        """Its chain."""
        return ChainKey(self.registration, self.chain)

    @property
    def id(self) -> str:
        """``acme.5c0e9d1f2a3b/events/sendgrid``."""
        return f"{self.registration}/{self.chain}/{self.channel}"


@dataclass(frozen=True, slots=True)
class Shape:
    """How a channel wants its files: see ``backhaul_channels.settings.AuditFiles``."""

    folder: str
    format: FileFormat = FileFormat.JSON_LINES
    gzip: bool = False
    with_event: bool = False
    flat: bool = False
    encrypted: bool = False
    """What is personal is encrypted, under a key per person."""


class EventId(NamedTuple):
    """What lies in exactly one file."""

    id: str
    revision: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A file before it is there: where it will lie, and which positions of EVENTS it covers.

    It is recorded before anything is uploaded. Whoever takes over after a crash makes the very same file: the same
    ``key``, of the pile's messages from ``first`` to ``last`` (both included). Of several who upload it only one
    succeeds, so there is one object, whoever it was.
    """

    id: str
    pile: PileKey
    tenant_id: str
    destination: str
    """Empty: the installation's bucket; otherwise the channel's key, whose own bucket it is."""
    bucket: str
    key: str
    shape: Shape
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds. Times are unix time in microseconds, of arrival; hashes are SHA-256 in hex."""

    events: int
    bytes: int
    sha256: str
    inflated_bytes: int
    inflated_sha256: str
    first_at_us: int
    last_at_us: int


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file that is whole and in its place.

    ``number`` is its place in its chain, from 1, in the order of sealing. ``digest`` is the number of the digest that
    lists it, 0 before there is one; ``deleted_at_us`` is 0 while it is there.
    """

    plan: Plan
    content: Content
    number: int
    sealed_at_us: int
    digest: int = 0
    deleted_at_us: int = 0
