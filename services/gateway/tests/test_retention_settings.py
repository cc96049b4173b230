"""For how long a tenant's events and messages are kept, through /admin."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_rig import Running

TENANTS = "/admin/v1/tenants"


async def send(gateway: Running, **days: Any) -> Any:
    """The answer to a change of these settings, by the first words of their names."""
    retention = {f"{what}_retention_days": number for what, number in days.items()}
    return await gateway.client.patch(f"{TENANTS}/acme", headers=gateway.admin, json={"retention": retention})


async def change(gateway: Running, **days: Any) -> list[int | None]:
    answer = await send(gateway, **days)
    assert answer.status_code == 200, answer.text
    shown = await gateway.client.get(f"{TENANTS}/acme", headers=gateway.admin)
    assert shown.json() == answer.json()
    kept = answer.json()["retention"]
    return [kept[f"{what}_retention_days"] for what in ("event", "message", "address")]


async def test_everything_is_kept_for_ever_until_a_tenant_says_otherwise(gateway: Running) -> None:
    await gateway.tenant()
    assert await change(gateway) == [None, None, None]
    # As before the settings were there.
    gateway.tenants.update_one({"_id": "acme"}, {"$unset": {"retention": ""}})
    assert await change(gateway, event=30, message=400) == [30, 400, None]
    assert await change(gateway, address=7, message=None) == [30, 400, 7]
    assert await change(gateway, message=0) == [30, None, 7]
    assert await change(gateway, event=0, address=0) == [None, None, None]


async def test_a_new_tenant_may_say_it_at_once(gateway: Running) -> None:
    body = {"id": "acme", "name": "Acme", "queue_path": "acme", "retention": {"event_retention_days": 36_500}}
    made = await gateway.client.post(TENANTS, headers=gateway.admin, json=body)
    assert made.status_code == 201, made.text
    assert await change(gateway) == [36_500, None, None]
    body = {"id": "other", "name": "Other", "queue_path": "other", "retention": {"event_retention_days": 6}}
    refused = await gateway.client.post(TENANTS, headers=gateway.admin, json=body)
    gateway.problem(refused, 422, "retention.event_retention_days")


async def test_what_does_not_fit_is_refused_by_its_name(gateway: Running, subtests: pytest.Subtests) -> None:
    await gateway.tenant()
    await change(gateway, event=30, message=60, address=50)
    wrong: list[tuple[dict[str, Any], str]] = [
        # Shorter than the streams, which is a week.
        ({"event": 6}, "event"),
        ({"address": 6}, "address"),
        ({"message": 29}, "message"),
        # Of two that do not fit each other, that which was sent.
        ({"event": 61}, "event"),
        ({"event": 0}, "event"),
        ({"event": 61, "message": 50}, "message"),
        ({"address": 61}, "address"),
        ({"message": 40}, "message"),
        ({"event": -1}, "event"),
        ({"message": 36_501}, "message"),
        ({"address": "a month"}, "address"),
        ({"event": 7.5}, "event"),
    ]
    for days, name in wrong:
        with subtests.test(days=days):
            gateway.problem(await send(gateway, **days), 422, f"retention.{name}_retention_days")
    assert await change(gateway) == [30, 60, 50]


@pytest.mark.parametrize(
    ("days", "message", "fix"),
    [
        (
            {"event": 6},
            (
                "The streams keep callbacks and events for 7 days, and what is replayed must be known: "
                "event_retention_days would be 6 days."
            ),
            "Send 7 or more, or 0 to keep for ever.",
        ),
        (
            {"event": 61},
            (
                "Messages are kept as long as their events at least: event_retention_days would be 61 days, "
                "message_retention_days 60 days."
            ),
            "Send an event_retention_days of 60 or less, or a message_retention_days of 61 or more, or of 0: for ever.",
        ),
        (
            {"event": 0},
            (
                "Messages are kept as long as their events at least: event_retention_days would be for ever, "
                "message_retention_days 60 days."
            ),
            "Send an event_retention_days of 60 or less, or a message_retention_days of 0: for ever.",
        ),
        (
            {"message": 40},
            (
                "Addresses go with their messages at the latest: address_retention_days would be 50 days, "
                "message_retention_days 40 days."
            ),
            "Send an address_retention_days of 40 or less, or of 0: then they go with their messages.",
        ),
    ],
)
async def test_a_refusal_says_what_would_fit(gateway: Running, days: dict[str, Any], message: str, fix: str) -> None:
    await gateway.tenant()
    await change(gateway, event=30, message=60, address=50)
    (error,) = (await send(gateway, **days)).json()["errors"]
    assert (error["message"], error["fix"]) == (message, fix)
