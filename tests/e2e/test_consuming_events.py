"""A tenant's consumer of one error code, as docs/consuming-events.md shows it: what it sees, what it cannot reach."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import nats
import pytest
from backhaul_local.nats_server import NatsConfig, NatsServer
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from backhaul_testing import broker
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from nats.aio.client import Client as NatsClient
from nats.errors import NoRespondersError
from nats.js.errors import APIError

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Tenant

DOCUMENT = (Path(__file__).parents[2] / "docs" / "consuming-events.md").read_text()
(ACCOUNTS,) = re.findall(r"```conf\n(.*?)```", DOCUMENT, re.DOTALL)
_, MAKES_CONSUMER, CONSUMES = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
BACKHAUL, ACME = "backhaul-password", "acme-password"
ENOUGH_S = 20.0

WITHOUT_PERMISSIONS = re.sub(r"permissions: \{.*?\n {8}\}\n", "", ACCOUNTS, flags=re.DOTALL)
"""The same with the accounts alone to keep the tenant out."""


class ServerOfTheDocument(NatsServer):
    """A nats-server with the accounts that the document shows."""

    def __init__(self, folder: Path, accounts: str) -> None:
        super().__init__(NatsConfig(data_dir=folder, sync_always=False, password=BACKHAUL))
        self._accounts = accounts

    def _config_text(self) -> str:
        return re.sub(r"authorization .*\n", "", super()._config_text()) + self._accounts


Opened = Callable[..., AbstractAsyncContextManager[NatsServer]]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """``async with opened(accounts) as server``."""
    monkeypatch.setenv("NATS_PASSWORD_BACKHAUL", BACKHAUL)
    monkeypatch.setenv("NATS_PASSWORD_ACME", ACME)

    @asynccontextmanager
    async def create(accounts: str = ACCOUNTS) -> AsyncIterator[NatsServer]:
        server = ServerOfTheDocument(tmp_path / "nats", accounts)
        await server.start()
        try:
            yield server
        finally:
            await server.kill()

    return create


async def run(program: str, server: NatsServer) -> asyncio.subprocess.Process:
    env = {**os.environ, "NATS_URL": f"nats://127.0.0.1:{server.port}"}
    return await asyncio.create_subprocess_exec(sys.executable, "-u", "-c", program, env=env, stdout=PIPE, stderr=PIPE)


async def make_consumer(server: NatsServer) -> None:
    making = await run(MAKES_CONSUMER, server)
    out, err = await making.communicate()
    assert (making.returncode, out, err) == (0, b"", b"")


async def test_it_sees_its_tenants_events_of_one_code_and_nothing_else(
    opened: Opened, own_stack: Callable[..., AbstractAsyncContextManager[Stack]]
) -> None:
    from simulators.people import Town

    async with (
        opened() as server,
        own_stack(nats_url=server.uri) as stack,
        Town(stack.gateway_url, stack.admin_token) as town,
    ):
        acme = await town.platform.register(tenant_id="acme", queue_path="Acme-Prod")
        other = await town.platform.register(queue_path="Acme-Prod-2")
        await make_consumer(server)

        async def told(tenant: Tenant, sid: str, word: str, code: str = "", events: int = 1) -> None:
            more = {"ErrorCode": code} if code else {}
            post = tenant.twilio.status(tenant.address("Twilio"), sid, word, **more)
            assert (await tenant.send(post)).status_code == 200
            await tenant.message_with("twilio", sid, events)

        completed, plain, last = new_sid(), new_sid(), new_sid()
        # First without a code, and then completed; told again, it is no news.
        await told(acme, completed, "failed")
        for _ in range(2):
            await told(acme, completed, "failed", "30006")

        async def known() -> bool:
            return bool(await acme.events(error_code="30006"))

        await until("the code is known", known)
        await told(acme, plain, "sent")
        await told(acme, plain, "undelivered", "30006", 2)
        await told(acme, new_sid(), "failed", "30003")
        await told(acme, new_sid(), "delivered")
        await told(other, new_sid(), "failed", "30006")
        await told(acme, last, "failed", "30006")
        consumer = await run(CONSUMES, server)
        assert consumer.stdout is not None
        lines: list[list[str]] = []
        try:
            async with asyncio.timeout(ENOUGH_S):
                while not lines or last not in lines[-1]:
                    line = await consumer.stdout.readline()
                    assert line, "the consumer ended"
                    lines.append(line.decode().split()[:4])
        finally:
            consumer.kill()
            await consumer.communicate()
        to = "+15005550001"
        assert lines == [
            ["30006", to, completed, "1"],
            ["30006", to, plain, "0"],
            ["30006", to, last, "0"],
        ]


class Outsider:
    """A connection of the tenant's, and what it was told that it may not do."""

    def __init__(self) -> None:
        self.client = NatsClient()
        self.refused: list[str] = []

    async def connect(self, server: NatsServer) -> None:
        async def refuse(error: Exception) -> None:
            self.refused.append(str(error).lower())

        await self.client.connect(
            f"nats://127.0.0.1:{server.port}", user="acme", password=ACME, inbox_prefix="_INBOX_acme", error_cb=refuse
        )

    async def ask(self, subject: str, body: bytes = b"") -> bytes:
        """The answer; empty where there is none."""
        try:
            return (await self.client.request(subject, body, timeout=0.3)).data
        except (TimeoutError, NoRespondersError):
            return b""


THEIRS = b"of somebody else"
NEXT = "$JS.API.CONSUMER.MSG.NEXT.EVENTS.acme-30006"
CREATE = {"stream_name": "EVENTS", "config": {"name": "mine", "durable_name": "mine", "filter_subject": "events.>"}}
MIRROR = {"name": "MINE", "mirror": {"name": "EVENTS"}}
QUESTIONS = {
    "$JS.API.INFO": b"",
    "$JS.API.STREAM.INFO.EVENTS": b"",
    "$JS.API.STREAM.NAMES": b"",
    "$JS.API.STREAM.PURGE.EVENTS": b"",
    "$JS.API.STREAM.DELETE.CALLBACKS": b"",
    "$JS.API.STREAM.MSG.GET.EVENTS": b'{"seq": 2}',
    "$JS.API.DIRECT.GET.EVENTS": b'{"seq": 2}',
    "$JS.API.DIRECT.GET.EVENTS.events.globex.twilio.failed.30006": b"",
    "$JS.API.STREAM.CREATE.MINE": json.dumps(MIRROR).encode(),
    "$JS.API.CONSUMER.CREATE.EVENTS": json.dumps(CREATE).encode(),
    "$JS.API.CONSUMER.CREATE.EVENTS.mine": json.dumps(CREATE).encode(),
    "$JS.API.CONSUMER.CREATE.EVENTS.acme-30006.events.>": json.dumps(CREATE).encode(),
    "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.mine": json.dumps(CREATE).encode(),
    "$JS.API.CONSUMER.INFO.EVENTS.acme-30006": b"",
    "$JS.API.CONSUMER.DELETE.EVENTS.acme-30006": b"",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.theirs": b'{"batch": 1, "no_wait": true}',
    "$JS.API.CONSUMER.MSG.NEXT.CALLBACKS.normalizer": b'{"batch": 1, "no_wait": true}',
    "events.globex.twilio.failed.30006": b"planted",
    "callbacks.globex.twilio": b"planted",
}
"""What would show or change what is not the tenant's, or what it sees of its own."""


@pytest.mark.parametrize("accounts", [ACCOUNTS, WITHOUT_PERMISSIONS], ids=["as documented", "accounts alone"])
async def test_it_reaches_nothing_that_is_not_its_own(opened: Opened, accounts: str) -> None:
    limited = "permissions" in accounts
    async with opened(accounts) as server:
        client = await nats.connect(server.uri)
        js = client.jetstream()
        for name in ("EVENTS", "CALLBACKS"):
            await js.add_stream(name=name, subjects=[f"{name.lower()}.>"], allow_direct=True)
        batch = EventBatch(events=[Event(id="1", error_code="30006")]).SerializeToString()
        for number in range(20):
            await js.publish("events.acme-prod.twilio.failed.30006", batch)
            await js.publish("events.globex.twilio.failed.30006", THEIRS + b" %d" % number)
        await js.publish("callbacks.globex.twilio", THEIRS)
        for consumer, stream in (("theirs", "EVENTS"), ("normalizer", "CALLBACKS")):
            await js.add_consumer(stream, durable_name=consumer, ack_policy="explicit")
        await make_consumer(server)
        before = [(await js.stream_info(name)).config for name in ("EVENTS", "CALLBACKS")]
        watching = await client.subscribe("stolen.>")

        outsider = Outsider()
        await outsider.connect(server)
        try:
            for subject, body in QUESTIONS.items():
                answer = await outsider.ask(subject, body)
                assert THEIRS not in answer, subject
                assert not answer or json.loads(answer)["error"], (subject, answer)
            # Nor does JetStream go there in its name: what it asked for is delivered, or refused, in its own account.
            for reply in (
                "events.globex.twilio.failed.30006",
                "callbacks.globex.twilio",
                "$JS.API.STREAM.PURGE.EVENTS",
                "$JS.API.STREAM.DELETE.CALLBACKS",
                "stolen.by.reply",
            ):
                for wanted in (b'{"batch": 1, "no_wait": true}', b'{"batch": 0', b'{"batch": 1, "expires": 1}'):
                    await outsider.client.publish(NEXT, wanted, reply=reply)
            # Nobody else's answers and messages are heard.
            heard = [
                await outsider.client.subscribe(subject) for subject in (">", "_INBOX.>", "_INBOX_globex.>", "$JS.>")
            ]
            await outsider.client.flush()
            await client.publish("_INBOX_globex.1", THEIRS)
            await js.publish("events.globex.twilio.failed.30006", THEIRS)
            await client.request("$JS.API.INFO")
            await client.flush()
            await outsider.client.flush()
            if limited:
                assert len([one for one in outsider.refused if "publish" in one]) == len(QUESTIONS)
                assert len([one for one in outsider.refused if "subscription" in one]) == len(heard)
            else:
                assert outsider.refused == []
                for subscription in heard:
                    with suppress(nats.errors.TimeoutError):
                        while True:
                            assert THEIRS not in (await subscription.next_msg(timeout=0.1)).data
        finally:
            await outsider.client.close()
        assert [(await js.stream_info(name)).config for name in ("EVENTS", "CALLBACKS")] == before
        events, callbacks = [(await js.stream_info(name)).state for name in ("EVENTS", "CALLBACKS")]
        assert (events.messages, callbacks.messages) == (41, 1)
        assert {one.name for one in await js.consumers_info("EVENTS")} == {"acme-30006", "theirs"}
        assert (await js.consumer_info("EVENTS", "theirs")).num_pending == 41
        with pytest.raises(APIError):
            await js.stream_info("MINE")
        with pytest.raises(nats.errors.TimeoutError):
            await watching.next_msg(timeout=0.1)
        await client.close()


async def test_whoever_has_no_password_of_the_account_is_not_let_in(opened: Opened) -> None:
    async with opened() as server:
        for user, password in (("acme", BACKHAUL), ("backhaul", ACME), ("", "")):
            with pytest.raises(nats.errors.Error):
                await broker.connect(
                    f"nats://127.0.0.1:{server.port}",
                    user=user or None,
                    password=password or None,
                    allow_reconnect=False,
                )
