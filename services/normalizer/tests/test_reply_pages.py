"""Lists of replies whose texts are as large as they may be."""

from __future__ import annotations

import msgspec
from backhaul_channels import EventKind
from backhaul_common.sizes import MAX_EVENT_BYTES, PAGE_BYTES
from backhaul_normalizer.reads import MongoReads
from backhaul_proto.event.v1.event_pb2 import Event
from layoutreads import commit, newest
from normalizer_rig import Rig
from tellings import told

LARGE = Event(raw=bytes(MAX_EVENT_BYTES - 1024)).SerializeToString()


async def test_pages_of_replies_end_before_they_are_too_large_for_an_answer(town: Rig) -> None:
    facts = [
        told(key=str(number), kind=EventKind.INBOUND, name=f"R{number}", provisional=False, arrived=100 + number // 2)
        for number in range(20)
    ]
    for fact in facts:
        # What a reply is stored with besides makes each of them a little larger.
        await commit(town, msgspec.structs.replace(fact, payload=fact.payload + LARGE))
    reads, seen, token, pages = MongoReads(town.database), list[str](), "", 0
    while True:
        rows, token = await reads.replies("acme.1", {}, (0, 0), 500, token)
        assert sum(len(row["payload"]) for row in rows) <= PAGE_BYTES
        seen += [row["_id"] for row in rows]
        pages += 1
        if not token:
            break
    assert seen == newest(facts)
    assert pages == 3
