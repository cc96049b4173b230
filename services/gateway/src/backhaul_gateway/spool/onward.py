"""The way on of what lies on the disk: to JetStream, or nowhere where its tenant is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import new_callback_id
from backhaul_common.metering import Counter
from backhaul_common.outages import Repeated
from backhaul_proto.callback.v1.callback_pb2 import Callback

from backhaul_gateway.ports import CallbackLog
from backhaul_gateway.spool.file import Kept


class Onward:
    """See the module."""

    def __init__(self, direct: CallbackLog, lives: Callable[[Callback], bool], drained: Counter) -> None:
        """``direct`` is JetStream; ``lives`` says whether a callback's tenant is still there, UNAVAILABLE while nobody
        knows, or it must wait; ``drained`` counts, with an outcome, what need not be kept any more."""
        self._direct = direct
        self._lives = lives
        self._drained = drained
        self._refused = Repeated("spooled_callback_refused", component="spool")

    async def publish(self, rows: Mapping[int, Kept]) -> dict[int, Kept]:
        """Try each of ``rows`` once; those that need not be kept any more. One that is refused keeps no other."""
        answers = await asyncio.gather(*(self._one(row) for row in rows.values()))
        done = {position: row for (position, row), gone in zip(rows.items(), answers, strict=True) if gone}
        if done:
            self._refused.over()
        return done

    async def _one(self, row: Kept) -> bool:
        try:
            if not self._lives(Callback.FromString(row.encoded)):
                self._drained.add("deleted")
                return True
            # Under an id of its own: a message of several is known by its first one's, and JetStream would drop those
            # that share one now with a callback that it has, after all, from before.
            await self._direct.publish(row.subject, new_callback_id(), row.encoded, row.traceparent)
        except BackhaulError as exc:
            if exc.code is not Code.UNAVAILABLE:
                self._refused.error(str(exc), subject=row.subject)
            return False
        self._drained.add("stored")
        return True
