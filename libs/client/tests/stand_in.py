"""A real gRPC server that keeps the contract of suppression as far as a client can tell, and fails when told to."""

# ruff: noqa: N802  # gRPC dictates the methods' names

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.rpc.errors import DETAILS_KEY, to_details
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_proto.suppression.v1.suppression_pb2_grpc import (
    SuppressionServiceServicer,
    add_SuppressionServiceServicer_to_server,
)

SINCE_US = 1_790_000_000_000_000
TOKEN = "bhs_0123456789ab_secret-half"
STOPPED, FREE, WRONG = "+15005550001", "+15005550002", "nobody"


class Asked(NamedTuple):
    """One call, as it came."""

    method: str
    request: Any
    metadata: dict[str, str]
    left_s: float | None


class StandIn(SuppressionServiceServicer):
    """Knows who is ``suppressed``, by tenant and address. ``failures`` are what the next calls raise; while ``open`` is
    cleared, calls that have come wait."""

    def __init__(self) -> None:
        self.suppressed: set[tuple[str, str]] = set()
        self.asked: list[Asked] = []
        self.failures: deque[BackhaulError | grpc.StatusCode | None] = deque()
        self.open = asyncio.Event()
        self.open.set()
        self.came = asyncio.Condition()
        self.keys: dict[str, pb.Suppression] = {}
        self.changes: list[pb.Change] = []
        self.moved = asyncio.Condition()
        self.watching = 0
        self.batches_until_end = -1
        """A CheckStream is ended as UNAVAILABLE after so many answers."""

    @property
    def methods(self) -> list[str]:
        """The methods of all calls, in order."""
        return [one.method for one in self.asked]

    async def have_come(self, count: int) -> None:
        """Returns when that many calls have come."""
        async with asyncio.timeout(60), self.came:
            await self.came.wait_for(lambda: len(self.asked) >= count)

    async def _begin(self, method: str, request: Any, context: Any) -> None:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        async with self.came:
            self.asked.append(Asked(method, request, metadata, context.time_remaining()))
            self.came.notify_all()
        failure = self.failures.popleft() if self.failures else None
        if isinstance(failure, BackhaulError):
            await abort(context, failure)
        if isinstance(failure, grpc.StatusCode):
            await context.abort(failure, "It is written so.")
        await self.open.wait()

    def _result(self, tenant_id: str, address: str) -> pb.CheckResult:
        if not address.startswith("+"):
            return pb.CheckResult(
                verdict=pb.VERDICT_INVALID,
                error=pb.ItemError(field="address", message="It is no number.", fix="Send it as E.164."),
            )
        if (tenant_id, address) not in self.suppressed:
            return pb.CheckResult(verdict=pb.VERDICT_ALLOWED)
        row = pb.Blocking(
            suppression_id="0" * 32,
            kind=pb.SUPPRESSION_KIND_STOP,
            scope=pb.Scope(kind=pb.SCOPE_KIND_ALL),
            since_us=SINCE_US,
            event_id="e" * 32,
        )
        return pb.CheckResult(verdict=pb.VERDICT_SUPPRESSED, blocking=[row])

    async def Check(self, request: pb.CheckRequest, context: Any) -> pb.CheckResponse:
        """See the contract."""
        await self._begin("Check", request, context)
        result = self._result(request.tenant_id, request.address)
        if result.verdict == pb.VERDICT_INVALID:
            error = result.error
            await abort(context, BackhaulError(Code.INVALID_ARGUMENT, error.message, field=error.field, fix=error.fix))
        return pb.CheckResponse(verdict=result.verdict, blocking=result.blocking)

    async def CheckBatch(self, request: pb.CheckBatchRequest, context: Any) -> pb.CheckBatchResponse:
        """See the contract."""
        await self._begin("CheckBatch", request, context)
        if len(request.items) > 10_000:
            await abort(context, BackhaulError(Code.INVALID_ARGUMENT, "Too many.", field="items"))
        return pb.CheckBatchResponse(results=self._results(request.tenant_id, request.items))

    def _results(self, tenant_id: str, items: Any) -> Iterator[pb.CheckResult]:
        for item in items:
            result = self._result(tenant_id, item.address)
            result.correlation_id = item.correlation_id
            yield result

    async def CheckStream(
        self, request: AsyncIterator[pb.CheckStreamRequest], context: Any
    ) -> AsyncIterator[pb.CheckStreamResponse]:
        """See the contract."""
        await context.send_initial_metadata(())
        tenant_id = ""
        async for one in request:
            await self._begin("CheckStream", one, context)
            tenant_id = tenant_id or one.tenant_id
            if self.batches_until_end == 0:
                self.batches_until_end = -1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "It is written so.")
            self.batches_until_end -= 1
            yield pb.CheckStreamResponse(results=self._results(tenant_id, one.items))

    async def Add(self, request: pb.AddRequest, context: Any) -> pb.AddResponse:
        """See the contract."""
        changed = request.idempotency_key not in self.keys
        if changed:
            # As the real one, it may fail when the change has been made.
            row = pb.Suppression(
                id="1" * 32,
                family=request.family,
                address=request.address,
                kind=request.kind,
                scope=request.scope,
                active=True,
                since_us=request.effective_at_us or SINCE_US,
                recorded_at_us=SINCE_US,
                origin=pb.ORIGIN_TENANT,
                source=request.source,
                author="service:0123",
                due_by_us=SINCE_US + 1,
                blocks=[pb.PURPOSE_MARKETING, pb.PURPOSE_TRANSACTIONAL],
            )
            self.keys[request.idempotency_key] = row
            self.suppressed.add((request.tenant_id, request.address))
            await self.change(row)
        await self._begin("Add", request, context)
        return pb.AddResponse(suppression=self.keys[request.idempotency_key], changed=changed)

    async def change(self, row: pb.Suppression) -> None:
        """One more change of that row."""
        async with self.moved:
            row.position = len(self.changes) + 1
            fact = pb.Fact(id=f"{row.position:032}", effective_at_us=row.since_us, recorded_at_us=SINCE_US)
            self.changes.append(pb.Change(position=row.position, suppression=row, fact=fact, at_us=SINCE_US))
            self.moved.notify_all()

    async def Lift(self, request: pb.LiftRequest, context: Any) -> pb.LiftResponse:
        """See the contract."""
        await self._begin("Lift", request, context)
        if not request.HasField("evidence"):
            await abort(context, BackhaulError(Code.FAILED_PRECONDITION, "A stop is the person's to lift."))
        self.suppressed.discard((request.tenant_id, request.address))
        row = pb.Suppression(address=request.address, kind=request.kind, since_us=request.evidence.at_us)
        return pb.LiftResponse(suppression=row, changed=True)

    async def Reactivate(self, request: pb.ReactivateRequest, context: Any) -> pb.ReactivateResponse:
        """See the contract."""
        await self._begin("Reactivate", request, context)
        return pb.ReactivateResponse(suppressions=[pb.Suppression(kind=pb.SUPPRESSION_KIND_HARD_BOUNCE)])

    async def Get(self, request: pb.GetRequest, context: Any) -> pb.GetResponse:
        """See the contract."""
        await self._begin("Get", request, context)
        history = [one for one in reversed(self.changes) if one.suppression.address == request.address]
        first = int(request.page_token or 0)
        last = first + request.page_size
        return pb.GetResponse(
            address=request.address,
            family=request.family,
            suppressions=[history[0].suppression] if history else [],
            history=history[first:last],
            next_page_token=str(last) if len(history) > last else "",
        )

    async def List(self, request: pb.ListRequest, context: Any) -> pb.ListResponse:
        """See the contract."""
        await self._begin("List", request, context)
        rows = [one.suppression for one in reversed(self.changes)]
        first = int(request.page_token or 0)
        last = first + request.page_size
        return pb.ListResponse(suppressions=rows[first:last], next_page_token=str(last) if len(rows) > last else "")

    async def Import(self, request: AsyncIterator[pb.ImportRequest], context: Any) -> AsyncIterator[pb.ImportResponse]:
        """A line that begins with ``bad`` is refused. See the contract."""
        await context.send_initial_metadata(())
        rest, lines, refused = b"", 0, 0
        async for one in request:
            await self._begin("Import", one, context)
            *whole, rest = (rest + one.data).split(b"\n")
            bad = [line for line in whole if line.startswith(b"bad")]
            lines, refused = lines + len(whole), refused + len(bad)
            errors = b"".join(line + b"\n" for line in bad)
            yield pb.ImportResponse(lines=lines, changed=lines - refused, refused=refused, errors=errors)
        yield pb.ImportResponse(lines=lines, changed=lines - refused, refused=refused, done=True)

    async def Export(self, request: pb.ExportRequest, context: Any) -> AsyncIterator[pb.ExportResponse]:
        """See the contract."""
        await context.send_initial_metadata(())
        await self._begin("Export", request, context)
        yield pb.ExportResponse(data=b"address\n")
        for tenant_id, address in sorted(self.suppressed):
            if tenant_id == request.tenant_id:
                yield pb.ExportResponse(data=address.encode() + b"\n")
        if self.failures:
            await context.abort(self.failures.popleft(), "It is written so.")

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchResponse]:
        """See the contract."""
        await context.send_initial_metadata(())
        await self._begin("Watch", request, context)
        position = request.after_position if request.HasField("after_position") else len(self.changes)
        self.watching += 1
        try:
            yield pb.WatchResponse(position=position)
            while True:
                async with self.moved:
                    while len(self.changes) <= position and not self.failures:
                        await self.moved.wait()
                    if self.failures:
                        failure = self.failures.popleft()
                        assert isinstance(failure, grpc.StatusCode)
                        await context.abort(failure, "It is written so.")
                    change = self.changes[position]
                position += 1
                wanted = not request.kinds or change.suppression.kind in request.kinds
                yield pb.WatchResponse(change=change if wanted else None, position=position)
        finally:
            self.watching -= 1


async def abort(context: Any, error: BackhaulError) -> None:
    """As the service does."""
    await context.abort(error.meaning.grpc_status, error.message, trailing_metadata=((DETAILS_KEY, to_details(error)),))


@asynccontextmanager
async def serving(service: StandIn, listen: str = "127.0.0.1:0", *, ping_s: float = 2.0) -> AsyncIterator[int]:
    """The port of a server with ``service``, which takes a ping of a connection every ``ping_s``."""
    pings = ("grpc.http2.min_ping_interval_without_data_ms", round(ping_s * 1000))
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), pings])
    add_SuppressionServiceServicer_to_server(service, server)
    port = server.add_insecure_port(listen)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)
