"""Questions by themselves: what answering many costs others."""

from __future__ import annotations

import pytest
from backhaul_common.metering import Metrics
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_suppression.checks import Checks
from backhaul_suppression.index import Index
from backhaul_suppression.lease import Lease
from backhaul_testing import make


class Turns(Index):
    """Rows of nobody, which count how often an answer was made sure of before others had a turn."""

    turns = 0

    def fresh(self) -> None:
        self.turns += 1
        super().fresh()


@pytest.mark.parametrize("tail", ["", " "])
async def test_addresses_that_are_slow_to_read_keep_nobody_waiting(tail: str) -> None:
    lease = Lease(lambda: 0.0)
    lease.extend(0.0)
    rows = Turns(lease)
    # Four labels of a domain that is none yet in the DNS' own letters, each different: some 300 µs each. With the tail
    # they are no addresses.
    slow = [f"\u00e4{number}@" + ".".join([tail + "\u00fc" * 50] * 4) + f"{number}.example" for number in range(900)]
    items = [pb.CheckItem(address=text, correlation_id=str(number)) for number, text in enumerate(slow)]
    response = pb.CheckBatchResponse()
    asked = pb.CheckBatchRequest(tenant_id="acme", items=items)
    await Checks(rows, Metrics("test")).many(make.tenant("acme"), asked, response)
    assert [one.correlation_id for one in response.results] == [item.correlation_id for item in items]
    assert {one.verdict for one in response.results} == {pb.VERDICT_INVALID if tail else pb.VERDICT_ALLOWED}
    assert rows.turns >= (2 if tail else 10)
