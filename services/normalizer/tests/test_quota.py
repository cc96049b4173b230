"""Open dead letters are bounded by tenant, and nothing of what is filed is lost to it."""

from __future__ import annotations

import msgspec
from backhaul_common.names import DEAD_LETTERS_COLLECTION
from backhaul_normalizer.model import Rejection
from backhaul_normalizer.normalize import MAX_REJECTED
from backhaul_normalizer.quota import BoundedDeadLetters
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig

MOST = 5


def rejection(number: int, *, seq: int = 0, registration: str = "acme.1", channel: str = "twilio") -> Rejection:
    tenant = registration.partition(".")[0]
    return Rejection(
        id=f"{registration}-{number}",
        tenant=tenant,
        registration=registration,
        path=f"path-{tenant}",
        channel=channel,
        provider=channel,
        reason=f"bad {number}",
        callback=b"",
        seen_at_us=1_000_000 + number,
        stream_seq=seq or number + 1,
    )


async def test_beyond_the_quota_one_letter_counts(rig: Rig) -> None:
    await rig.register(make.tenant("acme"), make.tenant("other"))
    now = 0.0
    store = MongoEventStore(rig.client, rig.database)
    await store.prepare()
    bounded = BoundedDeadLetters(store, rig.database, MOST, lambda: now)
    letters = rig.database[DEAD_LETTERS_COLLECTION]
    await bounded.commit([], [rejection(n) for n in range(3)])
    await bounded.commit([], [rejection(n) for n in range(3, 9)])
    rows = {row["_id"]: row async for row in letters.find({})}
    kept = {f"acme.1-{n}" for n in range(MOST)}
    assert kept < rows.keys()
    (summary,) = [row for key, row in rows.items() if key not in kept]
    assert (summary["occurrences"], summary["state"], summary["channel"]) == (4, "open", "twilio")
    assert "bad 8" in summary["reason"]
    # What is filed already counts as before, however many others there are.
    await bounded.commit([], [msgspec.structs.replace(rejection(0), stream_seq=50), rejection(90, seq=51)])
    assert (await letters.find_one({"_id": "acme.1-0"}) or {})["occurrences"] == 2
    assert (await letters.find_one({"_id": summary["_id"]}) or {})["occurrences"] == 5
    # Somebody else, and another channel's summary.
    other = [rejection(n, registration="other.1") for n in range(MOST)]
    await bounded.commit([], [*other, rejection(91, seq=52, channel="sendgrid")])
    assert await letters.count_documents({"registration": "other.1"}) == MOST
    assert await letters.count_documents({"registration": "acme.1", "channel": "sendgrid"}) == 1
    # Closing some makes room.
    await letters.update_many({"_id": {"$in": sorted(kept)}}, {"$set": {"state": "discarded"}})
    now = 60.0
    await bounded.commit([], [rejection(92, seq=53)])
    assert await letters.find_one({"_id": "acme.1-92"}) is not None


async def test_a_small_post_makes_few_dead_letters(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    body = b"[" + b",".join(b"{}" for _ in range(100)) + b"]"
    await rig.publish(acme, make.callback(acme, body, channel="sendgrid"))
    few = b"[" + b",".join(b'{"a":%d}' % n for n in range(MAX_REJECTED)) + b"]"
    await rig.publish(acme, make.callback(acme, few, channel="sendgrid"))
    await rig.drained()
    found = (await rig.stub.ListDeadLetters(pb.ListDeadLettersRequest(tenant_id="acme"))).dead_letters
    assert len(found) == 1 + MAX_REJECTED <= 11
    whole = [one for one in found if one.reason.startswith("100 of its events")]
    assert len(whole) == 1
    # All of it is there, in one piece.
    letter = (await rig.stub.GetDeadLetter(pb.GetDeadLetterRequest(tenant_id="acme", id=whole[0].id))).dead_letter
    assert letter.callback.body == body
