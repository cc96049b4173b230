"""The consumer of EVENTS in docs/consuming-events.md runs as it stands there, and keeps the rules that it is for."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import TYPE_CHECKING

from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Town

DOCUMENT = Path(__file__).parents[2] / "docs" / "consuming-events.md"
ENOUGH_S = 20.0


async def test_it_prints_each_event_once_and_again_when_it_is_completed(
    town: Town, installation: Stack, tmp_path: Path
) -> None:
    tenant = await town.platform.register()
    address, sid = tenant.address("Twilio"), new_sid()
    complete = tenant.twilio.status(address, sid, "failed", ErrorCode="30006")
    for post in (tenant.twilio.status(address, sid, "failed"), complete, complete):
        assert (await tenant.send(post)).status_code == 200
        await tenant.message_with("twilio", sid, 1)

    async def completed() -> bool:
        return bool(await tenant.events(error_code="30006"))

    await until("the error is the event's", completed)
    last = new_sid()
    assert (await tenant.send(tenant.twilio.status(address, last, "sent"))).status_code == 200
    await tenant.message_with("twilio", last, 1)

    program = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[0]
    assert installation.nats is not None
    # Where `make up` would be, and no tenant of another test.
    program = program.replace(":4222", f":{installation.nats.port}").replace(
        '"events.>"', f'"events.{tenant.queue_path.lower()}.>"'
    )
    (tmp_path / ".backhaul").mkdir()
    secret = json.dumps({"nats_password": installation.credentials.nats_password})
    (tmp_path / ".backhaul" / "credentials.json").write_text(secret)
    consumer = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", program, cwd=tmp_path, stdout=PIPE, stderr=PIPE
    )
    assert consumer.stdout is not None
    lines: list[list[str]] = []
    try:
        async with asyncio.timeout(ENOUGH_S):
            while not lines or last not in lines[-1]:
                line = await consumer.stdout.readline()
                assert line, "the consumer ended"
                lines.append(line.decode().split())
    finally:
        consumer.kill()
        await consumer.communicate()
    assert sorted(lines) == sorted(
        [
            ["EVENT_KIND_FAILED", tenant.id, sid, "0"],
            ["EVENT_KIND_FAILED", tenant.id, sid, "1"],
            ["EVENT_KIND_SENT", tenant.id, last, "0"],
        ]
    )
