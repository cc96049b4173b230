"""What a page takes of whoever waits for it, and of the process that takes callbacks in."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from backhaul_console.pages import ROUTES
from backhaul_testing.sendgrid import new_message_id

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Town

MAX_PAGE_S = 0.2
MAX_PAGE_BYTES = 100_000
_MESSAGES, _BATCH, _VISITS = 2_000, 500, 5


@pytest.mark.timed
async def test_no_page_takes_long_with_thousands_of_messages(town: Town, installation: Stack) -> None:
    """In the middle of some visits, from the request to the last byte. ``make bench`` has a million stored."""
    from simulators.visits_as import browser_of, holder, sessions_of

    tenant = await town.platform.register()
    address = tenant.address("SendGrid")
    ids = [new_message_id() for _ in range(_MESSAGES)]
    for at in range(0, _MESSAGES, _BATCH):
        events = [tenant.sendgrid.event(one, "delivered") for one in ids[at : at + _BATCH]]
        await tenant.receive(tenant.sendgrid.batch(address, events))
    await tenant.message_with("sendgrid", ids[-1], 1)
    slow: list[str] = []
    async with sessions_of(installation) as sessions:
        session = await sessions.begin(holder(tenant.id, tenant.api_key, ("read", "check", "send", "manage")))
    async with browser_of(town.platform.base_url, session) as browser:
        for page in ROUTES:
            if page.method == "GET" and page.side == "tenant" and "{" not in page.path:
                where = f"/console/t/{tenant.id}{page.path}"
                took, size = [], 0
                for _ in range(_VISITS):
                    began = time.perf_counter()
                    size = await _size(browser, where)
                    took.append(time.perf_counter() - began)
                middle = statistics.median(took)
                if middle > MAX_PAGE_S or size > MAX_PAGE_BYTES:
                    slow.append(f"{where}: {middle * 1000:.0f} ms, {size} bytes")
    assert not slow, "\n".join(slow)


async def _size(browser: httpx.AsyncClient, where: str) -> int:
    """Of a page; 0 for what is none, such as a stream."""
    async with browser.stream("GET", where) as answer:
        if not answer.headers.get("content-type", "").startswith("text/html"):
            return 0
        return len(await answer.aread())
