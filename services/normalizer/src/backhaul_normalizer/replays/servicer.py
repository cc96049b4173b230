"""gRPC to replays and back; nothing is decided here."""

from __future__ import annotations

from typing import Any

from backhaul_common.documents import Document
from backhaul_common.vocabulary import Words
from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from backhaul_proto.normalizer.v1.replays_pb2_grpc import ReplayServiceServicer

from backhaul_normalizer.replays.tasks import KINDS, Replays, takes_s

_STATES = Words(pb.ReplayState.DESCRIPTOR)
_OUTCOMES = Words(pb.ReplayOutcome.DESCRIPTOR)
_COUNTS = frozenset(pb.ReplayCounts.DESCRIPTOR.fields_by_name)
"""Others are a newer copy's."""


class ReplayServicer(ReplayServiceServicer):
    """``backhaul_proto.normalizer.v1.ReplayService``. Errors are BackhaulErrors, which the edge translates."""

    def __init__(self, replays: Replays) -> None:
        self._replays = replays

    async def BeginReplay(self, request: pb.BeginReplayRequest, context: Any) -> pb.BeginReplayResponse:
        """Begin one."""
        return pb.BeginReplayResponse(replay=_replay(await self._replays.begin(request)))

    async def GetReplay(self, request: pb.GetReplayRequest, context: Any) -> pb.GetReplayResponse:
        """One, as far as it is."""
        return pb.GetReplayResponse(replay=_replay(await self._replays.get(request.tenant_id, request.id)))

    async def ListReplays(self, request: pb.ListReplaysRequest, context: Any) -> pb.ListReplaysResponse:
        """Newest first."""
        rows, token = await self._replays.list(request.tenant_id, request.page_size, request.page_token)
        return pb.ListReplaysResponse(replays=map(_replay, rows), next_page_token=token)

    async def CancelReplay(self, request: pb.CancelReplayRequest, context: Any) -> pb.CancelReplayResponse:
        """End one."""
        return pb.CancelReplayResponse(replay=_replay(await self._replays.cancel(request.tenant_id, request.id)))


def _replay(row: Document) -> pb.Replay:
    return pb.Replay(
        id=row["_id"],
        kind=KINDS.number(row["kind"]),
        channel=row["channel"],
        reason=row["reason"],
        from_us=row["from_us"],
        to_us=row["to_us"],
        dry_run=row["dry_run"],
        state=_STATES.number(row["state"]),
        text=_text(row),
        percent=_percent(row),
        counts=pb.ReplayCounts(**{name: count for name, count in row["counts"].items() if name in _COUNTS}),
        examples=[
            pb.ReplayExample(outcome=_OUTCOMES.number(one["outcome"]), id=one["id"], event_kind=one["kind"])
            for one in row.get("examples", ())
        ],
        stored_since_us=row.get("stored_since_us", 0),
        author=row["author"],
        created_at_us=row["created_at_us"],
        ended_at_us=row.get("ended_at_us", 0),
        rate_per_s=row.get("rate_per_s", 0),
        takes_s=takes_s(row) if row["kind"] == "callbacks" else 0,
    )


def _text(row: Document) -> str:
    """Why it waits or stopped, and whether it came too late for something: that stays, whatever becomes of it."""
    overtaken = "Callbacks may have left the stream before they were read." if row.get("overtaken") else ""
    return " ".join(filter(None, (row["text"], overtaken)))


def _percent(row: Document) -> int:
    """By the positions in the stream, or by the dead letters' ids, which are spread evenly."""
    if row["state"] == "done":
        return 100
    if row["at"] is None:
        return 0
    if row["kind"] == "callbacks":
        return int(100 * (row["at"] - row["first"]) / max(1, row["last"] + 1 - row["first"]))
    return int(row["at"][:2], 16) * 100 // 256
