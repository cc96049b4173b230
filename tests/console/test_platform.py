"""The platform team's pages of services, of configuration and of the installation's keys."""

from __future__ import annotations

import json
import re
import secrets
from typing import TYPE_CHECKING

import pytest
from backhaul_client import NotFoundError

if TYPE_CHECKING:
    from simulators.people import Town
    from simulators.visiting import Open, Visitor

HOSTILE = '<b id="x">& "quoted"</b>'


async def test_a_service_is_made_changed_and_deleted(town: Town, visitor: Visitor, admin_token: str) -> None:
    id_, platform = f"crm-{secrets.token_hex(4)}", town.platform.client
    acme, beta = (await town.platform.register()).id, (await town.platform.register()).id
    await visitor.sign_in(admin_token)
    await visitor.follow("Services")
    await visitor.follow("New service")
    await visitor.submit("/new-service", id=id_, name=HOSTILE, tenants=f"{acme}, {beta}", certificates="not a name")
    assert visitor.status == 422
    assert "verbs" in visitor.main
    assert visitor.page.select_one("#x") is None
    await visitor.submit("/new-service", verbs="check", certificates="", token_expires_at="2999-01-01")
    assert visitor.status == 200, visitor.main
    (token,) = [found.get_text() for found in visitor.page.select(".said code")]
    assert token.startswith("bhs_")
    made = await platform.service(id_)
    assert (made.name, made.tenants, made.verbs, len(made.tokens)) == (HOSTILE, (acme, beta), ("check",), 1)

    await visitor.follow("To the service")
    assert token not in visitor.text
    await visitor.follow("Change")
    await visitor.submit("/settings", None, tenants="*", **{"limits.burst": "9"})
    now = await platform.service(id_)
    assert (now.tenants, now.verbs, now.limits.burst) == (("*",), ("check",), 9)
    assert now.limits.checks_per_second == made.limits.checks_per_second
    await visitor.follow("Disable…")
    assert "Tokens 1" in visitor.main
    assert not (await platform.service(id_)).disabled
    await visitor.submit("/disabled")
    assert (await platform.service(id_)).disabled
    await visitor.submit("/disabled")
    assert not (await platform.service(id_)).disabled

    await visitor.follow("Add a token")
    await visitor.submit("/tokens", others_expire_at="2998-01-01")
    tokens = (await platform.service(id_)).tokens
    assert len(tokens) == 2
    await visitor.go(f"/console/admin/services/{id_}/tokens/{tokens[0].id}/revoke")
    await visitor.submit("/revoke")
    assert [one.id for one in (await platform.service(id_)).tokens] == [tokens[1].id]
    await visitor.go(f"/console/admin/services/{id_}/delete")
    assert (await platform.service(id_)).id == id_
    await visitor.submit("/delete")
    with pytest.raises(NotFoundError):
        await platform.service(id_)


async def test_a_document_is_applied_exactly_as_it_was_looked_at(
    town: Town, visitor: Visitor, admin_token: str
) -> None:
    tenant, platform = await town.platform.register(), town.platform.client
    exported = await platform.export(tenant=tenant.id)
    exported.pop("next_cursor")
    exported["tenants"][0]["name"] = f"Renamed {HOSTILE}"
    fresh = f"fresh-{secrets.token_hex(4)}"
    exported["tenants"].append({"id": fresh, "name": "Fresh", "queue_path": fresh})
    document = json.dumps(exported)

    await visitor.sign_in(admin_token)
    await visitor.follow("Configuration")
    await visitor.submit("/look", document="[not JSON")
    assert visitor.status == 422
    assert visitor.page.select("textarea")[0].get_text().strip() == "[not JSON"
    # The one secret of the document that is given a value is that of a channel.
    ref, secret = re.findall(r'"secret_ref": "([^"]+twilio[^"]+)"', document)[0], secrets.token_hex(16)
    values = json.dumps({ref: secret}).encode()
    files = {"document_file": ("d.json", document.encode()), "secrets_file": ("s.json", values)}
    await visitor.submit("/look", files=files, document="")
    assert visitor.status == 200, visitor.main
    was, name = (await platform.tenant(tenant.id)).name, exported["tenants"][0]["name"]
    assert was != name
    assert ["name", json.dumps(was), json.dumps(name)] in visitor.rows(tenant.id)
    assert "(changed)" in visitor.main
    assert visitor.page.select_one("#x") is None
    assert secret not in str(visitor.page)

    await visitor.submit("/apply")
    assert (await platform.tenant(tenant.id)).name == name
    assert secret not in str(visitor.page)
    assert (await platform.tenant(fresh)).name == "Fresh"
    shown = [found.get_text() for found in visitor.page.select(".said code")]
    assert [text[:4] for text in shown] == ["bhk_", "bhi_"]

    # Whatever was not looked at in this session does nothing.
    await visitor.go("/console/admin/configuration")
    await visitor.submit(
        "/look", document=json.dumps({"version": 1, "tenants": [{"id": fresh, "name": "Other", "queue_path": fresh}]})
    )
    await visitor.submit("/apply", sealed="bm90IHNlYWxlZCBoZXJlLCBub3QgYXQgYWxs")
    assert visitor.status == 422
    assert (await platform.tenant(fresh)).name == "Fresh"


async def test_an_export_is_a_download(town: Town, visitor: Visitor, admin_token: str) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(admin_token)
    page = await visitor.go(f"/console/admin/configuration/export?tenant={tenant.id}")
    (exported,) = json.loads(page.get_text())["tenants"]
    assert exported["id"] == tenant.id
    assert tenant.twilio.auth_token not in page.get_text()


async def test_keys_are_rotated_by_whoever_was_asked(town: Town, visitor: Visitor, admin_token: str) -> None:
    await visitor.sign_in(admin_token)
    await visitor.go("/console/admin/configuration/audit-keys")
    before = await town.platform.client.audit_keys()
    assert [row[0] for row in visitor.rows("Audit keys")] == [key.key_id for key in before]
    await visitor.submit("/audit-keys")
    assert await town.platform.client.audit_keys() == before
    await visitor.submit("/audit-keys")
    after = await town.platform.client.audit_keys()
    # Other tests of this installation may have made one, too.
    assert {key.key_id for key in after} > {key.key_id for key in before}

    await visitor.go("/console/admin/configuration/secret-keys")
    assert "gateway" in {row[0] for row in visitor.rows("Secrets")}
    await visitor.submit("/secret-keys")
    assert "Encrypt secrets anew?" in visitor.main
    await visitor.submit("/secret-keys")
    assert "encrypted anew" in visitor.main


async def test_who_changed_what_of_which_tenant_is_found(town: Town, visitor: Visitor, admin_token: str) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    await town.platform.client.change_tenant(tenant.id, name=HOSTILE)
    await visitor.sign_in(admin_token)
    await visitor.go("/console/admin/changes")
    title = visitor.page.title
    assert title is not None
    assert title.get_text() == "Changes · Backhaul"
    await visitor.go(f"/console/admin/tenants/{tenant.id}")
    await visitor.follow("What was changed of it, and by whom")
    assert visitor.url.endswith(f"/console/admin/changes?tenant={tenant.id}")
    assert other.id not in visitor.main
    assert HOSTILE in visitor.main
    assert visitor.page.select_one("#x") is None
    # A further filter leaves the tenant as it is.
    await visitor.submit("/changes", author="admin:admin")
    assert f"tenant={tenant.id}" in visitor.url
    assert HOSTILE in visitor.main
    await visitor.go(f"/console/admin/changes?tenant={tenant.id}&action=PATCH+/admin/v1/tenants/{{tenant_id}}")
    assert [found.get_text() for found in visitor.page.select("h2")] == ["PATCH /admin/v1/tenants/{tenant_id}"]
    await visitor.submit("/changes", None, **{"from": "lately"})
    assert visitor.status == 422
    assert visitor.page.select_one('input[name="from"][value="lately"]') is not None


@pytest.mark.browser
async def test_a_browser_finds_nothing_wrong_on_the_platform_teams_pages(
    town: Town, opened: Open, admin_token: str
) -> None:
    from simulators.visiting import LOOKS

    tenant = await town.platform.register()
    await town.platform.client.change_tenant(tenant.id, name=f"Acme {HOSTILE}")
    service = f"crm-{secrets.token_hex(4)}"
    await town.platform.client.create_service(service, name="CRM of the south", tenants=["*"], verbs=["check", "read"])
    here = f"tenants/{tenant.id}"
    pages = (
        "tenants", here, f"{here}/settings", f"{here}/keys", f"{here}/suspend", f"{here}/delete", "new-tenant",
        "services", f"services/{service}", f"services/{service}/settings", f"services/{service}/tokens",
        f"services/{service}/disabled", "new-service",
        "configuration", "configuration/secret-keys", "configuration/audit-keys", "changes",
    )  # fmt: skip
    for context in LOOKS:
        browser = await opened(**context)
        await browser.sign_in(admin_token)
        await browser.walk(*(f"/console/admin/{path}" for path in pages))
    page = browser.page
    await browser.go(f"/console/admin/{here}")
    await page.get_by_role("button", name="Look at its pages").press("Enter")
    await page.get_by_role("heading", name=f"Acme {HOSTILE}").wait_for()
    assert page.url.endswith(f"/console/t/{tenant.id}")
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_text("You have signed out.").wait_for()

    await browser.sign_in(admin_token)
    await browser.go("/console/admin/configuration")
    await page.get_by_label("Or the document itself").fill(
        json.dumps({"version": 1, "tenants": [{"id": tenant.id, "name": "Renamed", "queue_path": tenant.queue_path}]})
    )
    await page.get_by_role("button", name="Show what it would change").click()
    await page.get_by_role("heading", name="What it would change").wait_for()
    await browser.accessible()
    await page.get_by_role("button", name="Apply exactly this").click()
    await page.get_by_role("heading", name="It is applied").wait_for()
    assert (await town.platform.client.tenant(tenant.id)).name == "Renamed"
