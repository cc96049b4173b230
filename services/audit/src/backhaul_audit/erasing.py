"""What audit does when a person is erased from every service: it destroys their key."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from backhaul_common.tenantdata import Asked, Kept, Receipt, no_address

from backhaul_audit.ports import Erased


class People(Protocol):
    """Who destroys keys."""

    async def erase(self, registration: str, address: str) -> Erased:
        """See ``ports.People``."""
        ...


class Files(Protocol):
    """Who knows which channels have files in clear."""

    async def plain_channels(self, registration: str) -> Collection[str]:
        """See ``ports.Files``."""
        ...


class ErasesKeys:
    """A ``RecipientData``: see docs/decisions/0027. Who was never filed leaves a tombstone as well, so that what is
    filed later, and arrived before, says nothing of them."""

    def __init__(self, people: People, files: Files) -> None:
        self._people = people
        self._files = files

    async def erase(self, asked: Asked) -> Receipt:
        """See ``TenantDataService.EraseRecipient``. What audit goes by is somewhat later than what is asked for."""
        if not asked.address.strip():
            raise no_address()
        plain = sorted(await self._files.plain_channels(asked.registration))
        erased = await self._people.erase(asked.registration, asked.address)
        kept = [
            Kept(
                "files",
                f"The files of the channel {channel} are signed, and were not encrypted per person: they stay as they "
                "are until their time is over.",
            )
            for channel in plain
        ]
        return Receipt(erased.before_us, {"keys": 1} if erased.destroyed else {}, kept)
