"""What leaves the stream before a replay comes to it is said."""

from __future__ import annotations

from typing import Any

import pytest
from backhaul_common.names import CALLBACKS_STREAM
from backhaul_common.tenants import Tenant
from backhaul_normalizer.replays import callbacks
from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig
from replay_rig import ACME, replayed

OVERTAKEN = "Callbacks may have left the stream before they were read."


@pytest.mark.parametrize(
    ("at_page", "gone", "left", "said"),
    [
        pytest.param(1, 0, 4, False, id="nothing goes"),
        # What lies between two of the channel's own is another's.
        pytest.param(2, 1, 4, False, id="what was read goes"),
        pytest.param(1, 3, 2, True, id="goes before it begins"),
        pytest.param(2, 3, 3, True, id="goes in the middle"),
        pytest.param(2, 5, 1, True, id="all that is left goes"),
    ],
)
async def test_what_leaves_the_stream_before_it_is_read_is_said(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, at_page: int, gone: int, left: int, said: bool
) -> None:
    monkeypatch.setattr(callbacks, "PAGE_MESSAGES", 1)
    await rig.register(ACME)
    positions, arrived_us = [], []
    for number in range(5):
        one = make.callback(ACME, make.twilio(f"SM{number}", "sent"))
        if number == 1:
            one = make.callback(ACME, make.sendgrid({"event": "delivered"}), channel="sendgrid")
        positions.append(await rig.publish(ACME, one))
        arrived_us.append(one.received_at_us)
    await rig.drained()
    page, pages = callbacks.CallbackPages.page, 0

    async def late(self: callbacks.CallbackPages, held: Any, tenant: Tenant) -> Any:
        nonlocal pages
        pages += 1
        if gone and pages == at_page:
            await rig.nats.jetstream().purge_stream(CALLBACKS_STREAM, seq=positions[gone - 1] + 1)
        return await page(self, held, tenant)

    monkeypatch.setattr(callbacks.CallbackPages, "page", late)
    found = await replayed(rig)
    assert (found.counts.callbacks, found.text) == (left, OVERTAKEN if said else "")
    if said:
        assert found.stored_since_us >= arrived_us[min(gone, 4)]
    else:
        assert found.stored_since_us < arrived_us[1]
    listed = await rig.replays.ListReplays(pb.ListReplaysRequest(tenant_id="acme"))
    assert [one.text for one in listed.replays] == [found.text]
