"""Two versions of the tenant's model: what a newer copy wrote survives an older one's changes, and is not shown.

The gateway under test is the older copy. The newer one is the models below, which write and read the same collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from backhaul_client.adminmodels import NewTenant as Registered
from backhaul_common.tenants import Channel, Credential, Limits, SuppressionSettings, Tenant
from backhaul_gateway.admin.models import LimitsOut
from backhaul_gateway.admin.tenants import _limits
from gateway_rig import Running
from pydantic import BaseModel, ConfigDict

TENANTS = "/admin/v1/tenants"
ACME = f"{TENANTS}/acme"
UNKNOWN = "newer_"
"""How every field begins that the older copy does not know."""

CREATED = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Pull(BaseModel):
    """A value of its own inside of a channel."""

    newer_credentials: tuple[str, ...]
    newer_every: dict[str, int]


class NewerChannel(Channel):
    newer_pull: Pull
    newer_paused: bool = False


class NewerLimits(Limits):
    newer_deliveries_per_second: float


class NewerSuppression(SuppressionSettings):
    newer_quiet_hours: dict[str, int]


class NewerCredential(Credential):
    newer_scopes: tuple[str, ...]
    newer_expires_at: datetime


class NewerTenant(Tenant):
    model_config = ConfigDict(extra="forbid")

    limits: NewerLimits
    suppression: NewerSuppression
    credentials: tuple[NewerCredential, ...]
    channels: Mapping[str, NewerChannel]
    newer_plan: dict[str, list[int]]
    queue_path_key: str
    _id: str


PULL = Pull(newer_credentials=("gAAA", "gBBB"), newer_every={"minutes": 10})


def newer(gateway: Running) -> dict[str, Any]:
    """The tenant as the newer copy reads it."""
    document = gateway.tenants.find_one({"_id": "acme"})
    assert document is not None
    document["id"] = document.pop("_id")
    return NewerTenant.model_validate(document).model_dump()


@pytest.fixture
async def registered(gateway: Running) -> Registered:
    """Acme, with a Twilio and a SendGrid channel, after a newer copy has written to it."""
    tenant = await gateway.tenant()
    for label in ("Twilio", "SendGrid"):
        await gateway.channel(label=label, secrets=[], verification="observe")
    added = {
        "newer_plan": {"steps": [1, 2]},
        "limits.newer_deliveries_per_second": 2.5,
        "suppression.newer_quiet_hours": {"from": 21},
        **{f"channels.{key}.newer_pull": PULL.model_dump(mode="json") for key in ("twilio", "sendgrid")},
        "channels.twilio.newer_paused": True,
        "channels.twilio.settings.newer_mapping": {"a": [1]},
        **{f"credentials.{n}.newer_scopes": ["read"] for n in range(2)},
        **{f"credentials.{n}.newer_expires_at": CREATED for n in range(2)},
    }
    gateway.tenants.update_one({"_id": "acme"}, {"$set": added, "$inc": {"revision": 1}})
    # It is announced as every change is; here the next change of this copy reads it.
    before = newer(gateway)
    assert before["limits"]["newer_deliveries_per_second"] == 2.5
    assert before["channels"]["twilio"]["settings"] == {"newer_mapping": {"a": [1]}}
    return tenant


def unknown_names(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [name for name in value if name.startswith(UNKNOWN)] + unknown_names(list(value.values()))
    return [name for item in value for name in unknown_names(item)] if isinstance(value, list) else []


@pytest.mark.usefixtures("registered")
async def test_nothing_of_a_newer_copy_is_erased_by_an_older_ones_changes(gateway: Running) -> None:
    before = newer(gateway)

    async def call(method: str, path: str = "", expected: int = 200, **body: Any) -> Any:
        answer = await gateway.client.request(method, ACME + path, headers=gateway.admin, json=body or None)
        assert answer.status_code == expected, answer.text
        shown = answer.json() if answer.content else {}
        # Settings are a document of the provider's, and shown as they are stored.
        for channel in [shown, *shown.get("channels", [])]:
            channel.pop("settings", None)
        assert not unknown_names(shown), shown
        return shown

    await call("PATCH", name="Renamed")
    await call("PATCH", limits={"burst": 7})
    await call("PATCH", suppression={"whatsapp": "phone"})
    await call("PATCH", status="suspended")
    await call("PATCH", status="active")
    await call("PUT", "/channels/twilio", verification="enforce")
    await call("PUT", "/channels/Twilio", secrets=["0123456789abcdef"])
    issued = await call("POST", "/keys", 201, kind="api")
    await call("DELETE", f"/keys/{issued['id']}", 204)
    for path in ("", "/channels", "/channels/twilio"):
        await call("GET", path)
    listed = (await gateway.client.get(TENANTS, headers=gateway.admin)).json()["tenants"][0]
    assert unknown_names(listed["limits"]) == unknown_names(listed["keys"]) == []

    after = newer(gateway)
    twilio = after["channels"]["twilio"]
    assert twilio["secrets"]
    assert (twilio["label"], twilio["verification"]) == ("Twilio", "enforce")
    changed = {"name": "Renamed", "revision": after["revision"], "updated_at": after["updated_at"]}
    channel = {
        **before["channels"]["twilio"],
        **{name: twilio[name] for name in ("secrets", "verification", "updated_at")},
    }
    assert after == {
        **before,
        **changed,
        "limits": {**before["limits"], "burst": 7},
        "suppression": {**before["suppression"], "whatsapp": "phone"},
        "channels": {**before["channels"], "twilio": channel},
    }


@pytest.mark.usefixtures("registered")
async def test_only_what_is_removed_takes_its_newer_fields_with_it(gateway: Running) -> None:
    before = newer(gateway)
    old_key = next(one for one in before["credentials"] if one["kind"] == "api")
    removed = await gateway.client.delete(f"{ACME}/keys/{old_key['id']}", headers=gateway.admin)
    assert removed.status_code == 204
    assert (await gateway.client.delete(f"{ACME}/channels/sendgrid", headers=gateway.admin)).status_code == 204
    after = newer(gateway)
    assert after["credentials"] == tuple(one for one in before["credentials"] if one != old_key)
    assert after["channels"] == {"twilio": before["channels"]["twilio"]}


@pytest.mark.usefixtures("registered")
async def test_another_provider_and_new_settings_begin_anew(gateway: Running) -> None:
    url = f"{ACME}/channels/twilio"
    # Settings are replaced as a whole; the rest of the channel stays.
    body = {"settings": {"communication_keys": ["offer"]}}
    assert (await gateway.client.put(url, headers=gateway.admin, json=body)).status_code == 200
    stored = gateway.tenants.find_one({})["channels"]["twilio"]
    assert stored["settings"] == body["settings"]
    assert stored["newer_pull"] == PULL.model_dump(mode="json")
    # What belongs to one provider is not handed to another.
    assert (await gateway.client.put(url, headers=gateway.admin, json={"provider": "sendgrid"})).status_code == 200
    stored = gateway.tenants.find_one({})["channels"]["twilio"]
    assert (stored["provider"], stored["settings"], stored["verification"]) == ("sendgrid", {}, "observe")
    assert not unknown_names(stored)


async def test_settings_of_a_newer_version_do_not_stop_a_channel(gateway: Running, registered: Registered) -> None:
    secrets = {"secrets": [gateway.secret], "verification": "enforce"}
    assert (await gateway.client.put(f"{ACME}/channels/twilio", headers=gateway.admin, json=secrets)).status_code == 200
    assert newer(gateway)["channels"]["twilio"]["settings"] == {"newer_mapping": {"a": [1]}}
    assert (await gateway.post(registered)).status_code == 200
    # People still may not send what is not known.
    unknown: dict[str, Any] = {"settings": {"newer_mapping": {}}}
    answer = await gateway.client.put(f"{ACME}/channels/twilio", headers=gateway.admin, json=unknown)
    gateway.problem(answer, 422, "settings.newer_mapping")


@pytest.mark.usefixtures("registered")
async def test_a_deletion_keeps_them_until_the_end(gateway: Running) -> None:
    before = newer(gateway)
    answer = await gateway.client.delete(ACME, headers=gateway.admin, params={"purge": "true"})
    assert answer.status_code == 202
    assert UNKNOWN not in answer.text.replace("newer_mapping", "")
    after = newer(gateway)
    changed = {name: after[name] for name in ("status", "deleting_since", "revision", "updated_at")}
    assert after == {**before, **changed}
    assert after["status"] == "deleting"


def test_a_limit_that_is_out_of_range_is_named_and_newer_ones_stay() -> None:
    present = NewerLimits(newer_deliveries_per_second=2.5)
    assert _limits(Limits.model_validate(present.model_dump()), {"burst": 3}).model_extra == {
        "newer_deliveries_per_second": 2.5
    }


def test_every_limit_that_is_known_is_shown() -> None:
    assert LimitsOut.model_fields.keys() == Limits.model_fields.keys()
