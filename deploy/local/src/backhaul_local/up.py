"""`python -m backhaul_local up`: the whole stack in the foreground, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path

from backhaul_local.console import Console, LogFollower
from backhaul_local.errors import LocalStackError
from backhaul_local.member import START_TIMEOUT
from backhaul_local.ports import LOOPBACK, ensure_free
from backhaul_local.settings import UpSettings, read_settings
from backhaul_local.stack import Stack, without_credentials
from backhaul_local.state import admin_header_path, admin_token_path, load_credentials, running
from backhaul_local.supervisor import supervise


async def main(argv: Sequence[str]) -> int:
    """Run until a signal asks to end; 0 after an orderly end, 1 when something was in the way of the start."""
    try:
        settings = read_settings(argv, os.environ)
        stack = Stack(settings.stack_config(load_credentials(settings.data_dir)))
        # Before the lock on the data: of two reasons, the port and its holder are the more helpful one.
        ensure_free(stack.claims())
        with running(settings.data_dir, _facts(stack)):
            return await _run(stack, settings, Console(width=max(len(member.name) for member in stack.members)))
    except LocalStackError as error:
        print(error, file=sys.stderr)
        if error.late:
            print(f"If the machine is only busy, let it take longer: {START_TIMEOUT}=300 make up", file=sys.stderr)
        return 1


async def _run(stack: Stack, settings: UpSettings, console: Console) -> int:
    shown = stack.members if settings.server_logs else stack.services
    follower = LogFollower(console, {member.name: member.log_path for member in shown})
    following = asyncio.create_task(follower.run())
    stop = asyncio.Event()
    _stop_on_signals(stop, stack, console)
    try:
        began = time.monotonic()
        console.say(f"Starting {', '.join(member.name for member in stack.members)}; data in {settings.data_dir}")
        if await _unless_stopped(stack.start(), stop):
            _welcome(stack, settings, console, time.monotonic() - began)
            await _supervise_until(stop, stack, console)
        console.say("Stopping: the services first, then the servers.")
        forced = await stack.stop()
        follower.drain()
        if forced:
            console.say(f"Had to be ended by force: {', '.join(forced)}.")
        console.say("Stopped.")
        return 0
    finally:
        following.cancel()


async def _unless_stopped(work: Coroutine[None, None, None], stop: asyncio.Event) -> bool:
    """Run to the end, or cancel when a stop is asked for; returns whether it came to its end."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
    finally:
        stopping.cancel()
    if working.cancelled():
        return False
    working.result()  # Raises what went wrong.
    return not stop.is_set()


async def _supervise_until(stop: asyncio.Event, stack: Stack, console: Console) -> None:
    supervisors = [asyncio.create_task(supervise(member, console.say)) for member in stack.members]
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({stopping, *supervisors}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # A supervisor ends by itself only through a defect; that must not stay unseen.
    finally:
        for task in (stopping, *supervisors):
            task.cancel()
        await asyncio.gather(stopping, *supervisors, return_exceptions=True)


def _stop_on_signals(stop: asyncio.Event, stack: Stack, console: Console) -> None:
    """The first signal asks for an orderly end, a second one for an immediate end."""

    def on_signal() -> None:
        if not stop.is_set():
            stop.set()
            return
        console.say("Asked again: killing everything that is left.")
        for member in stack.members:
            member.kill_blocking()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, on_signal)


def _facts(stack: Stack) -> dict[str, object]:
    """Where everything is, for tools beside the stack; no secrets."""
    return {
        "gateway_url": stack.gateway_url,
        "nats_url": without_credentials(stack.nats_url),
        "mongo_uri": without_credentials(stack.mongo_uri),
        "mongo_database": stack.mongo_database,
        "object_store_endpoint": stack.object_store.endpoint if stack.object_store else None,
        "ports": {service.name: service.ports for service in stack.services},
    }


def _welcome(stack: Stack, settings: UpSettings, console: Console, seconds: float) -> None:
    store = stack.object_store
    token_path = _short(admin_token_path(settings.data_dir))
    token_place = "$BACKHAUL_GATEWAY_ADMIN_TOKEN" if settings.token_from_environment else token_path
    console.say(
        f"Ready in {seconds:.1f} s.\n"
        f"  gateway       {stack.gateway_url}   (API documentation: {stack.gateway_url}/docs)\n"
        f"  console       {stack.gateway_url}/console   (sign in with the admin token)\n"
        f"  admin token   {token_place}\n"
        f"{_grpc(stack, settings)}"
        f"  NATS          {without_credentials(stack.nats_url)}\n"
        f"  MongoDB       {without_credentials(stack.mongo_uri)}\n"
        f"  S3            {store.endpoint if store else 'none'}\n"
        f"  logs          {_short(settings.data_dir / 'logs')}\n"
        "Paste into another terminal, here, to register a tenant, open a Twilio channel, follow a callback, "
        "and have somebody write STOP:"
    )
    folder = settings.data_dir
    header = "@<(printf 'Authorization: Bearer %s' \"$BACKHAUL_GATEWAY_ADMIN_TOKEN\")"  # Of bash and zsh.
    if not settings.token_from_environment:
        header = shlex.quote(f"@{_short(admin_header_path(folder))}")
    lines = example(stack.gateway_url, admin_header=header, key_file=_short(folder / "example-key-header"))
    console.plain("\n" + "\n\n".join(lines) + "\n")
    console.say("Ctrl-C stops everything.")


def _grpc(stack: Stack, settings: UpSettings) -> str:
    """Lines that say where services can be called, and with what."""
    tls = f"; certificates are in {_short(settings.data_dir / 'tls')}"
    return "".join(
        f"  {service.name:<13} {LOOPBACK}:{service.ports[port]}   (gRPC{tls if service.spec.grpc_tls else ''})\n"
        for service in stack.services
        if (port := service.spec.grpc_port) is not None
    )


def example(gateway_url: str, *, admin_header: str, key_file: str) -> list[str]:
    """Four lines of shell: register a tenant, open a channel without verification, post a callback and read it, post a
    STOP and ask whether the person may be contacted.

    The tenant and the message are new ones each time, because the data of earlier runs is kept. ``admin_header`` is the
    argument that makes curl read the admin token's header from a file, ``key_file`` where the tenant's key is put: what
    stands in a command is seen by every user of the machine.
    """
    key_header = shlex.quote(f"@{key_file}")
    tenant = f"acme-{secrets.token_hex(2)}"
    sid = f"SM{secrets.token_hex(16)}"
    admin = f'-H {admin_header} -H "Content-Type: application/json"'
    api_key = 'python3 -c \'import json, sys; print("X-Api-Key:", json.load(sys.stdin)["api_key"])\''
    register = (
        f"curl -sS {gateway_url}/admin/v1/tenants {admin} "
        f'-d \'{{"id": "{tenant}", "name": "Acme", "queue_path": "{tenant}"}}\' | {api_key} > {shlex.quote(key_file)}'
    )
    open_channel = (
        f"curl -sS -X PUT {gateway_url}/admin/v1/tenants/{tenant}/channels/Twilio {admin} "
        '-d \'{"provider": "twilio", "verification": "off"}\' -w "\\n"'
    )
    post = (
        f"curl -sS '{gateway_url}/api/postevents?campaign=spring&channelLabel=Twilio' -H {key_header} "
        f"-d AccountSid=AC{'0' * 32} -w '\\n'"
    )
    follow = (
        f"{post} -d MessageSid={sid} -d MessageStatus=delivered "
        "--data-urlencode From=+15005550006 --data-urlencode To=+15005550001; "
        f"sleep 1; curl -sS {gateway_url}/v1/messages/Twilio/{sid} -H {key_header} | python3 -m json.tool"
    )
    stop = (
        f"{post} -d MessageSid=SM{secrets.token_hex(16)} -d SmsStatus=received -d Body=STOP "
        "--data-urlencode From=+15005550001 --data-urlencode To=+15005550006; "
        # Answers when the tenant's first change is there.
        f"curl -sS '{gateway_url}/v1/suppressions/changes?after=0&wait=10' -H {key_header} -o /dev/null; "
        f"curl -sS {gateway_url}/v1/suppressions/check -H {key_header} "
        '-H "Content-Type: application/json" -d \'{"address": "+15005550001"}\' | python3 -m json.tool'
    )
    return [register, open_channel, follow, stop]


def _short(path: Path) -> str:
    """Relative to the working directory where that is possible, so that it can be read and pasted."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
