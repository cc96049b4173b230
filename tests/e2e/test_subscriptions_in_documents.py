"""The commands of docs/subscriptions.md run as they stand there, and docs/receiver.py is told as it says."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backhaul_local.ports import Hold
from backhaul_testing.waiting import until
from simulators.commands import run_commands

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from backhaul_client.notificationmodels import Delivery
    from backhaul_local.stack import Stack
    from simulators.people import Tenant, Town

DOCUMENTS = Path(__file__).parents[2] / "docs"
SINCE = "## See what was told"
ENOUGH_S = 30.0


async def test_the_commands_of_the_page_do_what_it_says(town: Town, installation: Stack, tmp_path: Path) -> None:
    tenant = await town.platform.register()
    subscribing, _, asking = (DOCUMENTS / "subscriptions.md").read_text().partition(SINCE)
    answers = await run_commands(subscribing, tenant, installation, tmp_path)
    assert [answer.status for answer in answers] == [201, 200, 200, 200]
    made, tried, changed, rotated = (json.loads(answer.body) for answer in answers)
    assert (made["name"], made["state"], made["secrets"][0]["secret"][:6]) == ("Reports", "active", "whsec_")
    assert (tried["number"], tried["request"]) == (1, "POST https://example.com/backhaul")
    assert (changed["rate_per_s"], changed["revision"], changed["alert_addresses"]) == (20, 2, made["alert_addresses"])
    assert [bool(one["expires_at"]) for one in rotated["secrets"]] == [False, True]

    address = tenant.address("Twilio")
    assert (await tenant.send(tenant.twilio.status(address, "SM0001", "delivered"))).status_code == 200

    async def told() -> list[Delivery] | None:
        return [one async for one in tenant.client.deliveries.list(subscription_id=made["id"])] or None

    (delivery,) = await until("the delivery", told)
    variables = f"```sh\nID={made['id']}\n```\n"
    answers = await run_commands(variables + asking, tenant, installation, tmp_path)
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 200, 202, 202, 200, 200]
    failed, of_message, never, refused, one, again, many, paused, resumed = (
        json.loads(answer.body) for answer in answers
    )
    assert failed["deliveries"] == []
    assert [row["id"] for row in of_message["deliveries"]] == [delivery.id]
    assert "deliveries" in never
    assert refused["deliveries"] == []
    assert (one["id"], one["type"]) == (delivery.id, "message.delivered")
    assert again == {"deliveries": 1}
    assert many == {"deliveries": 0}
    assert (paused["state"], resumed["state"]) == ("paused", "active")


@asynccontextmanager
async def receiving(port: int, answer: Path) -> AsyncIterator[asyncio.StreamReader]:
    """The receiver, and what it prints."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(DOCUMENTS / "receiver.py"), str(port), str(answer), stdout=PIPE
    )
    assert program.stdout is not None
    try:
        assert await _line(program.stdout) == f"Listening on http://127.0.0.1:{port}"
        yield program.stdout
    finally:
        program.kill()
        await program.wait()


async def _line(printed: asyncio.StreamReader) -> str:
    async with asyncio.timeout(ENOUGH_S):
        line = await printed.readline()
    assert line, "it ended"
    return line.decode().rstrip()


async def _asked(tenant: Tenant, path: str, **said: Any) -> Any:
    response = await tenant.http.post(tenant.base_url + path, json=said, headers={"X-Api-Key": tenant.api_key})
    assert response.is_success, response.text
    return response.json()


def _kept(answer: Path, told: Any) -> None:
    """As curl would keep it."""
    answer.write_text(json.dumps(told))


async def test_the_receiver_verifies_and_knows_again_what_it_has(town: Town, tmp_path: Path) -> None:
    tenant = await town.platform.register()
    with Hold() as hold:
        (port,) = hold.choose(1)
    answer, url = tmp_path / "subscription.json", f"http://127.0.0.1:{port}/backhaul"
    made = await _asked(tenant, "/v1/subscriptions", types=["message.delivered"], http={"url": url})
    _kept(answer, made)
    subscriptions = tenant.client.subscriptions
    async with receiving(port, answer) as printed:
        assert (await subscriptions.test(made["id"])).status == 200
        assert (await _line(printed)).startswith("message.delivered ")
        assert (await town.http.post(url, content=b"{}")).status_code == 403
        assert (await tenant.send(tenant.twilio.status(tenant.address("Twilio"), "SM0001", "delivered"))).is_success
        told = (await _line(printed)).split()
        assert (told[:2], told[3]) == (["message.delivered", "SM0001"], "new")
        since = datetime.now(UTC) - timedelta(hours=1)
        await until("the delivery is over", lambda: _over(tenant, made["id"]))
        assert (await subscriptions.redeliver(made["id"], "all", from_=since)).deliveries == 1
        assert (await _line(printed)).split() == [*told[:3], "known"]

    # Whoever has the public half alone verifies v1a.
    rotated = await _asked(tenant, f"/v1/subscriptions/{made['id']}/rotate-secret", kind="ed25519")
    _kept(answer, rotated)
    assert [bool(one["secret"]) for one in rotated["secrets"]] == [False, False]
    async with receiving(port, answer) as printed:
        assert (await subscriptions.test(made["id"])).status == 200
        # One whose key is another's is not believed.
        other = rotated["secrets"][0] | {"public_key": "whpk_" + "A" * 43 + "="}
        _kept(answer, {"secrets": [other]})
    async with receiving(port, answer):
        assert (await subscriptions.test(made["id"])).status == 403


async def _over(tenant: Tenant, subscription: str) -> bool:
    found = [one async for one in tenant.client.deliveries.list(subscription_id=subscription)]
    return [one.state for one in found] == ["delivered"]
