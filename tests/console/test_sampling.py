"""A sample of each provider's callbacks, sent from a channel's page and followed into the timeline of its message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from backhaul_samples import PROVIDERS
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from bs4 import BeautifulSoup
    from simulators.people import Tenant, Town
    from simulators.visiting import Open, Visitor

HOSTILE = 'a/b?c#d %\u202e"><script>alert(1)</script>'


def at(tenant: Tenant, path: str) -> str:
    return f"/console/t/{tenant.id}{path}"


def posts(page: BeautifulSoup) -> list[str]:
    """Where the forms of a page post to."""
    return [str(form["action"]) for form in page.select("main form[method=post]")]


def seen(visitor: Visitor) -> str:
    """All that a browser has of a page."""
    return f"{visitor.url} {visitor.page}"


async def followed(visitor: Visitor) -> None:
    """Load the page of a sample that was sent again until its event can be read, and follow that to its message."""
    where = visitor.url

    async def readable() -> bool:
        await visitor.go(where)
        assert visitor.status == 200, visitor.text
        return "Its event is in the timeline of its message." in visitor.main

    await until("the sample's event", readable, within_s=60)
    (link,) = visitor.page.select("main dl.facts a")
    await visitor.go(str(link["href"]))
    assert visitor.status == 200, visitor.text


@pytest.mark.parametrize("name", sorted(PROVIDERS))
async def test_the_first_sample_of_each_provider_is_sent_and_followed(name: str, town: Town, visitor: Visitor) -> None:
    tenant, provider = await town.platform.register(), PROVIDERS[name]
    pair = provider.trying("of this test") if provider.trying is not None else None
    made = await tenant.client.put_channel(
        "Our own",
        provider=name,
        secrets=[pair.verifies] if pair is not None else [],
        verification="observe" if provider.is_public else "enforce",
    )
    event = next(iter(provider.events))
    await visitor.sign_in(tenant.api_key)
    await visitor.go(at(tenant, "/channels/Our%20own"))
    await visitor.follow("Send a sample…")
    await visitor.submit("/sample", event=event)
    assert visitor.status == 200, visitor.text
    assert "What would become of it" in visitor.main
    assert await tenant.events() == []
    asks = visitor.page.select("main input[type=password]")
    assert bool(asks) == (pair is not None and not provider.is_public)
    (form,) = visitor.page.select("main form[method=post]")
    message_id = str(form.select("input[name=message]")[0]["value"])
    page = await visitor.submit("/sample/send", **({"secret": pair.signs} if pair is not None and asks else {}))
    assert "The sample is stored." in visitor.text, visitor.text
    assert page.select("main form") == []
    await followed(visitor)
    (told,) = await tenant.events()
    assert (told.channel, told.message_id, told.source) == (made.key, message_id, "callback")
    assert told.verification == (
        "observed_invalid" if provider.is_public else "verified" if pair is not None else "credential"
    )
    assert told.message_id in visitor.main
