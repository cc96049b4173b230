"""Runs that somebody asks for: a wish in the channel's document, which whoever holds the account fulfils."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.fence import living
from backhaul_common.names import RECONCILED_CHANNELS_COLLECTION
from backhaul_common.tenants import Tenant

from backhaul_reconciler.channels import Channels, is_active, runs_of
from backhaul_reconciler.documents import BEFORE_ALL
from backhaul_reconciler.knowing import Knowing, Known, Unasked
from backhaul_reconciler.model import DAY_US, Begun, Cause
from backhaul_reconciler.ports import Reports


class MongoCalls:
    """``Calls``."""

    def __init__(
        self,
        database: mongo.Database,
        channels: Channels,
        knowing: Knowing,
        reports: Reports,
        now_us: Callable[[], int],
    ) -> None:
        self._database = database
        self._channels = channels
        self._knowing = knowing
        self._reports = reports
        self._now_us = now_us

    async def ask(self, tenant: Tenant, channel: str, span: tuple[int, int], *, dry_run: bool) -> str:
        """See ``Calls``."""
        known = self._knowing.channel(tenant, tenant.channels[channel])
        if isinstance(known, Unasked):
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                known.why,
                field="channel",
                fix=known.fix or "Ask about another channel.",
            )
        if not is_active(tenant):
            raise BackhaulError(
                Code.FAILED_PRECONDITION, "The tenant is not active.", field="tenant_id", fix="Have it activated."
            )
        now_us = self._now_us()
        from_us, to_us = span
        _require_reach(known, from_us, now_us)
        await self._channels.sync()
        begun = Begun(uuid4().hex, Cause.CALL, from_us, to_us, now_us, dry_run)
        called = {"id": begun.id, "from_us": from_us, "to_us": to_us, "dry_run": dry_run, "asked_at_us": now_us}
        begin = self._reports.begin(known.of, begun)

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> list[str]:
            """The reports of the runs that were there before, or else of the one that begins; none where the channel is
            gone."""
            lives = living(database, session, [tenant.id]).get(tenant.id)
            if lives is None or lives.registration != tenant.registration:
                return []
            channels = database[RECONCILED_CHANNELS_COLLECTION]
            query = {"_id": known.of.id, "called": {"$exists": False}, "running.cause": {"$ne": Cause.CALL.value}}
            found = channels.update_one(query, {"$set": {"called": called, "due_at_us": BEFORE_ALL}}, session=session)
            if not found.matched_count:
                return runs_of(channels.find_one({"_id": known.of.id}, session=session))
            begin(database, session)
            return [begun.id]

        async with mongo.translated():
            runs = await mongo.in_transaction(self._database, work)
        if begun.id in runs:
            return begun.id
        if not runs:
            raise BackhaulError(
                Code.NOT_FOUND, "The channel is gone.", field="channel", fix="Ask about one that is there."
            )
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            "A run of the channel is under way.",
            field="channel",
            fix=f"Wait until it has ended: the report {' or '.join(runs)} says so.",
        )


def _require_reach(known: Known, from_us: int, now_us: int) -> None:
    """Refuse a span of which the provider would tell a part only, and which would seem complete. INVALID_ARGUMENT names
    ``from_us``."""
    days = known.puller.reaches_back_days
    if from_us >= now_us - days * DAY_US:
        return
    # A minute later, so that it still holds when it is sent.
    earliest = datetime.fromtimestamp(now_us // 1_000_000 - days * 86_400 + 60, UTC)
    raise BackhaulError(
        Code.INVALID_ARGUMENT,
        f"{known.channel.provider} tells of nothing that is further back than {days} days.",
        field="from_us",
        fix=f"Begin at {earliest:%Y-%m-%dT%H:%M:%SZ} or later.",
    )
