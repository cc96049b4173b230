"""Whoever listens hears everything once or more, whatever is restarted meanwhile."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from backhaul_testing.receiver import Receiver
from backhaul_testing.waiting import until
from simulators.people import Town
from simulators.terminal import CommandLine

MEMBERS = ("gateway", "normalizer", "nats", "gateway")


async def test_listening_goes_on_after_a_restart_of_everything(own_stack: Callable[..., Any], tmp_path: Path) -> None:
    async with own_stack() as stack, Receiver() as receiver, Town(stack.gateway_url, stack.admin_token) as town:
        person = await town.platform.register()
        line = CommandLine(
            {
                "XDG_CONFIG_HOME": str(tmp_path),
                "BACKHAUL_URL": stack.gateway_url,
                "BACKHAUL_API_KEY": person.api_key,
            }
        )
        heard: list[str] = []

        async def taken(sid: str) -> bool:
            try:
                return (await person.send(person.twilio.status(person.address("Twilio"), sid, "sent"))).is_success
            except httpx.TransportError:
                return False

        async def reached(sid: str) -> bool:
            heard[:] = [json.loads(one.body)["data"]["message_id"] for one in receiver.of("/heard")]
            return sid in heard

        listener = await line.start("listen", receiver.url("/heard"), "--after", "0", "--json")
        for number, member in enumerate(("", *MEMBERS)):
            if member:
                await stack.kill(member)
                await stack.restart(member)
            await until(f"a callback is taken {member}", partial(taken, f"SM{number}"), within_s=60.0)
            await until(f"it is heard {member}", partial(reached, f"SM{number}"), within_s=120.0)
        assert listener.returncode is None
        # Nothing is missing, and nothing comes before what was published earlier.
        assert list(dict.fromkeys(heard)) == [f"SM{number}" for number in range(len(MEMBERS) + 1)]
        listener.send_signal(signal.SIGINT)
        assert await listener.wait() == 0
