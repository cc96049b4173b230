"""What a provider, a tenant and whoever calls may do that nobody else must feel: see also test_transport.py."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_channels.pull import Ask, NeverError, Page, PullError, Span, Transport, UnreadableAnswerError
from backhaul_common.errors import BackhaulError, Code
from backhaul_testing import make
from provider_api import ORIGIN, Answer, Keys, Messages, Request
from structlog.testing import capture_logs

if TYPE_CHECKING:
    from asking_rig import Rig

MINUTE_US = 60_000_000
TOKEN = "s3cr3t-t0ken-of-acme"  # of no account


@pytest.mark.parametrize("error", [UnreadableAnswerError, NeverError])
async def test_what_a_provider_repeats_of_the_credentials_is_shown_nowhere(asking: Rig, error: type[PullError]) -> None:
    """In its own words, and as the header was."""
    basic = b64encode(f"A1:{TOKEN}".encode()).decode()

    class Repeats(Messages):
        async def window(
            self, transport: Transport, ask: Ask[Keys, Any], listing: str, span: Span, cursor: str = ""
        ) -> Page:
            await transport.get(f"{ORIGIN}/any", {}, {"authorization": f"Basic {basic}"})
            raise error(f"It says: no {ask.credentials.token}, no {basic}, account A1.")

        async def message(self, transport: Transport, ask: Ask[Keys, Any], message_id: str) -> Page:
            return await self.window(transport, ask, "", Span(0, 1))

    async def answers(_: Request, __: asyncio.StreamWriter) -> Answer:
        return 200, {}, b"{}"

    asking.api.misbehave = answers
    asking.ask(Repeats())
    await asking.register(token=TOKEN)
    for place in range(4):
        asking.normalizer.hear("acme", f"M{place}", "sent", asking.now_us() - 50 * 60 * MINUTE_US)
    copy = asking.copy()
    with capture_logs() as lines:
        await copy.channels.sync()
        await copy.until_done()
    stored = [
        row for name in await asking.database.list_collection_names() async for row in asking.database[name].find()
    ]
    assert "account A1" in str(stored)
    assert "account A1" in str(lines)
    for secret in (TOKEN, basic):
        assert secret not in str(stored)
        assert secret not in str(lines)


async def test_of_fifty_runs_that_are_asked_for_at_once_one_begins(asking: Rig) -> None:
    tenant = await asking.register()
    copies = [asking.copy(f"copy-{place}") for place in range(2)]
    await copies[0].channels.sync()
    told = await asyncio.gather(
        *(copies[place % 2].ask(tenant) for place in range(50)),
        return_exceptions=True,
    )
    begun = [one for one in told if isinstance(one, str)]
    others = [one for one in told if not isinstance(one, str)]
    assert len(begun) == 1
    assert {one.code for one in others if isinstance(one, BackhaulError)} == {Code.FAILED_PRECONDITION}
    assert len(await asking.runs()) == 1


async def test_a_tenant_that_is_made_again_in_the_middle_of_a_page_is_told_nothing_of_the_one_before(
    asking: Rig,
) -> None:
    tenant = await asking.register()
    asking.send(25)
    copy = asking.copy()
    await copy.channels.sync()
    again = make.tenant("acme").model_copy(update={"registration": "acme.2"})

    async def anew(request: Request, _: asyncio.StreamWriter) -> None:
        if request.params.get("page") == "10":
            made = again.model_copy(update={"channels": tenant.channels})
            await asking.database["tenants"].replace_one({"_id": "acme"}, made.to_document())

    asking.api.misbehave = anew
    await copy.turn()
    asking.api.misbehave = None
    await asking.normalizer.process()
    assert sum(asking.normalizer.backfilled.values()) == 10, "what was read before"
    (run,) = await asking.runs()
    assert (run["registration"], run["counts"]["missing"]) == (tenant.registration, 10)
    # Who hears of it asks for the new one, from the beginning, and leaves the old one.
    await asking.put(again.model_copy(update={"channels": tenant.channels}))
    await copy.channels.sync()
    row = await asking.channel()
    assert (row["registration"], "lists" in row) == (again.registration, False)
    await copy.until_done()
    assert {run["registration"] for run in await asking.runs()} == {tenant.registration, again.registration}
