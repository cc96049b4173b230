"""The platform team's pages by role: what a role may not do has no button, and is refused all the same."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING

import httpx
from gateway_rig import GatewayFactory

if TYPE_CHECKING:
    from backhaul_local.nats_server import NatsServer

SAME = {"sec-fetch-site": "same-origin"}
ROLES = ("operator", "support", "auditor")
SEEN = {
    "tenants": ROLES,
    "tenants/acme": ROLES,
    "services": ROLES,
    "changes": ROLES,
    "configuration/audit-keys": ROLES,
    "configuration/export": ("operator", "support"),
    "configuration/secret-keys": ("operator", "support"),
}


async def test_each_role_sees_its_pages_and_changes_nothing_by_them(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    tokens = {role: f"token-of-{role}-0123456789" for role in ROLES}
    named = ", ".join(f"{role}-1:{role}:{sha256(token.encode()).hexdigest()}" for role, token in tokens.items())
    async with gateway_factory(fresh_nats.uri, gateway_admin_tokens=named) as gateway:
        acme = await gateway.tenant("acme")
        for role, token in tokens.items():
            async with httpx.AsyncClient(base_url=gateway.url, timeout=60, headers=SAME) as browser:
                await browser.post("/console/sign-in", data={"credential": token})
                for path, seen_by in SEEN.items():
                    page = await browser.get(f"/console/admin/{path}")
                    # What other services keep is not there in this test.
                    seen = page.status_code in (200, 501, 503)
                    assert (seen, page.status_code == 403) == (role in seen_by, role not in seen_by), (path, role)
                page = await browser.get("/console/admin/tenants/acme")
                buttons = {found.partition("?")[0] for found in re.findall(r'action="([^"]+)"', page.text)}
                assert ("/console/admin/tenants/acme/open" in buttons) == (role == "operator")
                assert ("Delete…" in page.text) == (role == "operator")
                links = re.findall(r'href="/console/admin/tenants/acme/([^"]+)"', page.text)
                assert ("suppressions" in links) == (role != "auditor")
                assert ("dead-letters" in links) == (role == "operator")
                found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page.text)
                assert found is not None
                if role == "operator":
                    continue
                form = {"form_token": found[1], "id": "acme", "purge": "yes", "name": "x", "kind": "ingest"}
                refused = (
                    "open", "leave", "settings", "status", "delete", "keys", f"keys/{acme.keys[0].id}/revoke",
                )  # fmt: skip
                for action in refused:
                    answer = await browser.post(
                        f"/console/admin/tenants/acme/{action}", data={**form, "status": "suspended"}
                    )
                    # To close what is not open changes nothing.
                    assert answer.status_code == (303 if action == "leave" else 403), (role, action)
        stored = gateway.mongo[gateway.settings.mongo_database]["tenants"].find_one({"_id": "acme"})
        assert stored is not None
        assert (stored["status"], len(stored["credentials"])) == ("active", 2)
