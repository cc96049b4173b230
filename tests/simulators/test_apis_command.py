"""The command by which somebody tries the reconciler without an account at a provider."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import sys
from asyncio.subprocess import PIPE, Process

import httpx

COMMAND = (sys.executable, "-m", "backhaul_testing.apis", "--messages", "12")


async def _told(process: Process) -> dict[str, dict[str, str]]:
    """What it prints, by the names of the variables that a shell would have."""
    assert process.stdout is not None
    found: dict[str, dict[str, str]] = {}
    while len(found) < 3:
        line = (await process.stdout.readline()).decode()
        assert line, "It ended."
        if not line.startswith("#"):
            name, _, content = shlex.split(line)[-1].partition("=")
            found[name] = json.loads(content)
    return found


async def test_both_apis_are_asked_with_what_it_prints_until_it_is_told_to_end() -> None:
    process = await asyncio.create_subprocess_exec(*COMMAND, "--twilio-port", "0", "--sendgrid-port", "0", stdout=PIPE)
    try:
        async with asyncio.timeout(60), httpx.AsyncClient() as http:
            told = await _told(process)
            origins, twilio = told["BACKHAUL_RECONCILER_ORIGINS"], told["TWILIO"]
            address = f"{origins['https://api.twilio.com']}/2010-04-01/Accounts/{twilio['account_sid']}/Messages.json"
            answer = await http.get(address, auth=(twilio["account_sid"], twilio["auth_token"]))
            assert answer.status_code == 200, answer.text
            # Those that failed at once were sent on no day, and are in no list.
            assert 0 < len(answer.json()["messages"]) <= 12
            headers = {"Authorization": f"Bearer {told['SENDGRID']['api_key']}"}
            answer = await http.get(f"{origins['https://api.sendgrid.com']}/v3/suppression/bounces", headers=headers)
            assert answer.status_code == 200, answer.text
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_port_that_is_taken_is_said_in_words() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        port = str(server.sockets[0].getsockname()[1])
        process = await asyncio.create_subprocess_exec(*COMMAND, "--twilio-port", port, stderr=PIPE)
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().startswith("A port cannot be listened on")
