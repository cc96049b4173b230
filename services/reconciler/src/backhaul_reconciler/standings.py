"""How it stands with each of a tenant's channels: whether its provider is asked, and whether anything is heard of what
is sent on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import RECONCILED_CHANNELS_COLLECTION
from backhaul_common.tenants import Channel, Tenant

from backhaul_reconciler import offers
from backhaul_reconciler.knowing import Knowing, Known, Unasked
from backhaul_reconciler.model import Standing


class Silence(StrEnum):
    """Whether anything is heard of what is sent."""

    NONE = "none"
    SILENT = "silent"
    CANNOT_BE_TOLD = "cannot_be_told"


@dataclass(frozen=True, slots=True)
class Activity:
    """Unix time in microseconds, 0 where there is none: when the latest message was sent on a channel, and since when
    it is silent."""

    sent_at_us: int = 0
    silent_since_us: int = 0


class Activities(Protocol):
    """What the normalizer knows of channels."""

    async def of(self, tenant_id: str) -> Mapping[str, Activity]:
        """Of the channels on which anything was sent or heard, by key. NOT_FOUND; UNAVAILABLE."""
        ...


@dataclass(frozen=True, slots=True)
class ChannelStanding:
    """One channel: see ``Channel`` of the contract. ``silence`` is None where no callbacks are expected."""

    channel: str
    standing: Standing
    text: str = ""
    asked_at_us: int = 0
    due_at_us: int = 0
    discovered_to_us: int = 0
    silence: Silence | None = None
    silent_since_us: int = 0
    report_id: str = ""


class Standings:
    """Reads ``reconciled_channels``; of channels that have no document there, their settings say why."""

    def __init__(self, database: mongo.Database, knowing: Knowing, activities: Activities) -> None:
        self._database = database
        self._knowing = knowing
        self._activities = activities

    async def of(self, tenant: Tenant) -> Sequence[ChannelStanding]:
        """All of the tenant's channels, by key. UNAVAILABLE."""
        query = {"registration": tenant.registration}
        async with mongo.operation():
            rows = await self._database[RECONCILED_CHANNELS_COLLECTION].find(query).to_list(None)
        by_channel: Mapping[str, Document] = {row["channel"]: row for row in rows}
        activities = await self._activities.of(tenant.id)
        return [
            self._one(tenant, channel, by_channel.get(key, {}), activities.get(key, Activity()))
            for key, channel in sorted(tenant.channels.items())
        ]

    def _one(self, tenant: Tenant, channel: Channel, row: Document, activity: Activity) -> ChannelStanding:
        known = self._knowing.channel(tenant, channel)
        standing, text = (known.standing, known.text) if isinstance(known, Unasked) else _asked(row)
        settings = self._knowing.settings(channel)
        silence = _silence(activity) if settings is None or not settings.reconcile.poll_only else None
        return ChannelStanding(
            channel=channel.key,
            standing=standing,
            text=text,
            asked_at_us=row.get("asked_at_us", 0),
            due_at_us=_due(row) if isinstance(known, Known) else 0,
            discovered_to_us=_discovered(known, row),
            silence=silence,
            silent_since_us=activity.silent_since_us if silence is Silence.SILENT else 0,
            report_id=row.get("run", ""),
        )


def _asked(row: Document) -> tuple[Standing, str]:
    if not row:
        return Standing.ASKED, "It is asked for the first time within a minute."
    return Standing.of(row["standing"]), row["text"]


def _due(row: Document) -> int:
    """When it is asked next. One that must be asked as soon as may be is due since that became so."""
    due_us: int = row.get("due_at_us", 0)
    since_us: int = max(row.get("changed_at_us", 0), row.get("called", {}).get("asked_at_us", 0))
    return max(due_us, since_us) if "due_at_us" in row else 0


def _silence(activity: Activity) -> Silence:
    if activity.silent_since_us:
        return Silence.SILENT
    return Silence.NONE if activity.sent_at_us else Silence.CANNOT_BE_TOLD


def _discovered(known: Known | Unasked, row: Document) -> int:
    """Up to when all of the channel's lists are known that are offered; 0 where one of them is not known at all."""
    if isinstance(known, Unasked):
        return 0
    return offers.discovered_us(row, known.puller.listings(known.ask.settings))
