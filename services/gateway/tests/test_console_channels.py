"""The form of a channel's credentials, which the API takes as one object: nothing of it goes without a question."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from backhaul_common.secrets import SecretBox
from bs4 import BeautifulSoup
from gateway_rig import Running

SAME = {"sec-fetch-site": "same-origin"}
SID, TOKEN = "AC" + "0" * 32, "0123456789abcdef" * 2
PULLED: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "Twilio": (
        {"account_sid": SID, "auth_token": TOKEN, "region": "ie1"},
        {"account_sid": SID, "auth_token": TOKEN[::-1]},
    ),
    "SendGrid": ({"api_key": "SG." + TOKEN, "subuser": "news"}, {"api_key": "SG." + TOKEN[::-1]}),
}
"""Of each provider that is asked, what a channel has, and the part of it that becomes another."""


@pytest.fixture
async def browser(gateway: Running) -> AsyncIterator[httpx.AsyncClient]:
    acme = await gateway.tenant("acme")
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60, headers=SAME) as client:
        begun = await client.post("/console/sign-in", data={"credential": acme.api_key})
        assert begun.status_code == 303, begun.text
        yield client


def stored(gateway: Running, label: str) -> dict[str, str]:
    """What the channel's provider is asked by, without what is nothing."""
    tenant: Any = gateway.tenants.find_one({"_id": "acme"})
    box = SecretBox(gateway.settings.encryption_keys())
    found = tenant["channels"][label.lower()]["pull_credentials"]
    return {name: value for name, value in json.loads(box.decrypt(found)).items() if value} if found else {}


class Form:
    """The form of a channel, as it is shown last."""

    def __init__(self, browser: httpx.AsyncClient, path: str) -> None:
        self._browser = browser
        self._path = path
        self.page = BeautifulSoup("", "html.parser")

    async def open(self) -> None:
        self.page = BeautifulSoup((await self._browser.get(self._path)).text, "html.parser")

    async def send(self, **typed: str) -> int:
        """Type into fields that there are, and send it as a browser does."""
        fields: dict[str, str] = {}
        for one in self.page.select("form.stack input, form.stack textarea"):
            if one.get("type") != "checkbox" or one.has_attr("checked"):
                fields[str(one["name"])] = str(one.get("value", "")) if one.name == "input" else one.get_text()[1:]
        names = {one["name"] for one in self.page.select("form.stack [name]")}
        assert typed.keys() <= names, typed.keys() - names
        answer = await self._browser.post(self._path, data={**fields, **typed})
        self.page = BeautifulSoup(answer.text, "html.parser")
        return answer.status_code

    async def pull(self, given: dict[str, str], **more: str) -> int:
        return await self.send(**{f"pull_credentials.{name}": value for name, value in given.items()}, **more)

    @property
    def credentials(self) -> Any:
        """Where they are typed."""
        (found,) = [one for one in self.page.select("details") if one.select('[name^="pull_credentials."]')]
        return found

    @property
    def wrong(self) -> list[str]:
        return [str(one["name"]) for one in self.page.select('[aria-invalid="true"]')]


@pytest.mark.parametrize("label", PULLED)
async def test_what_is_left_empty_is_removed_only_where_that_is_ticked(
    gateway: Running, browser: httpx.AsyncClient, label: str
) -> None:
    whole, part = PULLED[label]
    await gateway.channel(label=label, secrets=[])
    form = Form(browser, f"/console/t/acme/channels/{label}/edit")
    await form.open()
    # There is nothing yet that could go.
    assert not form.page.select('[name="pull_credentials"]')
    assert await form.pull(part) == 303
    assert stored(gateway, label).items() >= part.items()
    await gateway.channel(label=label, secrets=[], pull_credentials=whole)

    await form.open()
    assert not form.credentials.has_attr("open")
    assert "takes the place of all" in form.credentials.get_text()
    assert await form.pull(part) == 422
    assert form.wrong == ["pull_credentials"]
    assert form.credentials.has_attr("open")
    assert not [secret for secret in part.values() if secret != SID and secret in str(form.page)]
    assert stored(gateway, label).items() >= whole.items()

    # It takes both: what is secret is typed again. The tick alone is none of it, nor is what needs none.
    nothing = dict.fromkeys(part, "")
    assert await form.pull(nothing, pull_credentials="yes") == 422
    assert form.wrong == ["pull_credentials"]
    await form.open()
    assert await form.send() == 303
    assert stored(gateway, label).items() >= whole.items()

    await form.open()
    assert await form.pull(part, pull_credentials="yes") == 303
    left = stored(gateway, label)
    assert left.items() >= part.items()
    assert left.get("region", "us1") == "us1"
    assert "subuser" not in left


async def test_every_field_takes_the_place_of_all_without_a_question(
    gateway: Running, browser: httpx.AsyncClient
) -> None:
    whole, part = PULLED["SendGrid"]
    await gateway.channel(label="SendGrid", secrets=[], pull_credentials=whole)
    form = Form(browser, "/console/t/acme/channels/SendGrid/edit")
    await form.open()
    assert await form.pull({**whole, **part}) == 303
    assert stored(gateway, "SendGrid") == {**whole, **part}


@pytest.mark.parametrize("has_some", [False, True])
async def test_credentials_are_open_where_they_are_wrong(
    gateway: Running, browser: httpx.AsyncClient, has_some: bool
) -> None:
    await gateway.channel(label="SendGrid", secrets=[], pull_credentials=PULLED["SendGrid"][0] if has_some else {})
    form = Form(browser, "/console/t/acme/channels/SendGrid/edit")
    await form.open()
    assert await form.pull({"api_key": "short", "subuser": "news"}) == 422
    assert form.wrong == ["pull_credentials.api_key"]
    assert form.credentials.has_attr("open")
    # So they are where something else is: a secret that was typed is not shown again, and has to be typed once more.
    await form.open()
    assert await form.pull({"api_key": "SG." + TOKEN, "subuser": "news"}, settings="{") == 422
    assert form.wrong == ["settings"]
    assert form.credentials.has_attr("open")
