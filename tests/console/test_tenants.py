"""The platform team's pages of tenants: found, made, changed, opened for a while, deleted."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from backhaul_client import NotFoundError
from backhaul_client.tenant import AsyncTenantClient

if TYPE_CHECKING:
    from backhaul_client.adminmodels import Key
    from simulators.people import Tenant, Town
    from simulators.visiting import Visitor

HOSTILE = "<img src=x onerror=alert(1)> \" '{{ 7*7 }}"


async def _keys(town: Town, tenant: Tenant) -> dict[str, Key]:
    return {key.id: key for key in (await town.platform.client.tenant(tenant.id)).keys}


def _shown_once(visitor: Visitor) -> list[str]:
    return [found.get_text() for found in visitor.page.select(".said code")]


async def test_a_tenant_is_found_by_part_of_its_name(town: Town, visitor: Visitor, admin_token: str) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    await town.platform.client.change_tenant(tenant.id, name=f"Zebra {tenant.id} {HOSTILE}")
    await visitor.sign_in(admin_token)
    await visitor.follow("Tenants")
    await visitor.submit("/tenants", q=f"zEBRA {tenant.id}")
    while tenant.id not in visitor.main and "Go on" in visitor.main:
        await visitor.follow("Go on")
    assert [row[0] for row in visitor.rows("Tenants")] == [tenant.id]
    assert visitor.rows("Tenants")[0][1].endswith(HOSTILE)
    assert visitor.page.find("img") is None
    await visitor.follow(tenant.id)
    assert f"Zebra {tenant.id} {HOSTILE}" in visitor.main
    assert {row[0] for row in visitor.rows("Channels")} == {"Twilio", "SendGrid"}
    await visitor.go(f"/console/admin/tenants?q={other.id}xyz")
    assert other.id not in visitor.rows("Tenants")[0]


async def test_a_new_tenants_credentials_are_shown_once_and_work(
    town: Town, visitor: Visitor, admin_token: str
) -> None:
    id_ = f"made-{secrets.token_hex(4)}"
    await visitor.sign_in(admin_token)
    await visitor.go("/console/admin/new-tenant")
    await visitor.submit("/new-tenant", id="Not An Id", name="Made", queue_path=id_)
    assert visitor.status == 422
    page = visitor.page
    assert page.select('input[name="queue_path"]')[0]["value"] == id_
    assert page.select_one('input[name="id"][aria-invalid="true"]') is not None
    await visitor.submit("/new-tenant", id=id_, name="Made", queue_path=id_)
    api_key, ingest_token = _shown_once(visitor)
    assert (await AsyncTenantClient(town.platform.base_url, api_key, http=town.http).whoami()).tenant_id == id_
    await visitor.follow("To the tenant")
    assert api_key not in visitor.text
    assert ingest_token not in visitor.text
    await visitor.go(f"/console/admin/tenants/{id_}/delete")
    await visitor.submit("/delete", id=id_)
    assert visitor.url.endswith("/console/admin/tenants?said=deleted")
    with pytest.raises(NotFoundError):
        await town.platform.client.tenant(id_)


async def test_settings_are_changed_alone_where_they_were_typed(town: Town, visitor: Visitor, admin_token: str) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(admin_token)
    await visitor.go(f"/console/admin/tenants/{tenant.id}/settings")
    # Meanwhile somebody else changes another one.
    await town.platform.client.change_tenant(tenant.id, limits={"burst": 777})
    await visitor.submit("/settings", None, **{"limits.concurrent_reads": "many"})
    assert visitor.status == 422
    assert "limits.concurrent_reads" in visitor.main
    await visitor.submit(
        "/settings",
        None,
        **{
            "limits.concurrent_reads": "7",
            "limits.requests_per_second": "12.5",
            "retention.event_retention_days": "400",
            "suppression.revocation_scope": "topic",
        },
    )
    await visitor.submit("/settings")
    assert visitor.status == 200
    now = await town.platform.client.tenant(tenant.id)
    assert (now.limits.concurrent_reads, now.limits.requests_per_second, now.limits.burst) == (7, 12.5, 777)
    assert now.retention.event_retention_days == 400
    assert (now.suppression.revocation_scope, now.suppression.topic_since is not None) == ("topic", True)
    await visitor.go(f"/console/admin/tenants/{tenant.id}/settings")
    await visitor.submit(
        "/settings", None, **{"retention.event_retention_days": "0", "limits.overdraft_callbacks": "5"}
    )
    now = await town.platform.client.tenant(tenant.id)
    assert (now.retention.event_retention_days, now.limits.overdraft_callbacks) == (None, 5)


async def test_what_would_delete_data_is_asked_about_first(town: Town, visitor: Visitor, admin_token: str) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(admin_token)
    settings = f"/console/admin/tenants/{tenant.id}/settings"

    async def kept() -> tuple[int | None, int | None]:
        now = await town.platform.client.tenant(tenant.id)
        return now.retention.event_retention_days, now.audit.retention_days

    # From for ever, and from more days to fewer; what else was typed goes along.
    await visitor.go(settings)
    await visitor.submit("/settings", None, **{"retention.event_retention_days": "400", "name": HOSTILE})
    assert "what the provider sent" in visitor.main
    assert "for ever → 400" in visitor.main
    assert await kept() == (None, None)
    # What somebody else has changed since is told anew.
    await town.platform.client.change_tenant(tenant.id, retention={"event_retention_days": 500})
    await visitor.submit("/settings")
    assert "500 → 400" in visitor.main
    assert await kept() == (500, None)
    await visitor.submit("/settings")
    assert await kept() == (400, None)
    assert (await town.platform.client.tenant(tenant.id)).name == HOSTILE
    await visitor.go(settings)
    await visitor.submit("/settings", None, **{"retention.event_retention_days": "300", "audit.retention_days": "500"})
    assert "400 → 300" in visitor.main
    assert "for ever → 500" in visitor.main
    await visitor.follow("Leave it as it is")
    assert await kept() == (400, None)
    # Nothing is deleted where more is kept.
    await visitor.go(settings)
    await visitor.submit("/settings", None, **{"retention.event_retention_days": "0"})
    assert await kept() == (None, None)


async def test_keys_are_added_and_revoked(town: Town, visitor: Visitor, admin_token: str) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(admin_token)
    await visitor.go(f"/console/admin/tenants/{tenant.id}/keys")
    await visitor.submit("/keys", kind="api")
    assert visitor.status == 422
    await visitor.submit("/keys", kind="api", scopes="read", expires_at="2999-01-01")
    (text,) = _shown_once(visitor)
    holder = await AsyncTenantClient(tenant.base_url, text, http=town.http).whoami()
    assert (holder.tenant_id, holder.scopes) == (tenant.id, ("read",))
    await visitor.go(f"/console/admin/tenants/{tenant.id}/keys")
    await visitor.submit("/keys", kind="ingest")
    assert all(_shown_once(visitor)[0] in row[1] for row in visitor.rows("Addresses"))
    assert len(visitor.rows("Addresses")) == 2
    await visitor.go(f"/console/admin/tenants/{tenant.id}/keys/{holder.key_id}/revoke")
    assert holder.key_id in await _keys(town, tenant), "looking at the question revokes nothing"
    await visitor.submit("/revoke")
    assert holder.key_id not in await _keys(town, tenant)


async def test_a_tenants_pages_are_opened_by_a_key_of_this_session_alone(
    town: Town, visitor: Visitor, admin_token: str
) -> None:
    tenant = await town.platform.register()
    before = set(await _keys(town, tenant))
    await visitor.sign_in(admin_token)
    await visitor.go(f"/console/t/{tenant.id}")
    assert "/sign-in" in visitor.url
    began = datetime.now(UTC)
    await visitor.go(f"/console/admin/tenants/{tenant.id}")
    await visitor.submit("/open", scope="read")
    assert (visitor.url.endswith(f"/console/t/{tenant.id}"), visitor.status) == (True, 200), visitor.main
    (made,) = [key for id_, key in (await _keys(town, tenant)).items() if id_ not in before]
    assert made.scopes == ("read",)
    assert made.expires_at is not None
    # The page says who looks at whose pages, and not by which key.
    who = visitor.page.select_one(".who")
    assert who is not None
    assert who.get_text() == f"admin, at {tenant.id}"
    assert made.expires_at <= began + timedelta(hours=1, seconds=1)
    added = [
        one
        async for one in town.platform.client.changes(tenant=tenant.id)
        if one.action == "POST /admin/v1/tenants/{tenant_id}/keys"
    ]
    assert [one.author.partition(":")[0] for one in added] == ["admin"]

    # Opened for changes, the other key is of no more use.
    await visitor.go(f"/console/admin/tenants/{tenant.id}")
    await visitor.submit("/open", scope="manage")
    (wider,) = [key for id_, key in (await _keys(town, tenant)).items() if id_ not in before]
    assert {*wider.scopes} == {"read", "manage"}
    assert wider.id != made.id

    # Signing out revokes it, and leaves those of others alone.
    await visitor.submit("/sign-out")
    assert set(await _keys(town, tenant)) == before


async def test_a_tenants_pages_are_closed_again(town: Town, visitor: Visitor, admin_token: str) -> None:
    tenant, own = await town.platform.register(), await town.platform.register()
    before = set(await _keys(town, tenant))
    await visitor.sign_in(own.api_key)
    await visitor.sign_in(admin_token)
    await visitor.go(f"/console/admin/tenants/{tenant.id}")
    await visitor.submit("/open")
    await visitor.go(f"/console/admin/tenants/{tenant.id}")
    await visitor.submit("/leave")
    assert set(await _keys(town, tenant)) == before
    await visitor.go(f"/console/t/{tenant.id}")
    assert "/sign-in" in visitor.url
    # What the visitor has a key of their own for is not given another one, nor taken.
    kept = set(await _keys(town, own))
    await visitor.go(f"/console/admin/tenants/{own.id}")
    await visitor.submit("/open")
    assert visitor.url.endswith(f"/console/t/{own.id}")
    await visitor.submit("/sign-out")
    assert set(await _keys(town, own)) == kept


async def test_a_tenant_is_suspended_deleted_and_no_other_in_its_place(
    town: Town, visitor: Visitor, admin_token: str
) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(admin_token)
    await visitor.go(f"/console/admin/tenants/{tenant.id}/suspend")
    assert "Channels 2" in visitor.main
    await visitor.submit("/status")
    assert (await town.platform.client.tenant(tenant.id)).status == "suspended"
    await visitor.submit("/status")
    assert (await town.platform.client.tenant(tenant.id)).status == "active"

    await visitor.go(f"/console/admin/tenants/{tenant.id}/delete")
    await visitor.submit("/delete", id="another", purge="yes")
    assert visitor.status == 422
    assert (await town.platform.client.tenant(tenant.id)).status == "active"
    # The page told of one life of this id: it deletes no other.
    await visitor.submit("/delete", id=tenant.id, purge="yes", registration="0" * 32)
    assert visitor.status == 404
    await visitor.go(f"/console/admin/tenants/{tenant.id}/delete")
    await visitor.submit("/delete", id=tenant.id, purge="yes")
    assert (await town.platform.client.tenant(tenant.id)).status == "deleting"


async def test_whoever_may_only_look_changes_nothing(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    for path in ("tenants", f"tenants/{tenant.id}", "new-tenant", "services", "configuration", "configuration/export"):
        await visitor.go(f"/console/admin/{path}")
        assert "/sign-in" in visitor.url, path
