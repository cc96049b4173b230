"""What every provider must hold that asks an API.

``tests/cases/pull.json``: {credentials, settings?, source, expected_basis, windows: [{name, listing, from_us, to_us,
exchanges, events}], messages: [{name, message_id, exchanges, events}]}; an exchange is {url, params, status, headers?,
body}, and events are as in all other cases. ``settings`` are such that every listing is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from backhaul_channels import Adapter, ChannelSettings, Context, Ignored, RawCallback, Source
from backhaul_channels.pull import (
    Ask,
    CredentialsRefusedError,
    LaterError,
    Page,
    Puller,
    PullError,
    Response,
    Span,
    TooOftenError,
    UnreadableAnswerError,
    answered,
    is_among,
)
from conformance_cases import ADAPTERS, Case, case_files
from pydantic import ValidationError
from test_conformance_events import as_json

ASKING = {name: adapter for name, adapter in ADAPTERS.items() if adapter.puller is not None}
each_asking = pytest.mark.parametrize("adapter", ASKING.values(), ids=ASKING.keys())


def pull_file(provider: str) -> Case:
    found = [path for path in case_files(provider) if path.name == "pull.json"]
    assert found, f"providers/{provider} has a puller and no tests/cases/pull.json"
    content: Case = json.loads(found[0].read_text("utf-8"))
    return content


class Script:
    """A transport that answers what it is told to, and remembers what it was asked."""

    def __init__(self, exchanges: list[Case]) -> None:
        self.exchanges = list(exchanges)
        self.asked: list[tuple[str, Mapping[str, str], Mapping[str, str]]] = []

    async def get(self, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        self.asked.append((url, params, headers))
        exchange = self.exchanges.pop(0)
        return Response(exchange["status"], exchange.get("headers", {}), exchange["body"].encode())

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        return await self.get(url, form, headers)

    async def lines(self, url: str, headers: Mapping[str, str], skip: int, most: int) -> tuple[Sequence[bytes], bool]:
        response = answered(await self.get(url, {}, headers))
        lines = response.body.splitlines()[skip:]
        return lines[:most], len(lines) > most


def ask_of(adapter: Adapter[Any]) -> Ask[Any, Any]:
    puller = adapter.puller
    assert puller is not None
    return Ask(puller.credentials_model(**pull_file(adapter.provider)["credentials"]), settings_of(adapter))


def settings_of(adapter: Adapter[Any]) -> ChannelSettings:
    return adapter.settings_model(**pull_file(adapter.provider).get("settings", {}))


def secrets_of(adapter: Adapter[Any]) -> list[str]:
    assert adapter.puller is not None
    public = adapter.puller.credentials_model.public
    return [str(value) for name, value in pull_file(adapter.provider)["credentials"].items() if name not in public]


async def page_of(adapter: Adapter[Any], script: Script, case: Case, cursor: str = "") -> Page:
    puller: Puller[Any, Any] | None = adapter.puller
    assert puller is not None
    if "message_id" in case:
        return await puller.message(script, ask_of(adapter), case["message_id"])
    return await puller.window(script, ask_of(adapter), case["listing"], Span(case["from_us"], case["to_us"]), cursor)


def facts_of(adapter: Adapter[Any], record: bytes) -> list[Case]:
    settings = settings_of(adapter)
    context = Context(settings, source=Source.BACKFILL)
    facts = []
    for part in adapter.split(RawCallback("GET", "", [], record), settings):
        event = adapter.normalize(part, context)
        assert not isinstance(event, Ignored)
        facts.append(as_json(event))
    return facts


def all_cases(adapter: Adapter[Any]) -> list[Case]:
    content = pull_file(adapter.provider)
    assert content["windows"]
    assert content["messages"]
    return [*content["windows"], *content["messages"]]


@each_asking
async def test_each_request_is_made_and_each_record_becomes_its_fact(adapter: Adapter[Any]) -> None:
    for case in all_cases(adapter):
        script = Script(case["exchanges"])
        found: list[Case] = []
        cursor = ""
        while True:
            page = await page_of(adapter, script, case, cursor)
            found += [fact for record in page.records for fact in facts_of(adapter, record)]
            # The cursor alone must lead on: whoever asks may have been started anew.
            cursor = page.cursor
            if not cursor:
                break
        assert not script.exchanges, case["name"]
        expected = [(exchange["url"], exchange["params"]) for exchange in case["exchanges"]]
        assert [(url, params) for url, params, _ in script.asked] == expected, case["name"]
        assert found == case["events"], case["name"]


@each_asking
async def test_no_credential_is_in_an_address_or_in_the_name_of_the_account(adapter: Adapter[Any]) -> None:
    """Addresses are logged by whatever lies between. At least one header shows who is asking."""
    assert adapter.puller is not None
    secrets = secrets_of(adapter)
    for case in all_cases(adapter):
        script = Script(case["exchanges"])
        await page_of(adapter, script, case)
        for url, params, headers in script.asked:
            assert not [secret for secret in secrets if secret in url or secret in params.values()]
            assert headers
    account = adapter.puller.account(ask_of(adapter).credentials)
    assert account
    assert account == adapter.puller.account(ask_of(adapter).credentials)
    assert not [secret for secret in secrets if secret in account]


@each_asking
async def test_what_is_asked_is_what_the_puller_says_that_it_asks(adapter: Adapter[Any]) -> None:
    puller: Puller[Any, Any] | None = adapter.puller
    assert puller is not None
    listings = {one.name: one for one in puller.listings(settings_of(adapter))}
    assert {one.budget for one in listings.values()} | {puller.message_budget} <= puller.budgets.keys()
    for case in all_cases(adapter):
        script = Script(case["exchanges"])
        await page_of(adapter, script, case)
        for url, _, _ in script.asked:
            assert is_among(url, puller.origins)
    assert listings.keys() <= {case["listing"] for case in pull_file(adapter.provider)["windows"]}


@each_asking
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": 401, "body": "{}"}, CredentialsRefusedError),
        ({"status": 403, "body": "no"}, CredentialsRefusedError),
        ({"status": 429, "body": "", "headers": {"retry-after": "7"}}, TooOftenError),
        ({"status": 503, "body": "<html>"}, LaterError),
        ({"status": 302, "body": "", "headers": {"location": "https://elsewhere.example.com"}}, UnreadableAnswerError),
        ({"status": 200, "body": "<html>"}, UnreadableAnswerError),
        ({"status": 200, "body": "[7]"}, UnreadableAnswerError),
        ({"status": 200, "body": ""}, UnreadableAnswerError),
    ],
)
async def test_what_is_no_answer_raises_what_it_means(
    adapter: Adapter[Any], answer: Case, error: type[PullError]
) -> None:
    for case in all_cases(adapter):
        with pytest.raises(error) as caught:
            await page_of(adapter, Script([answer] * 9), case)
        assert not [secret for secret in secrets_of(adapter) if secret in str(caught.value)]
        if isinstance(caught.value, LaterError):
            assert caught.value.retry_after_s == (7.0 if answer["status"] == 429 else None)


@each_asking
def test_credentials_are_strict_when_they_are_given_and_lenient_when_they_are_stored(adapter: Adapter[Any]) -> None:
    assert adapter.puller is not None
    assert adapter.puller.reaches_back_days > 0
    model, good = adapter.puller.credentials_model, pull_file(adapter.provider)["credentials"]
    with pytest.raises(ValidationError):
        model.model_validate({})
    with pytest.raises(ValidationError) as caught:
        model.model_validate({**good, "no_such_field": "hidden"})
    assert "hidden" not in str(caught.value)
    assert model.of_stored({**good, "newer": "1"}) == model.model_validate(good)


@pytest.mark.parametrize(
    ("told", "after_s"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("Fri, 27 Nov 2026 07:02:00 GMT", 120.0),
        ("Fri, 27 Nov 2026 06:02:00 GMT", 0.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("\u00b2", None),
        ("\u0663", None),
        ("Fri, 27 Nov 999999999 07:02:00 GMT", None),
        ("Fri, 27 Nov 2026 07:02:00", None),
    ],
)
def test_when_a_provider_wants_to_be_asked_again_is_a_number_or_a_time_by_its_clock(
    told: str, after_s: float | None
) -> None:
    headers = {"retry-after": told, "date": "Fri, 27 Nov 2026 07:00:00 GMT"}
    with pytest.raises(TooOftenError) as caught:
        answered(Response(429, headers, b""))
    assert caught.value.retry_after_s == after_s


def test_a_provider_that_wants_to_be_left_alone_for_longer_than_there_are_numbers_is_understood() -> None:
    with pytest.raises(TooOftenError) as caught:
        answered(Response(429, {"retry-after": "9" * 5_000}, b""))
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 1e9
