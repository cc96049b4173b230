"""The table of what is logged: a change by each route is in the log, and no secret of any."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

import pytest
from backhaul_gateway.admission.access import ROUTES
from backhaul_gateway.admission.logged import LOGGED, UNLOGGED, Logged
from backhaul_gateway.web import guard
from changes_rig import Json, changes, stored
from gateway_rig import Running
from hypothesis import given
from hypothesis import strategies as st

SECRET, PERSON = "planted-where-secrets-are", "5005550042"
CREDENTIALS = {"basic": {"username": SECRET, "password": SECRET}}
SUBSCRIPTION = {
    "name": "Ours",
    "types": ["*"],
    "filter": {"channels": ["twilio"], "attributes": [{"name": "a", "value": PERSON}]},
    "http": {
        "url": f"https://hooks.example.com/{SECRET}?key={SECRET}",
        "headers": [{"name": "X", "value": SECRET}],
        "credentials": CREDENTIALS,
    },
    "alert_addresses": [f"{PERSON}@example.com"],
}
SAID = {"address": f"+1{PERSON}", "kind": "manual", "note": f"{PERSON} said so"}
BODIES: dict[str, Json] = {
    "POST /admin/v1/apply": {"version": 1, "tenants": []},
    "PUT /v1/channels/{label}": {"provider": "twilio", "secrets": [SECRET]},
    "PUT /admin/v1/tenants/{tenant_id}/channels/{label}": {"provider": "twilio", "secrets": [SECRET]},
    "PUT /v1/communications/{communication_id}": {"name": "Spring", "notify": [f"{PERSON}@example.com"]},
    "POST /v1/communications/{communication_id}/disable": {"reason": f"{PERSON} called"},
    "POST /v1/communications/{communication_id}/enable": {"reason": f"{PERSON} called"},
    "PUT /v1/communications/{communication_id}/batches/{batch_id}": {"label": "First"},
    "POST /v1/suppressions": SAID,
    "POST /v1/suppressions/lift": SAID,
    "POST /v1/suppressions/reactivate": {"address": f"+1{PERSON}", "note": PERSON},
    "POST /admin/v1/tenants/{tenant_id}/suppressions": SAID,
    "POST /admin/v1/tenants/{tenant_id}/suppressions/lift": SAID,
    "POST /v1/audits/erasures": {"address": f"+1{PERSON}"},
    "POST /v1/reconciliation/runs": {"channel": "Twilio"},
    "POST /v1/replays": {"channel": "Twilio", "from": "2026-11-25T00:00:00Z"},
    "POST /v1/dead-letters/replay": {"channel": "Twilio"},
    "POST /v1/dead-letters/discard": {"channel": "Twilio"},
    "POST /admin/v1/tenants/{tenant_id}/dead-letters/replay": {"channel": "Twilio"},
    "POST /admin/v1/tenants/{tenant_id}/dead-letters/discard": {"channel": "Twilio"},
    "POST /v1/subscriptions": {**SUBSCRIPTION, "secret": SECRET},
    "PUT /v1/subscriptions/{subscription_id}": SUBSCRIPTION,
    "POST /v1/subscriptions/{subscription_id}/resume": {"rate_per_s": 7},
    "POST /v1/subscriptions/{subscription_id}/rotate-secret": {"secret": SECRET},
    "POST /v1/subscriptions/{subscription_id}/redeliver": {"which": "all", "from": "2026-11-25T00:00:00Z"},
    "POST /admin/v1/tenants": {"id": "other", "name": "Other", "queue_path": "other"},
    "PATCH /admin/v1/tenants/{tenant_id}": {"name": "Acme Ltd"},
    "POST /admin/v1/services": {"id": "crm", "name": "CRM", "tenants": ["acme"], "verbs": ["check"]},
    "PATCH /admin/v1/services/{service_id}": {"name": "The CRM"},
}
PARTS = {
    "tenant_id": "acme",
    "service_id": "crm",
    "label": "Second",
    "address": f"+1{PERSON}",
    "subscription_id": "sub_" + "0" * 24,
    **dict.fromkeys(("delivery_id", "reply_id", "dead_letter_id", "replay_id"), "0" * 32),
}
PART = re.compile(r"\{(\w+)\}")
LAST = ("DELETE /admin/v1/services/{service_id}", "DELETE /admin/v1/tenants/{tenant_id}")


async def test_every_change_is_logged_or_said_not_to_be(gateway: Running) -> None:
    """A route that is not GET needs a row in a table of admission/logged.py."""
    changing = {route for route in ROUTES if not route.startswith("GET ")}
    assert set(LOGGED) | set(UNLOGGED) == changing
    assert not set(LOGGED) & set(UNLOGGED)
    # And each field of its body is one that is shown, or one that is masked.
    document = (await gateway.client.get("/openapi.json")).json()
    for route, logged in LOGGED.items():
        method, path = route.split()
        content = document["paths"][path][method.lower()].get("requestBody", {}).get("content", {})
        if logged.stored or logged.file or "application/json" not in content:
            continue
        schema, definitions = content["application/json"]["schema"], document["components"]["schemas"]
        undecided = list(_undecided(schema, definitions, logged))
        assert not undecided, (route, undecided)


def _undecided(schema: Json, definitions: Json, logged: Logged, above: str = "") -> Any:
    """Fields of a body that the table does not name."""
    for one in (schema, *schema.get("anyOf", ()), *schema.get("allOf", ())):
        properties = definitions[one["$ref"].rpartition("/")[2]] if "$ref" in one else one
        for name, field in properties.get("properties", {}).items():
            path = above + name
            if path not in logged.shows | logged.hides:
                inside = list(_undecided(field, definitions, logged, f"{path}."))
                begins = any(known.startswith(f"{path}.") for known in logged.shows | logged.hides)
                yield from inside if begins else [path]


@pytest.mark.slow
async def test_a_change_by_each_route_is_in_the_log_and_no_secret_of_any(gateway: Running) -> None:
    tenant = await gateway.tenant()
    key = {"X-Api-Key": tenant.api_key}
    author = f"key:{tenant.api_key.split('_')[1]}"
    known = len(stored(gateway))
    for route in sorted(LOGGED, key=lambda one: (one in LAST, one.startswith("DELETE"), one.count("/"), one)):
        method, path = route.split()
        admin = path.startswith("/admin")
        file = {"content": f"address\n+1{PERSON}\n", "headers": {"Content-Type": "text/csv"}}
        asked: Json = file if LOGGED[route].file else {"json": BODIES.get(route)}
        headers = {**(gateway.admin if admin else key), **asked.pop("headers", {})}
        where = PART.sub(lambda part: PARTS.get(part[1], "x"), path)
        answer = await gateway.client.request(method, where, headers=headers, **asked)
        *_, entry = stored(gateway)
        known += 1
        assert len(stored(gateway)) == known, (route, answer.text)
        assert (entry["action"], entry["status"]) == (route, answer.status_code)
        assert (entry["author"], entry["client"]) == ("admin:admin" if admin else author, "127.0.0.1")
        assert entry["trace_id"]
        if not path.startswith(("/admin/v1/services", "/admin/v1/audit", "/admin/v1/secret", "/admin/v1/apply")):
            assert entry["of"].startswith(("acme.", "other."))
        # What is away was asked, and nobody knows what it did: what it was asked for is there.
        assert answer.status_code < 300 or answer.status_code in (404, 409, 503), (route, answer.text)
        if answer.status_code == 503:
            assert bool(entry["after"]) == (route in BODIES or LOGGED[route].file), route
    text = str(stored(gateway))
    assert SECRET not in text
    assert PERSON not in text
    assert tenant.api_key not in text
    shown = {entry["action"]: entry for entry in await changes(gateway, gateway.admin, "/admin/v1", limit="500")}
    assert set(shown) == set(LOGGED)
    made = shown["POST /v1/subscriptions"]
    assert (made["outcome"], made["after"]["types"]) == ("failed", ["*"])
    assert made["after"]["http"] == {
        "url": "https://hooks.example.com/***", "headers": "***", "credentials": "***",
    }  # fmt: skip
    assert shown["POST /v1/suppressions"]["after"] == {"address": "***", "kind": "manual", "note": "***"}
    assert shown["DELETE /v1/recipients/{address}"]["target"] == {"address": "***"}
    assert shown["POST /v1/suppressions/import"]["after"] == {
        "bytes": 21, "sha256": sha256(f"address\n+1{PERSON}\n".encode()).hexdigest(),
    }  # fmt: skip
    renamed = shown["PATCH /admin/v1/tenants/{tenant_id}"]
    assert (renamed["before"]["name"], renamed["after"]["name"]) == ("acme", "Acme Ltd")
    assert renamed["after"]["revision"] == renamed["before"]["revision"] + 1
    assert shown["DELETE /v1/channels/{label}"]["before"]["label"] == "Second"
    assert shown["DELETE /v1/channels/{label}"]["after"] is None
    assert shown["PUT /v1/channels/{label}"]["after"]["secrets"] == "***"
    service = shown["PATCH /admin/v1/services/{service_id}"]
    assert (service["before"]["name"], service["after"]["name"]) == ("CRM", "The CRM")
    assert shown["DELETE /admin/v1/services/{service_id}"]["before"]["name"] == "The CRM"


async def test_a_change_that_no_table_names_is_closed_to_everybody(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await gateway.tenant()
    (keys,) = [one for one in gateway.routes if one.path_format == "/v1/keys" and "POST" in (one.methods or ())]
    monkeypatch.setattr(guard, "LOGGED", {})
    monkeypatch.setattr(keys, "app", keys.app)
    nobody: Any = None
    guard.Guard(nobody, nobody, nobody).protect([keys])
    for headers in ({}, gateway.admin, {"X-Api-Key": tenant.api_key}):
        refused = gateway.problem(await gateway.client.post("/v1/keys", headers=headers), 403)
        assert "logged" in refused["detail"]


_VALUES = st.recursive(
    st.just(SECRET), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just(SECRET), inner, max_size=1)
)


@given(st.sampled_from([one for one in LOGGED.values() if one.has_body]), st.data())
def test_what_is_not_shown_is_in_no_entry(logged: Logged, data: st.DataObject) -> None:
    """Wherever a secret stands, but in what is shown, under names that nobody knows too."""
    body: Json = {}
    beside = {f"{path.rpartition('.')[0]}.unknown" for path in logged.shows | logged.hides if "." in path}
    for path in logged.hides | beside | {"unknown"}:
        *above, name = path.split(".")
        inside = body
        for part in above:
            inside = inside.setdefault(part, {})
        inside[name] = data.draw(_VALUES)
    shown = {path for path in logged.shows if "." not in path}
    body |= dict.fromkeys(shown, "shown")
    kept = logged.asked(body)
    assert SECRET not in str(kept)
    assert {name: kept[name] for name in shown - {"url"}} == dict.fromkeys(shown - {"url"}, "shown")
