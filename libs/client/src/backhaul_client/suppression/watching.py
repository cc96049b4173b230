"""Changes as they happen, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any, Self

import grpc
from backhaul_proto.suppression.v1 import suppression_pb2 as pb

from backhaul_client.errors import BackhaulError, ProblemError, UnreachableError
from backhaul_client.suppression import wire
from backhaul_client.suppression.base import Base
from backhaul_client.suppression.connection import Connection, Headers, taken_up
from backhaul_client.suppression.errors import error_of, may_pass
from backhaul_client.suppression.models import Change, Family, Kind

_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 5.0
_LOG = logging.getLogger("backhaul_client.suppression")


class Watch:
    """``async for change in watch``: each change once, in the order of the positions.

    Whatever ends a connection, it goes on behind ``position``, for as long as it takes. Only what no waiting mends is
    raised: a caller that may not, a tenant that is gone.
    """

    def __init__(self, connection: Connection, request: pb.WatchRequest) -> None:
        self._connection = connection
        self._request = request
        self._call: Any = None
        self._headers = Headers((), "")
        self._pause_s = _FIRST_PAUSE_S
        self._closed = False

    @property
    def position(self) -> int | None:
        """Behind which to begin the next time: of the last change that came, or of one that was passed over later. None
        where nothing was heard yet of a watch that begins now."""
        return self._request.after_position if self._request.HasField("after_position") else None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        while not self._closed:
            try:
                answer = await self._read()
            except BackhaulError as exc:
                await self._rest(exc)
                continue
            self._pause_s = _FIRST_PAUSE_S
            known = self.position
            if known is None or answer.position > known:
                self._request.after_position = answer.position
                if answer.HasField("change"):
                    return wire.change(answer.change)
        raise StopAsyncIteration

    async def begun(self) -> None:
        """Return when ``position`` is known: of a watch that begins now, changes from then on are certain to come."""
        # The service's first answer tells it, and holds no change.
        while self.position is None and not self._closed:
            try:
                answer = await self._read()
            except BackhaulError as exc:
                await self._rest(exc)
            else:
                self._request.after_position = answer.position

    async def close(self) -> None:
        """End it."""
        self._closed = True
        self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _read(self) -> pb.WatchResponse:
        try:
            if self._call is None:
                self._headers = self._connection.headers()
                self._call = self._connection.pick().stub.Watch(self._request, metadata=self._headers.pairs)
                await taken_up(self._call, "Watch")
            answer: Any = await self._call.read()
        except grpc.aio.AioRpcError as exc:
            raise error_of(exc, "Watch", self._headers.trace_id) from exc
        except asyncio.CancelledError:
            # gRPC ends a call whose reader is cancelled. Nothing is lost: the position has not moved.
            self._end()
            self._connection.check_cancelled("Watch")
            raise
        if answer is grpc.aio.EOF:
            raise UnreachableError("Watch: the service ended it.")
        found: pb.WatchResponse = answer
        return found

    async def _rest(self, error: BackhaulError) -> None:
        """Wait before it goes on; raises what waiting does not mend."""
        self._end()
        if self._closed:
            return
        if self._connection.closed or not may_pass(error):
            raise error
        pause_s = self._connection.jittered(self._pause_s)
        self._pause_s = min(self._pause_s * 2, _MAX_PAUSE_S)
        if isinstance(error, ProblemError) and error.retry_after_s is not None:
            pause_s = max(pause_s, min(error.retry_after_s, _MAX_PAUSE_S))
        _LOG.info("suppression_watch: goes on behind %s in %.1f s: %s", self.position, pause_s, error)
        await asyncio.sleep(pause_s)

    def _end(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


class Watching(Base):
    """The call that waits for changes."""

    def watch(
        self,
        tenant_id: str,
        *,
        after: int | None = None,
        family: Family | None = None,
        kinds: Collection[Kind] = (),
    ) -> Watch:
        """Changes behind the position ``after``, and then as they happen: 0 is from the first one on, None from now
        on. Keep the watch's ``position`` when a change is dealt with, and begin there the next time."""
        request = pb.WatchRequest(
            tenant_id=tenant_id,
            after_position=after,
            family=wire.number(Family, family),
            kinds=[wire.number(Kind, kind) for kind in kinds],
        )
        return Watch(self._connection, request)
