"""A channel whose settings a newer version wrote: those that are known here hold."""

from __future__ import annotations

from backhaul_testing import make
from normalizer_rig import Rig


async def test_settings_that_are_known_hold_beside_those_that_are_not(rig: Rig) -> None:
    acme = make.tenant("acme", twilio={"communication_keys": ["batch"], "newer": {"a": [1]}})
    await rig.register(acme)
    await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent"), query="campaign=no&batch=spring"))
    await rig.drained()
    assert [row["communication_id"] for row in await rig.rows("messages")] == ["spring"]
