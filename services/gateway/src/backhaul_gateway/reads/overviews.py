"""``GET /admin/v1/overview``: all tenants at a glance, the worst first.

Which is the worst is known when all have been looked at. So all are looked at, a few at a time, when somebody asks and
the last look is over for long enough; whoever asks meanwhile is told what is known.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import cancel
from backhaul_common.tenants import Tenant
from fastapi import APIRouter, Query

from backhaul_gateway.ports import ObjectStorage, TenantStreams
from backhaul_gateway.reads.overview import Away, Overview
from backhaul_gateway.reads.overviewmodels import (
    InstallationAtAGlance,
    OverviewPage,
    ProblemOut,
    ServiceAtAGlance,
    Standing,
    TenantAtAGlance,
)
from backhaul_gateway.reads.status import problem_of

FRESH_S = 30.0
"""For how long what was found is told again."""

WAIT_S = 5.0
"""How long an answer waits for all tenants to be looked at."""

_AT_ONCE = 8
MAX_A_PAGE = 200

_SERVICES = ("normalizer", "suppression", "audit", "reconciler", "notifier")
_CURSOR = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})\.([a-z0-9_-]{1,64})")

_Rank = tuple[int, int, str]


class Overviews:
    """What was found of all tenants when it was last looked. Belongs to one event loop."""

    def __init__(
        self,
        overview: Overview,
        tenants: Callable[[], Mapping[str, Tenant]],
        *,
        streams: TenantStreams,
        callbacks_waiting: Callable[[], Awaitable[int]],
        check_store: Callable[[], Awaitable[None]],
        object_storage: ObjectStorage,
    ) -> None:
        self._overview = overview
        self._tenants = tenants
        self._streams = streams
        self._callbacks_waiting = callbacks_waiting
        self._check_store = check_store
        self._object_storage = object_storage
        self._found: dict[str, tuple[float, TenantAtAGlance]] = {}
        self._away = Away()
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = -math.inf  # A clock that counts from the machine's start may be below FRESH_S.

    def add_to(self, router: APIRouter) -> None:
        """Add the one route."""
        router.add_api_route("", self.page, methods=["GET"], response_model=OverviewPage)

    async def close(self) -> None:
        """Look no further."""
        if self._looking is not None:
            await cancel(self._looking)

    async def page(
        self,
        limit: Annotated[int, Query(ge=1, le=MAX_A_PAGE)] = 50,
        cursor: Annotated[str, Query(max_length=80, description="next_cursor of the page before.")] = "",
    ) -> OverviewPage:
        """Every tenant's channels at a glance, the worst tenant first, with each problem in words, and where to look.

        What was found is told again for half a minute. What a service that is away would say is missing, and all else
        is there.
        """
        behind = _rank_of(cursor) if cursor else None
        installation, _ = await asyncio.gather(self._installation(), self._fresh())
        tenants = self._tenants()
        known = [row for row in self._found.values() if row[1].tenant in tenants]
        ranked = sorted(((_rank(row), row) for _, row in known), key=lambda pair: pair[0])
        rest = [pair for pair in ranked if behind is None or pair[0] > behind]
        shown = rest[:limit]
        oldest = min((at for at, _ in known), default=None)
        installation.services = self._services()
        return OverviewPage(
            asked_since=datetime.fromtimestamp(oldest, UTC) if oldest is not None else None,
            tenants=len(tenants),
            asked=len(known),
            with_errors=sum(1 for (errors, _, _), _ in ranked if errors),
            with_warnings=sum(1 for (errors, warnings, _), _ in ranked if warnings and not errors),
            installation=installation,
            worst_first=[row for _, row in shown],
            next_cursor=_text_of(shown[-1][0]) if len(rest) > limit else None,
        )

    async def _fresh(self) -> None:
        """Look at all tenants, unless it was done just now; no longer than ``WAIT_S``."""
        if self._looking is None:
            if time.monotonic() - self._looked_at < FRESH_S:
                return
            self._looking = asyncio.create_task(self._look(), name="overview")
        await asyncio.wait((self._looking,), timeout=WAIT_S)

    async def _look(self) -> None:
        try:
            away = self._away = Away()
            tenants = dict(self._tenants())
            left = iter(tenants.values())

            async def some() -> None:
                for tenant in left:
                    found = await self._overview.of(tenant, away)
                    self._found[tenant.id] = time.time(), found

            heard = [self._overview.hear(tenant, away) for tenant in list(tenants.values())[:1]]
            await asyncio.gather(*heard, *(some() for _ in range(_AT_ONCE)))
            self._found = {key: row for key, row in self._found.items() if key in tenants}
            self._looked_at = time.monotonic()
        finally:
            self._looking = None

    def _services(self) -> list[ServiceAtAGlance]:
        away = self._away

        def state(name: str) -> Standing:
            return "not_installed" if name in away.missing else "away" if name in away.said else "ok"

        return [ServiceAtAGlance(name=name, state=state(name), text=away.said.get(name)) for name in _SERVICES]

    async def _installation(self) -> InstallationAtAGlance:
        waiting: int | None = None

        async def count() -> None:
            nonlocal waiting
            waiting = await self._callbacks_waiting()

        parts: dict[str, tuple[Callable[[], Awaitable[None]], str]] = {
            "queue": (self._streams.check_room, "NATS, and docs/operations.md#streams"),
            "store": (self._check_store, "MongoDB"),
            "object_storage": (self._object_storage.check, "the bucket, and BACKHAUL_OBJECT_STORE_…"),
            "processing": (count, "the normalizer, and backhaul_normalizer_lag"),
        }
        if not self._object_storage.configured:
            del parts["object_storage"]
        found = await asyncio.gather(*(problem_of(name, check) for name, (check, _) in parts.items()))
        problems = [
            ProblemOut(severity="error", part=name, text=text, look=parts[name][1])
            for name, text in zip(parts, found, strict=True)
            if text is not None
        ]
        return InstallationAtAGlance(problems=problems, services=[], callbacks_waiting=waiting)


def _rank(row: TenantAtAGlance) -> _Rank:
    """What comes first where rows are sorted: most errors, then most warnings."""
    errors = sum(problem.severity == "error" for problem in row.problems)
    return -errors, -(len(row.problems) - errors), row.tenant


def _text_of(rank: _Rank) -> str:
    return f"{-rank[0]}.{-rank[1]}.{rank[2]}"


def _rank_of(cursor: str) -> _Rank:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "The cursor is none that an earlier page gave.",
            field="cursor",
            fix="Send next_cursor of the page before, unchanged, or no cursor to begin.",
        )
    return -int(found[1]), -int(found[2]), found[3]
