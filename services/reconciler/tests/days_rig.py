"""A day that is over, and what happens to a channel's rig as time goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asking_rig import Copy, Rig

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

DAY = "2026-03-29"
BEGIN_US = 1_774_742_400 * SECOND_US
"""Its first moment."""

NOON_AFTER_US = BEGIN_US + 2 * DAY_US + 12 * HOUR_US


def both(rig: Rig, message_id: str, state: str, at_us: int) -> None:
    """A message whose callback came."""
    rig.api.send(message_id, state, at_us)
    rig.normalizer.hear("acme", message_id, state, at_us + 3 * SECOND_US)


async def turns(rig: Rig, at_us: int) -> Copy:
    """All that is due of the tenant at a time; what it told is processed."""
    copy = rig.copy()
    await copy.channels.sync()
    await rig.due()
    await copy.until_done(at_us=at_us)
    await rig.normalizer.process()
    return copy
