"""``/v1/suppressions/changes``: a page of what a watch tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import orjson
from backhaul_common.errors import unavailable
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from pydantic import BaseModel

from backhaul_gateway.twins.suppressions import CHANGE, ChangeOut
from backhaul_gateway.twins.turns import Steps

MAX_WAIT_S = 30.0
"""How long a question may wait for a change. Proxies often close what is silent for a minute."""

_FIRST_S = 2.0
"""How long the first answer of a watch may take, whatever the question waits for."""

_GAP_S = 0.05
"""Changes come together: what follows one within so long belongs to the same page."""


class ChangesOut(BaseModel):
    """Changes, in the order of their positions. Ask with ``after=next_position`` for what follows."""

    changes: list[ChangeOut]
    next_position: int


async def page_of(
    watch: AsyncIterator[pb.WatchResponse], after: int | None, limit: int, wait_s: float
) -> tuple[Sequence[pb.Change], int]:
    """At most ``limit`` changes of ``watch``, and the position behind which the next page begins.

    Returns when there are some and no more follow at once, or, where there are none, after ``wait_s``. UNAVAILABLE
    where the watch says nothing at all and ``after`` is not given.
    """
    changes: list[pb.Change] = []
    position = after
    now = asyncio.get_running_loop().time
    began = now()
    try:
        async with asyncio.timeout(max(wait_s, _FIRST_S)) as patience:
            async for answer in watch:
                position = answer.position
                if answer.HasField("change"):
                    changes.append(answer.change)
                    if len(changes) >= limit:
                        break
                    patience.reschedule(now() + _GAP_S)
                elif changes or now() - began >= wait_s:
                    break
                else:
                    patience.reschedule(began + wait_s)
    except TimeoutError:
        if not patience.expired():
            raise
    if position is None:
        raise unavailable("Suppression", retry_after_s=1.0)
    return changes, position


def changes_json(changes: Sequence[pb.Change], position: int) -> Steps[bytes]:
    """``ChangesOut`` of a page."""
    rows = []
    for change in changes:
        rows.append((yield from CHANGE.json(change)))
        yield
    return b'{"changes":[' + b",".join(rows) + b'],"next_position":' + orjson.dumps(position) + b"}"
