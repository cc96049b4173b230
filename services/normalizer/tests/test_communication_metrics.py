"""What an operator sees of communications: members, links and completions are counted."""

from __future__ import annotations

import asyncio
import re
from urllib.request import urlopen

from backhaul_local.ports import Hold
from normalizer_rig import RigFactory
from register_rig import member, phone, register_of


async def test_members_links_and_completions_are_counted(rig_factory: RigFactory) -> None:
    hold = Hold()
    [port] = hold.choose(1)
    async with rig_factory(metrics_port=port) as rig, register_of(rig) as register:
        await register.communication()
        await register.put_batch("b1")
        await register.put_batch("empty")
        sent = [{"channel": "twilio", "recipient": phone(1), "message_id": "SM1"}]
        await register.add([member(0), member(1, destinations=sent), member(0)])
        await register.add([member(0), {"member_key": "", "destinations": []}])
        await rig.drained()
        await register.close("empty")
        shown = await asyncio.to_thread(lambda: urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())  # loopback

    def count(name: str, **labels: str) -> int:
        values = [
            float(line.rpartition(" ")[2])
            for line in shown.splitlines()
            if line.startswith(f"backhaul_normalizer_{name}_total")
            and all(f'{label}="{value}"' in line for label, value in labels.items())
        ]
        return round(sum(values))

    assert [count("members", tenant="acme", outcome=one) for one in ("added", "unchanged", "refused")] == [2, 2, 1]
    assert count("batches_completed", tenant="acme", by="condition") == 1
    assert count("batches_completed") == 1
    assert count("links") == 1
    assert not re.search("recipient|1500555", shown)
