"""Filing, with copies as processes on real servers: events become files, whatever happens meanwhile."""

from __future__ import annotations

from backhaul_proto.callback.v1 import callback_pb2
from filing_rig import Rig, asking, event


async def test_events_become_files(filing: Rig) -> None:
    """One message, one file each of a channel; what a channel without files brings lies in none."""
    acme = asking("acme", gzip=True)
    await filing.register(acme)
    first = [event(acme, f"a{number}") for number in range(300)]
    second = [event(acme, f"b{number}", channel="twilio") for number in range(10)]
    later = [event(acme, f"c{number}", source=callback_pb2.SOURCE_BACKFILL) for number in range(5)]
    await filing.publish(acme, *first)
    await filing.publish(acme, *second)
    await filing.publish(acme, *later)
    filing.start()
    await filing.sealed(315)
    files = await filing.check([*first, *second, *later])
    assert {file.plan.pile.id for file in files} == {
        "acme.1/events/sendgrid",
        "acme.1/events/twilio",
        "acme.1/backfill/sendgrid",
    }
