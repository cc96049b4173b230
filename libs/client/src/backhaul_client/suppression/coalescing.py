"""Single checks that wait at the same moment become one call.

A check goes out at once, by itself, while no other one of its tenant, family and sending is under way. Those that come
meanwhile are gathered, until that one is answered or ``MAX_GATHER_S`` is over: one that hangs holds up nobody. So there
are never more calls than there would be without, and a caller that is alone waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context, copy_context
from typing import NamedTuple, TypeAlias

from backhaul_proto.suppression.v1 import suppression_pb2 as pb

from backhaul_client.errors import BackhaulError, UnexpectedAnswerError, UnreachableError
from backhaul_client.suppression.connection import Connection
from backhaul_client.suppression.errors import invalid
from backhaul_client.suppression.models import Family, Sending

MAX_GATHER_S = 0.002
"""How long a check waits for others while one is under way."""

MAX_GATHERED = 1000
"""Checks in one call."""

MAX_ADDRESS_CHARACTERS = 512
"""A longer address, which cannot be valid, is asked for by itself, so that it fails nobody else's call."""

Key: TypeAlias = tuple[str, Family | None, Sending]
Result: TypeAlias = pb.CheckResponse | pb.CheckResult


class _Waiting(NamedTuple):
    request: pb.CheckRequest
    ends_at: float
    result: asyncio.Future[Result | BackhaulError]
    context: Context
    """It holds the caller's trace: a call of many belongs to that of the first."""


class _Lane:
    """The checks of one key: how many calls are under way, and who waits for the next one."""

    __slots__ = ("timer", "under_way", "waiting")

    def __init__(self) -> None:
        self.under_way = 1
        self.waiting: list[_Waiting] = []
        self.timer: asyncio.TimerHandle | None = None


class Coalescing:
    """The checks of one client."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lanes: dict[Key, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, key: Key, request: pb.CheckRequest, ends_at: float) -> Result:
        """The result of one check. Raises a BackhaulError: InvalidArgumentError for what is wrong with this one."""
        lane = self._lanes.get(key)
        if lane is not None and len(request.address) <= MAX_ADDRESS_CHARACTERS:
            return await self._join(key, lane, request, ends_at)
        if lane is not None:
            return await self._alone(request, ends_at)
        self._lanes[key] = lane = _Lane()
        try:
            return await self._alone(request, ends_at)
        finally:
            self._landed(key, lane)

    async def close(self) -> None:
        """End what is under way; those who wait get an error."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self._lanes.values():
            if lane.timer is not None:
                lane.timer.cancel()
            _tell(lane.waiting, UnreachableError("Check: the client was closed."))
        self._lanes.clear()

    async def _alone(self, request: pb.CheckRequest, ends_at: float) -> Result:
        answer: pb.CheckResponse = await self._connection.unary("Check", request, ends_at)
        return answer

    async def _join(self, key: Key, lane: _Lane, request: pb.CheckRequest, ends_at: float) -> Result:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, ends_at, loop.create_future(), copy_context())
        lane.waiting.append(waiting)
        if len(lane.waiting) >= MAX_GATHERED:
            self._leave(key, lane)
        elif lane.timer is None:
            lane.timer = loop.call_later(MAX_GATHER_S, self._leave, key, lane)
        try:
            async with asyncio.timeout_at(ends_at):
                outcome = await waiting.result
        except TimeoutError:
            raise UnreachableError("Check: no answer came in time.") from None
        if isinstance(outcome, BackhaulError):
            # One error is told to many; each has a traceback of its own.
            raise outcome.with_traceback(None)
        if isinstance(outcome, pb.CheckResult) and outcome.verdict == pb.VERDICT_INVALID:
            raise invalid(outcome.error.field, outcome.error.message, outcome.error.fix)
        return outcome

    def _leave(self, key: Key, lane: _Lane) -> None:
        """Send whoever waits, if anybody does."""
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        waiting = [one for one in lane.waiting if not one.result.done()]
        lane.waiting = []
        if waiting:
            lane.under_way += 1
            task = asyncio.get_running_loop().create_task(
                self._fly(key, lane, waiting), name="suppression-checks", context=waiting[0].context
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _landed(self, key: Key, lane: _Lane) -> None:
        lane.under_way -= 1
        self._leave(key, lane)
        if not lane.under_way and self._lanes.get(key) is lane:
            del self._lanes[key]

    async def _fly(self, key: Key, lane: _Lane, waiting: Sequence[_Waiting]) -> None:
        try:
            first, ends_at = waiting[0].request, max(one.ends_at for one in waiting)
            request = pb.CheckBatchRequest(
                tenant_id=first.tenant_id,
                items=[pb.CheckItem(address=one.request.address) for one in waiting],
                family=first.family,
                sending=first.sending,
            )
            answer: pb.CheckBatchResponse = await self._connection.unary("CheckBatch", request, ends_at)
            if len(answer.results) != len(waiting):
                raise UnexpectedAnswerError(f"{len(answer.results)} results for {len(waiting)} addresses.")
            for one, result in zip(waiting, answer.results, strict=True):
                if not one.result.done():
                    one.result.set_result(result)
        except BackhaulError as exc:
            _tell(waiting, exc)
        finally:
            # Whatever else has ended this: nobody may wait for an answer that will not come.
            _tell(waiting, UnreachableError("Check: the call was ended."))
            self._landed(key, lane)


def _tell(waiting: Sequence[_Waiting], error: BackhaulError) -> None:
    for one in waiting:
        if not one.result.done():
            one.result.set_result(error)
