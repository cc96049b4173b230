"""What communications need from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from backhaul_common.tenants import Tenant


class SentMessage(NamedTuple):
    """A message that was sent to a destination of a member, as whoever added the member tells."""

    channel: str
    message_id: str
    recipient: str
    member_key: str


class Sends(Protocol):
    """Makes known what was sent."""

    async def publish(self, tenant: Tenant, communication_id: str, batch_id: str, sent: Sequence[SentMessage]) -> None:
        """Returns when all of it is on its way to states and events. Done twice, it is done once. UNAVAILABLE."""
        ...


class Consequences(Protocol):
    """What follows from what was committed. Each can be done again at any time; UNAVAILABLE."""

    async def of_members(self, batch: bytes, members: Sequence[bytes]) -> None:
        """Have messages that wait for these members, by ``_id``, linked to them, of the batch of that key."""
        ...

    async def of_batch(self, batch: bytes) -> None:
        """Complete the batch of that key where what completes it is so."""
        ...
