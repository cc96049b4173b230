"""``AddMembers`` as the servicer serves it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from backhaul_common.lines.calls import FileCalls
from backhaul_common.lines.formats import FileFormat, format_of
from backhaul_common.lines.pace import MAX_SILENCE_S
from backhaul_common.lines.pieces import Pieces
from backhaul_common.tenants import Tenant
from backhaul_common.vocabulary import Values
from backhaul_proto.normalizer.v1 import communications_pb2 as pb

from backhaul_normalizer.communications.adding import Adding, Progress
from backhaul_normalizer.communications.files.reading import MemberFile
from backhaul_normalizer.communications.validation import checked_id

MAX_OF_TENANT, MAX_AT_ONCE = 4, 16

_FORMATS = Values(pb.MemberFormat.DESCRIPTOR, FileFormat)


class AddCalls:
    """Takes members over."""

    def __init__(
        self,
        adding: Adding,
        *,
        max_silence_s: float = MAX_SILENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adding = adding
        self._calls = FileCalls(
            "calls that add members",
            of_tenant=MAX_OF_TENANT,
            of_all=MAX_AT_ONCE,
            max_silence_s=max_silence_s,
            clock=clock,
        )

    async def run(
        self, tenant: Tenant, first: pb.AddMembersRequest, others: AsyncIterator[pb.AddMembersRequest]
    ) -> AsyncGenerator[pb.AddMembersResponse, None]:
        """How far it is. ``first`` says what it is.

        See ``Adding.run`` and ``FileCalls.run``; beside that INVALID_ARGUMENT names a field of the first request.
        """
        batch_id, file_format = checked_id(first.batch_id, "batch_id"), format_of(_FORMATS, first.format)

        def work(pieces: Pieces) -> AsyncGenerator[Progress, None]:
            file = MemberFile(file_format)
            return self._adding.run(tenant, batch_id, pieces.read(), file, whole=lambda: pieces.whole)

        async with aclosing(self._calls.run(tenant.registration, first, others, work)) as told:
            async for progress in told:
                yield _progress_message(progress)


def _progress_message(progress: Progress) -> pb.AddMembersResponse:
    return pb.AddMembersResponse(
        lines=progress.lines,
        added=progress.added,
        changed=progress.changed,
        unchanged=progress.unchanged,
        refused=progress.refused,
        errors=progress.errors,
        done=progress.done,
    )
