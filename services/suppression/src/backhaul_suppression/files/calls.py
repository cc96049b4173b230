"""``Import`` and ``Export`` as the servicer serves them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from backhaul_common import metrics as catalogue
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lines.calls import FileCalls
from backhaul_common.lines.formats import FileFormat, format_of
from backhaul_common.lines.pace import MAX_SILENCE_S
from backhaul_common.lines.pieces import Pieces
from backhaul_common.metering import Metrics
from backhaul_common.places import Places
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import current_traceparent
from backhaul_common.vocabulary import Values
from backhaul_proto.suppression.v1 import suppression_pb2 as pb

from backhaul_suppression.commands import By
from backhaul_suppression.files.exporting import Export
from backhaul_suppression.files.importing import Import, Progress
from backhaul_suppression.files.statements import Defaults
from backhaul_suppression.messages import FAMILIES, KINDS, active_of, scope_of
from backhaul_suppression.model import Kind
from backhaul_suppression.ports import RowsQuery
from backhaul_suppression.validity import MAX_AHEAD_S

MAX_IMPORTS_OF_TENANT, MAX_IMPORTS = 2, 16
MAX_EXPORTS_OF_TENANT, MAX_EXPORTS = 2, 16

_FORMATS = Values(pb.FileFormat.DESCRIPTOR, FileFormat)


class ImportCalls:
    """Takes lists over."""

    def __init__(
        self,
        imports: Import,
        now_us: Callable[[], int],
        metrics: Metrics,
        *,
        max_silence_s: float = MAX_SILENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._imports = imports
        self._now_us = now_us
        self._lines = metrics.counter(catalogue.SUPPRESSION_IMPORT_LINES)
        self._calls = FileCalls(
            "imports", of_tenant=MAX_IMPORTS_OF_TENANT, of_all=MAX_IMPORTS, max_silence_s=max_silence_s, clock=clock
        )

    async def run(
        self, tenant: Tenant, by: By, first: pb.ImportRequest, others: AsyncIterator[pb.ImportRequest]
    ) -> AsyncGenerator[pb.ImportResponse, None]:
        """How far it is. ``first`` says what it is.

        See ``Import.run`` and ``FileCalls.run``; beside that INVALID_ARGUMENT names a field of the first request.
        """
        file_format, defaults = format_of(_FORMATS, first.format), self._defaults(tenant, by, first)

        def work(pieces: Pieces) -> AsyncGenerator[Progress, None]:
            return self._imports.run(pieces.read(), file_format, defaults, whole=lambda: pieces.whole)

        async with aclosing(self._calls.run(tenant.registration, first, others, work)) as told:
            before = Progress(0, 0, 0, 0, b"")
            async for progress in told:
                self._count(tenant.id, before, progress)
                before = progress
                yield _progress_message(progress)

    def _count(self, tenant_id: str, before: Progress, now: Progress) -> None:
        for outcome in ("changed", "unchanged", "refused"):
            self._lines.add(tenant_id, outcome, amount=getattr(now, outcome) - getattr(before, outcome))

    def _defaults(self, tenant: Tenant, by: By, first: pb.ImportRequest) -> Defaults:
        now_us = self._now_us()
        if not 0 <= first.effective_at_us <= now_us + MAX_AHEAD_S * 1_000_000:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                "The time is not between 1970 and now.",
                field="effective_at_us",
                fix="Pass unix time in microseconds, or nothing.",
            )
        kind = KINDS.value(first.kind, "kind") or Kind.MANUAL
        if kind is Kind.LEGAL and not by.operator:
            raise BackhaulError(
                Code.FORBIDDEN, "Only the operator suppresses for legal reasons.", field="kind", fix="Pass MANUAL."
            )
        return Defaults(
            tenant_id=tenant.id,
            registration=tenant.registration,
            now_us=now_us,
            kind=kind,
            family=FAMILIES.value(first.family, "family"),
            scope=scope_of(first.scope),
            effective_at_us=first.effective_at_us,
            operator=by.operator,
            author=by.author,
            traceparent=current_traceparent(),
            settings=tenant.suppression,
        )


class ExportCalls:
    """Writes lists."""

    def __init__(self, exports: Export) -> None:
        self._exports = exports
        self._places = Places("exports", of_tenant=MAX_EXPORTS_OF_TENANT, of_all=MAX_EXPORTS)

    async def run(self, tenant: Tenant, request: pb.ExportRequest) -> AsyncGenerator[pb.ExportResponse, None]:
        """The file in pieces. INVALID_ARGUMENT names the field; RATE_LIMITED; UNAVAILABLE."""
        file_format = format_of(_FORMATS, request.format)
        query = RowsQuery(
            family=FAMILIES.value(request.family, "family"),
            kind=KINDS.value(request.kind, "kind"),
            active=active_of(request.standing),
        )
        with self._places.taken(tenant.registration):
            running = self._exports.run(tenant.registration, file_format, query)
            async with aclosing(running) as pieces:
                async for piece in pieces:
                    yield pb.ExportResponse(data=piece)


def _progress_message(progress: Progress) -> pb.ImportResponse:
    return pb.ImportResponse(
        lines=progress.lines,
        changed=progress.changed,
        unchanged=progress.unchanged,
        refused=progress.refused,
        errors=progress.errors,
        done=progress.done,
    )
