"""Replays that are asked for, and what there is to be replayed: what tests of them share."""

from __future__ import annotations

from typing import Any

from backhaul_common import jetstream
from backhaul_common.documents import Document
from backhaul_common.names import (
    DEAD_LETTERS_COLLECTION,
    EVENTS_STREAM,
    REPLAYS_COLLECTION,
)
from backhaul_common.tenants import Tenant
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from backhaul_testing import make
from backhaul_testing.waiting import until
from normalizer_rig import Rig
from storedbooks import stored_books

ACME, GLOBEX = make.tenant("acme"), make.tenant("globex")


async def begin(rig: Rig, of: str = "acme", **fields: Any) -> pb.Replay:
    values = {"kind": pb.REPLAY_KIND_CALLBACKS, "channel": "twilio", "from_us": 1, "author": "test", **fields}
    return (await rig.replays.BeginReplay(pb.BeginReplayRequest(tenant_id=of, **values))).replay


async def get(rig: Rig, of: str, id_: str) -> pb.Replay:
    return (await rig.replays.GetReplay(pb.GetReplayRequest(tenant_id=of, id=id_))).replay


async def over(rig: Rig, begun: pb.Replay, of: str = "acme") -> pb.Replay:
    async def probe() -> pb.Replay | None:
        found = await get(rig, of, begun.id)
        return found if found.ended_at_us else None

    return await until("the replay is over", probe)


async def replayed(rig: Rig, of: str = "acme", **fields: Any) -> pb.Replay:
    """A replay that came to its end."""
    found = await over(rig, await begin(rig, of, **fields), of)
    assert found.state == pb.REPLAY_STATE_DONE, found
    assert found.percent == 100
    return found


async def everything(rig: Rig) -> tuple[dict[str, Any], list[Document], list[Event]]:
    """States, counts, events, dead letters, and what was published."""
    books = await stored_books(rig)
    letters = await rig.database[DEAD_LETTERS_COLLECTION].find(sort=[("_id", 1)]).to_list(None)
    return vars(books), letters, await rig.published()


def correspondence(of: Tenant) -> list[Callback]:
    """Many messages with several states each, some told twice, and what cannot be read."""
    told = [
        make.callback(of, make.twilio(f"SM{number}", status), query=f"communicationId=c{number % 3}")
        for number in range(40)
        for status in ("sent", "delivered", "delivered")
    ]
    return [*told, make.callback(of, "no=status")]


async def forgotten(rig: Rig, of: str = "acme") -> None:
    """As if a setting that was wrong had kept all events from being made: nothing but the stream has the callbacks."""
    for name in await rig.database.list_collection_names():
        if name not in ("tenants", "meta", REPLAYS_COLLECTION):
            await rig.database[name].delete_many({"registration": f"{of}.1"})
    # A new one remembers no message ids either: what is told again soon would pass for what it was told before.
    await rig.nats.jetstream().delete_stream(EVENTS_STREAM)
    await jetstream.ensure_streams(rig.nats.jetstream(), rig.settings)


MAPPING: dict[str, Any] = {
    "mapping": {"message_id": "data.ref", "status": "data.outcome"},
    "statuses": {"arrived": "delivered"},
}
