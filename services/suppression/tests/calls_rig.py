"""What the tests of calls say to suppression, and how they are refused."""

from __future__ import annotations

from typing import Any

import pytest
from backhaul_common.errors import BackhaulError
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_testing import make
from service_rig import ANNA, now_us

ACME, GLOBEX = make.tenant("acme"), make.tenant("globex")
EVIDENCE_SOURCE = pb.SOURCE_WEB
STOP, MANUAL, LEGAL = pb.SUPPRESSION_KIND_STOP, pb.SUPPRESSION_KIND_MANUAL, pb.SUPPRESSION_KIND_LEGAL


def adding(**fields: Any) -> pb.AddRequest:
    return pb.AddRequest(**{"tenant_id": "acme", "address": ANNA, "kind": STOP, **fields})


def lifting(**fields: Any) -> pb.LiftRequest:
    return pb.LiftRequest(**{"tenant_id": "acme", "address": ANNA, "kind": STOP, **fields})


def consent(at_us: int = 0, **fields: Any) -> pb.Evidence:
    return pb.Evidence(**{"source": EVIDENCE_SOURCE, "at_us": at_us or now_us(), "reference": "form 1", **fields})


async def refused(call: Any) -> BackhaulError:
    with pytest.raises(BackhaulError) as caught:
        await call
    return caught.value
