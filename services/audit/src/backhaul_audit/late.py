"""Objects that come into being when nobody waits for them any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from backhaul_common.errors import BackhaulError
from backhaul_common.logs import get_logger

from backhaul_audit.model import Plan
from backhaul_audit.ports import Objects


class Late:
    """Whoever gives an upload up does not stop it: the client's thread goes on. Where its tenant is gone by then, what
    it has stored is deleted here: the documents by which others would find it may be gone as well."""

    def __init__(self, gone: Callable[[str], bool]) -> None:
        """``gone``: whether a registration is."""
        self._gone = gone
        self._watching: set[asyncio.Task[None]] = set()
        self._log = get_logger(component="uploads")

    async def created(self, objects: Objects, plan: Plan, creating: Coroutine[None, None, bool]) -> bool:
        """What ``creating`` returns, which stores the file of ``plan``. Cancelled, it is watched to its end."""
        upload = asyncio.ensure_future(creating)
        try:
            return await asyncio.shield(upload)
        except asyncio.CancelledError:
            watching = asyncio.create_task(self._watch(objects, plan, upload), name=f"late_{plan.id}")
            self._watching.add(watching)
            watching.add_done_callback(self._watching.discard)
            raise

    async def _watch(self, objects: Objects, plan: Plan, upload: asyncio.Future[bool]) -> None:
        try:
            stored = await upload
        except BackhaulError:
            stored = True  # Nobody knows.
        if not stored or not self._gone(plan.pile.registration):
            return
        try:
            until = await objects.delete(plan.key)
        except BackhaulError as exc:
            self._log.error("object_left_behind", registration=plan.pile.registration, key=plan.key, error=str(exc))
            return
        if until is not None:
            held = f"A lock holds it until {until.isoformat(timespec='seconds')}."
            self._log.error("object_left_behind", registration=plan.pile.registration, key=plan.key, error=held)
