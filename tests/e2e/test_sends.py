"""What senders tell of their own messages: states, counts and suppressions as of what providers tell."""

from __future__ import annotations

import asyncio
import json
import os
import re
from asyncio.subprocess import PIPE
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_client import SendIn
    from backhaul_client.models import Communication
    from backhaul_local.stack import Stack
    from simulators.callers import InternalService
    from simulators.people import Tenant, Town

DOCUMENT = Path(__file__).parents[2] / "docs" / "sends.md"
ANNA, BEN = "+15005550101", "+15005550102"


async def counted(tenant: Tenant, communication_id: str, messages: int) -> Communication:
    """The communication, as soon as it has as many messages."""

    async def probe() -> Communication | None:
        found = await tenant.communication(communication_id)
        return found if found is not None and found.messages == messages else None

    return await until(f"{messages} messages", probe)


async def test_a_refusal_suppresses_and_fails(town: Town, crm: InternalService) -> None:
    tenant, neighbour = await town.platform.register(), await town.platform.register()
    at = datetime(2026, 11, 26, 12, tzinfo=UTC)
    sends: list[SendIn] = [
        {"channel": "Twilio", "status": "refused", "recipient": ANNA, "error_code": "21610", "id": "1", "sent_at": at},
        {"channel": "Twilio", "status": "refused", "recipient": BEN, "error_code": "21211", "id": "2"},
        {"channel": "Twilio", "status": "not_generated", "id": "3", "error_text": "No such template"},
        {"channel": "Twilio", "message_id": new_sid(), "recipient": "+15005550103"},
    ]
    for send in sends:
        send["communication"] = "spring"
    # Whoever got no answer tells it again.
    for _ in range(2):
        assert (await tenant.client.report_sends(sends)).accepted == 4
    await crm.told(tenant.id, ANNA, "provider_block")
    await crm.told(tenant.id, BEN, "invalid_address")
    assert await crm.verdicts(neighbour.id, [ANNA, BEN]) == ["allowed", "allowed"]
    spring = await counted(tenant, "spring", 4)
    assert {state: count for state, count in spring.fulfilment.items() if count} == {
        "Failed": 2,
        "InvalidNumber": 1,
        "Queued": 1,
    }
    (message,) = await tenant.messages(message_id="1")
    assert (message.state, message.fulfilment_state, message.error_code) == ("rejected", "Failed", "21610")
    found = await tenant.message("twilio", message.message_id)
    assert found is not None
    (event,) = found.timeline
    assert (event.source, event.verification, event.occurred_at) == ("sender", "credential", at)
    assert (event.error_text, event.error_class) == ("The recipient has unsubscribed.", "suppress")
    assert (event.data["recipient"], "channel" in event.data) == (ANNA, False)
    assert await neighbour.messages() == []


async def test_what_was_sent_is_one_with_what_providers_tell(town: Town) -> None:
    tenant = await town.platform.register()
    sid, mail = new_sid(), new_message_id()
    known = mail.partition(".")[0]
    sends: list[SendIn] = [
        {"channel": "Twilio", "message_id": sid, "recipient": ANNA, "communication": "spring"},
        {"channel": "SendGrid", "message_id": known, "recipient": "anna@example.com", "communication": "spring"},
    ]
    delivered = tenant.sendgrid.event(mail, "delivered", email="anna@example.com")
    assert delivered["smtp-id"].strip("<>").partition("@")[0] == known
    await tenant.receive(tenant.sendgrid.batch(tenant.address("SendGrid"), [delivered]))
    await tenant.client.report_sends(sends)
    await tenant.receive(tenant.twilio.status(tenant.address("Twilio"), sid, "delivered", to=ANNA))
    for channel, name in (("twilio", sid), ("sendgrid", mail)):
        message = await tenant.message_with(channel, name, 2)
        assert (message.state, message.communication_id) == ("delivered", "spring")
    spring = await counted(tenant, "spring", 2)
    assert {state: count for state, count in spring.fulfilment.items() if count} == {"Delivered": 2}


async def test_the_commands_of_the_page_do_what_it_says(town: Town, installation: Stack, tmp_path: Path) -> None:
    tenant = await town.platform.register()
    (tmp_path / "key-header").write_text(f"X-Api-Key: {tenant.api_key}")
    script = "\n".join(re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
    environ = {"PATH": os.environ["PATH"], "URL": installation.gateway_url, "KEY": "@key-header"}
    environ["JSON"] = "Content-Type: application/json"
    bash = await asyncio.create_subprocess_exec(
        "bash", "-eu", "-c", script, cwd=tmp_path, env=environ, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(60):
        out, err = await bash.communicate()
    assert (bash.returncode, err.decode()) == (0, "")
    answers = [json.loads(line) for line in out.decode().replace("}{", "}\n{").splitlines()]
    assert [(answer["accepted"], len(answer["callback_ids"])) for answer in answers] == [(3, 2), (2, 1)]
    sale = await counted(tenant, "autumn-sale", 5)
    assert {state: count for state, count in sale.fulfilment.items() if count} == {
        "Failed": 1,
        "InvalidNumber": 1,
        "Queued": 3,
    }
