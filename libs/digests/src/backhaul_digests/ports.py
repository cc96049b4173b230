"""What the checks need: what is stored, and keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol


class Place(NamedTuple):
    """Where an object lies. ``destination`` is the channel whose own ``bucket`` it is, empty for the installation's."""

    destination: str
    bucket: str
    key: str

    @property
    def name(self) -> str:
        """What people are told."""
        return f"{self.bucket}/{self.key}" if self.bucket else self.key


class NotThereError(Exception):
    """There is no such object, or its bucket cannot be read: the text says which, in a sentence."""


class Stored(Protocol):
    """A bucket, or copies of one."""

    @property
    def bucket(self) -> str:
        """The bucket of the digests; empty where copies do not tell."""
        ...

    def digests(self, prefix: str) -> AsyncIterator[str]:
        """The keys of all objects that begin with ``prefix`` where the digests are."""
        ...

    def read(self, place: Place) -> AsyncIterator[bytes]:
        """An object's bytes. ``NotThereError`` where there is none, or its bucket cannot be read; whatever else is
        raised ends the check."""
        ...


class PublicKeys(Protocol):
    """The public keys that digests were ever signed with."""

    async def public(self, key_id: str) -> bytes | None:
        """32 bytes; None where there is no such key."""
        ...
