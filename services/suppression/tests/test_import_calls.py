"""Imports as they are served, apart from what becomes of the facts."""

from __future__ import annotations

from collections.abc import AsyncIterator

from backhaul_common.metrics import Metrics
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_suppression.commands import By
from backhaul_suppression.files.calls import ImportCalls
from backhaul_suppression.files.importing import CHUNK_LINES, Import
from backhaul_testing import make
from held_facts import HeldFacts


async def test_lines_are_counted_by_what_became_of_them() -> None:
    metrics, facts = Metrics("suppression"), HeldFacts()
    calls = ImportCalls(Import(facts, facts), lambda: 1_800_000_000_000_000, metrics)
    numbers = b"".join(b"+1415555%04d\n" % number for number in range(CHUNK_LINES + 10))

    async def requests() -> AsyncIterator[pb.ImportRequest]:
        yield pb.ImportRequest(tenant_id="acme", format=pb.FILE_FORMAT_CSV)
        yield pb.ImportRequest(data=b"address\n" + numbers + b"0151\n" * 3 + b"+14155550001\n")

    told = [one async for one in calls.run(make.tenant("acme"), By("key:1"), requests())]
    assert [one.lines for one in told] == [0, CHUNK_LINES, CHUNK_LINES + 14]
    lines = metrics.render().decode().splitlines()
    for outcome, count in (("changed", CHUNK_LINES + 10), ("unchanged", 1), ("refused", 3)):
        (line,) = (line for line in lines if "import_lines_total{" in line and f'outcome="{outcome}"' in line)
        assert 'tenant="acme"' in line
        assert float(line.rpartition(" ")[2]) == count
    metrics.close()
