"""A subscription as a form: saved as it is shown it stays what it was, and what would be lost is not offered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from backhaul_client.notificationmodels import Subscription
from backhaul_console.definitions import empty, holds, shown, typed
from backhaul_console.forms import Filled

FILTER: dict[str, Any] = {"channels": [], "communication_ids": [], "error_codes": [], "attributes": [], "kinds": []}
CREDENTIALS: dict[str, Any] = dict.fromkeys(("basic", "bearer_token", "header", "oauth", "mutual_tls"))
HTTP: dict[str, Any] = {"method": "POST", "url": "https://example.com/${id}", "headers": [], "credentials": None}
TLS = {"certificate": "-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n", "private_key": ""}
OAUTH = {"token_url": "https://a/t", "client_id": "i", "client_secret": "", "scope": "s", "audience": ""}


def subscription(**fields: Any) -> Subscription:
    standing = dict.fromkeys(
        ("oldest_waiting_at", "failing_since", "last_success_at", "last_failure_at", "last_failure", "resting_until")
    )
    whole = {
        "id": "sub_1",
        "revision": 3,
        "name": "Reports",
        "types": ["message.*"],
        "filter": FILTER,
        "http": HTTP,
        "mail": None,
        "payload": {"form": "full", "max_events": 0, "max_wait_s": 0, "with_raw": False},
        "policy": {"kind": "standard", "retry_after_s": [5, 300], "timeout_s": 15, "only_200": False},
        "ordering": "none",
        "rate_per_s": 0,
        "concurrency": 0,
        "alert_addresses": [],
        **dict.fromkeys(("state_text", "state_since", "created_at", "updated_at")),
        "state": "active",
        "secrets": [],
        "standing": {**standing, "waiting": 0, "held": 0},
        **fields,
    }
    return msgspec.convert(whole, Subscription)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"http": None, "payload": None, "mail": {"addresses": ["a@example.com", "b@example.com"], "every_minutes": 5}},
        {"policy": {"kind": "custom", "retry_after_s": [1, 60], "timeout_s": 5, "only_200": True}},
        {"payload": {"form": "thin", "max_events": 10, "max_wait_s": 3, "with_raw": True}},
        {"filter": {**FILTER, "channels": ["twilio"], "attributes": [{"name": "a", "value": "b=c d"}]}},
        {"ordering": "message", "rate_per_s": 7, "concurrency": 3, "alert_addresses": ["ops@example.com"]},
        {"http": {**HTTP, "method": "GET", "headers": [{"name": "X", "value": "a: b"}, {"name": "X", "value": ""}]}},
        {"http": {**HTTP, "credentials": {**CREDENTIALS, "basic": {"username": "u", "password": ""}}}},
        {"http": {**HTTP, "credentials": {**CREDENTIALS, "bearer_token": ""}}},
        {"http": {**HTTP, "credentials": {**CREDENTIALS, "header": {"name": "X", "value": ""}}}},
        {"http": {**HTTP, "credentials": {**CREDENTIALS, "oauth": OAUTH, "mutual_tls": TLS}}},
        {"http": {**HTTP, "credentials": {**CREDENTIALS, "mutual_tls": TLS}}},
    ],
)
def test_what_is_saved_as_it_is_shown_stays(fields: dict[str, Any]) -> None:
    found = subscription(**fields)
    assert holds(found)
    given = typed(shown(found))
    for name, value in fields.items():
        if name in ("mail", "payload", "policy", "ordering", "rate_per_s"):
            assert given[name] == value
    assert shown(found)["revision"] == "3"


@pytest.mark.parametrize(
    "fields",
    [
        {"filter": {**FILTER, "attributes": [{"name": "a=b", "value": "c"}]}},
        {"filter": {**FILTER, "communication_ids": [" spring "]}},
        {"filter": {**FILTER, "communication_ids": ["one\ntwo"]}},
        {"payload": {"form": "of tomorrow", "max_events": 0, "max_wait_s": 0, "with_raw": False}},
        {"policy": {"kind": "of tomorrow", "retry_after_s": [], "timeout_s": 0, "only_200": False}},
        {"http": {**HTTP, "method": "PATCH"}},
    ],
)
def test_what_a_form_would_lose_it_does_not_hold(fields: dict[str, Any]) -> None:
    assert not holds(subscription(**fields))


def test_an_empty_form_asks_for_the_defaults_once() -> None:
    given = typed(empty())
    assert given["http"] == {"method": "POST", "url": "", "headers": [], "credentials": None}
    assert given["mail"] is None
    assert empty()["idempotency_key"] != empty()["idempotency_key"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("http.headers", "no colon"), ("filter.attributes", "no equals"), ("policy.retry_after_s", "1, soon")],
)
def test_what_the_api_cannot_even_be_told_names_its_field(field: str, value: str) -> None:
    form = Filled({**empty().values, "policy.kind": ["custom"], field: [value]})
    with pytest.raises(Exception, match=r"\w") as refused:
        typed(form)
    assert getattr(refused.value, "field", "") == field
