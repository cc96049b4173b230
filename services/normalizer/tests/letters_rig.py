"""Dead letters of two tenants, and replays of them: what tests of these share."""

from __future__ import annotations

from collections import Counter
from typing import Any

from backhaul_common.names import DEAD_LETTERS_COLLECTION
from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig
from replay_rig import MAPPING, replayed

ACME, GLOBEX = make.tenant("acme", mpulse={}), make.tenant("globex", mpulse={})
PERSON = "+15005550001"


async def told(rig: Rig, kind: pb.ReplayKind.ValueType, of: str = "acme", **fields: Any) -> pb.Replay:
    return await replayed(rig, of, kind=kind, **{"channel": "", "from_us": 0, **fields})


async def states(rig: Rig, **query: Any) -> Counter[str]:
    return Counter(row["state"] for row in await rig.rows(DEAD_LETTERS_COLLECTION, **query))


async def filed(rig: Rig) -> None:
    """Ten of mPulse and one of SendGrid, of each tenant."""
    await rig.register(ACME, GLOBEX)
    for of in (ACME, GLOBEX):
        for number in range(10):
            body = f'{{"data": {{"ref": "m{number}", "outcome": "arrived"}}}}'
            await rig.publish(of, make.callback(of, body, channel="mpulse"))
        await rig.publish(of, make.callback(of, f"[{PERSON}", channel="sendgrid"))
    await rig.drained()
    assert await states(rig) == {"open": 22}


async def mended(rig: Rig) -> None:
    """Acme's mPulse can be read."""
    await rig.register(make.tenant("acme", mpulse=MAPPING).model_copy(update={"revision": 2}))
