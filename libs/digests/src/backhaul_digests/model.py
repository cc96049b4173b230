"""Chains, their digests, and what is found of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Chain(StrEnum):
    """Files are numbered and signed by chains: see the contract."""

    EVENTS = "events"
    BACKFILL = "backfill"


class ChainKey(NamedTuple):
    """One chain of one life of a tenant."""

    registration: str
    chain: Chain

    @property
    def id(self) -> str:
        """``acme.5c0e9d1f2a3b/events``."""
        return f"{self.registration}/{self.chain}"


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest as it is recorded. ``line`` is what is signed: its bytes, without the line break; ``hash`` is its
    SHA-256 in hex. ``uploaded`` is false until the object is in its place."""

    of: ChainKey
    tenant_id: str
    number: int
    from_us: int
    to_us: int
    bucket: str
    key: str
    line: bytes
    hash: str
    key_id: str
    signature: str
    files: int
    deletions: int
    uploaded: bool = False


class Subject(StrEnum):
    """What a finding is about."""

    DIGEST = "digest"
    FILE = "file"
    SPAN = "span"


class Finding(NamedTuple):
    """What was found of one digest, file or span: see the contract. ``problem`` is empty where it is valid, ``chain``
    None for a hash that somebody kept and that no chain has."""

    chain: Chain | None
    subject: Subject
    name: str
    problem: str = ""
    detail: str = ""

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problem
