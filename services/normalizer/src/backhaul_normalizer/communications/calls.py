"""``AddMembers`` as the servicer serves it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lines.formats import FileFormat
from backhaul_common.lines.pace import MAX_SILENCE_S, Pace
from backhaul_common.lines.pieces import Pieces
from backhaul_common.places import Places
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
        self._pace = partial(Pace, clock, max_silence_s)
        self._places = Places("calls that add members", of_tenant=MAX_OF_TENANT, of_all=MAX_AT_ONCE)

    async def run(
        self, tenant: Tenant, first: pb.AddMembersRequest, others: AsyncIterator[pb.AddMembersRequest]
    ) -> AsyncGenerator[pb.AddMembersResponse, None]:
        """How far it is. ``first`` says what it is.

        See ``Adding.run``; beside that INVALID_ARGUMENT names a field of the first request, RATE_LIMITED where there
        are too many already, DEADLINE_EXCEEDED where the caller is slower than ``Pace`` bears.
        """
        batch_id = checked_id(first.batch_id, "batch_id")
        file_format = _FORMATS.value(first.format, "format")
        if file_format is None:
            raise BackhaulError(
                Code.INVALID_ARGUMENT, "format is missing.", field="format", fix="Pass CSV or JSON_LINES."
            )
        with self._places.taken(tenant.registration):
            pace = self._pace()
            pieces = Pieces(first, others, pace)
            running = self._adding.run(
                tenant, batch_id, pieces.read(), MemberFile(file_format), whole=lambda: pieces.whole
            )
            async with aclosing(running) as told:
                async for progress in told:
                    answer = _progress_message(progress)
                    with pace.waiting():
                        yield answer
                    pace.moved(len(answer.errors))


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
