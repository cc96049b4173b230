"""Members that are sent again, since the call that brought them died before it could answer."""

from __future__ import annotations

import pytest
from backhaul_channels import EventKind
from normalizer_rig import Rig
from rosters import Copy, Rosters
from tellings import ARRIVED_US, batch_of, told


@pytest.mark.parametrize("closed", [False, True])
async def test_who_sends_members_again_need_not_wait_for_their_messages(town: Rig, *, closed: bool) -> None:
    rosters, dead, copy = Rosters(town), Copy(town), Copy(town)
    await rosters.communication("spring")
    await rosters.batch("spring", "b1", at_us=ARRIVED_US)
    fact = told(kind=EventKind.SENT, recipient="a@example.com", query="communicationId=spring")
    await copy.store.commit(batch_of([fact]), [])
    await rosters.member(dead, "b1", "k1", [("sendgrid", "a@example.com")], dies=True)
    if closed:
        await rosters.close(dead, "b1")
    assert await rosters.counted() == {"b1": {}}
    await rosters.member(copy, "b1", "k1", [("sendgrid", "a@example.com")])
    assert await rosters.checked() == {"b1": {"Sent": 1}}
    assert (await rosters.stored("b1"))["status"] == ("complete" if closed else "open")
