"""What is made of a subscription's definition by options and documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from answering import Gateway
from backhaul_cli import subscribing
from backhaul_cli.__main__ import main

CUSTOM = {"kind": "custom", "retry_after_s": [5, 60], "timeout_s": 20, "only_200": True}


def changed(base: dict[str, Any], **given: object) -> dict[str, Any]:
    """``base`` with the options that were given, by their fields."""
    none = {flag.field.replace(".", "_"): None for flag in subscribing._FLAGS}
    assert given.keys() <= none.keys()
    return subscribing.defined({"types": ["*"], **base}, {**none, **given}, read_before=False)


def test_a_policy_of_another_kind_has_nothing_of_the_one_before() -> None:
    assert changed({"policy": CUSTOM}, policy_kind="standard")["policy"] == {"kind": "standard"}
    # What is given with it is the gateway's to refuse, in its words.
    found = changed({"policy": CUSTOM}, policy_kind="rcs", policy_timeout_s=9)["policy"]
    assert found == {"kind": "rcs", "timeout_s": 9}
    assert changed({"policy": CUSTOM}, policy_kind="custom", policy_timeout_s=9)["policy"] == {**CUSTOM, "timeout_s": 9}
    assert changed({"policy": CUSTOM}, rate_per_s=9)["policy"] == CUSTOM


def test_a_certificate_stays_unless_all_is_taken_away() -> None:
    tls = {"certificate": "PEM", "private_key": ""}
    shown = {"basic": {"username": "a", "password": ""}, "mutual_tls": tls}
    base = {"http": {"url": "https://example.com/told", "credentials": shown}}

    def left(**given: object) -> Any:
        return changed(base, **given)["http"]["credentials"]

    assert left(basic="") == left(credential_header="") == {"mutual_tls": tls}
    assert left(bearer=False) == {"mutual_tls": tls}
    assert left(credentials="") is None
    assert left(rate_per_s=1) == shown


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("types", 5),
        ("types", "message.*"),
        ("name", ["a"]),
        ("filter", []),
        ("http", "https://example.com/told"),
        ("http", {"url": "https://example.com/told", "credentials": "the secret"}),
        ("mail", ["team@example.com"]),
        ("payload", "thin"),
        ("policy", "standard"),
        ("ordering", {}),
        ("rate_per_s", "5"),
        ("concurrency", True),
        ("alert_addresses", "team@example.com"),
        ("revision", "9"),
    ],
)
def test_a_part_of_the_wrong_kind_is_named(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: object
) -> None:
    file = tmp_path / "subscription.json"
    file.write_text(json.dumps({"types": ["*"], "http": {"url": "https://example.com/told"}, field: value}))
    for command in (["add"], ["change", "s1"]):
        assert main(["subscriptions", *command, "--file", str(file), "--policy", "rcs"]) == 2
        said = capsys.readouterr().err
        assert f": {field}" in said
        assert "the secret" not in said
    assert not [name for name, _ in gateway.asked if not name.startswith("GET ")]


def test_null_in_a_document_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "subscription.json"
    file.write_text(json.dumps({"types": ["*"], "mail": None, "alert_addresses": None, "state": "active"}))
    assert subscribing.read(str(file)) == {"types": ["*"]}


THERE: dict[str, Any] = {
    **dict.fromkeys(("state_text", "state_since", "created_at", "updated_at", "mail")),
    "id": "s1",
    "revision": 3,
    "name": "Reports",
    "types": ["*"],
    "filter": {
        "channels": [],
        "communication_ids": [],
        "error_codes": [],
        "attributes": [{"name": "a", "value": "b"}],
        "kinds": [],
    },
    "http": {"method": "POST", "url": "https://example.com/told", "headers": [], "credentials": None},
    "payload": {"form": "full", "max_events": 1, "max_wait_s": 0, "with_raw": False},
    "policy": {"kind": "standard", "retry_after_s": [], "timeout_s": 0, "only_200": False},
    "ordering": "none",
    "rate_per_s": 0,
    "concurrency": 0,
    "alert_addresses": [],
    "state": "active",
    "secrets": [
        {"kind": "hmac", "secret": None, "public_key": None, "created_at": "2026-11-28T09:00:00Z", "expires_at": None}
    ],
    "standing": {
        **dict.fromkeys(("oldest_waiting_at", "failing_since", "last_success_at", "last_failure_at", "last_failure")),
        "waiting": 0,
        "held": 0,
        "resting_until": None,
    },
}
PUT = "PUT /v1/subscriptions/s1"


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("quiet_hours", {"quiet_hours": False}),
        ("policy.jitter", {"policy": {**THERE["policy"], "jitter": 0.5}}),
        (
            "filter.attributes[0].not",
            {"filter": {**THERE["filter"], "attributes": [{"name": "a", "value": "b", "not": True}]}},
        ),
    ],
)
def test_what_a_newer_gateway_knows_is_not_taken_away(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, more: dict[str, Any]
) -> None:
    gateway.says("GET /v1/subscriptions/s1", {**THERE, **more})
    gateway.says(PUT, THERE)
    file = tmp_path / "subscription.json"
    file.write_text(json.dumps(THERE))
    for said in (["--rate", "5"], ["--file", str(file)]):
        assert main(["subscriptions", "change", "s1", *said]) == 5
        assert f" {field}," in capsys.readouterr().err
    assert gateway.to(PUT) == []


def test_what_is_no_setting_hinders_nothing(gateway: Gateway) -> None:
    standing = {**THERE["standing"], "percentile_ms": 9}
    policy = {**THERE["policy"], "jitter": None}
    gateway.says("GET /v1/subscriptions/s1", {**THERE, "standing": standing, "policy": policy})
    gateway.says(PUT, THERE)
    assert main(["subscriptions", "change", "s1", "--rate", "5"]) == 0
    (put,) = gateway.to(PUT)
    assert put == {
        **{name: THERE[name] for name in ("types", "name", "filter", "http", "payload", "policy", "ordering")},
        "policy": policy,
        "rate_per_s": 5,
        "revision": 3,
    }
