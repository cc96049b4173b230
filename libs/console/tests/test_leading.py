"""Where problems are mended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from backhaul_client.overviewmodels import Problem
from backhaul_console.leading import leads_of
from backhaul_console.rendering import address

if TYPE_CHECKING:
    from backhaul_console.visits import Visit


def visit(tenant: str) -> Visit:
    below = f"/t/{tenant}" if tenant else "/admin"
    return cast("Visit", SimpleNamespace(tenant_id=tenant, at=lambda path: address(below + path)))


def problem(part: str, channel: str | None = None) -> Problem:
    return Problem(severity="error", part=part, channel=channel, text="", look="")


def test_a_problem_leads_to_a_page_that_exists() -> None:
    lead = leads_of({("tenant", "/dead-letters"), ("tenant", "/channels"), ("tenant", "/channels/{label}")})
    found = lead(visit("acme"), problem("dead_letters"))
    assert found is not None
    assert found.address == "/console/t/acme/dead-letters?state=open"
    found = lead(visit("acme"), problem("verification", "a/b?c"))
    assert found is not None
    assert found.address == "/console/t/acme/channels/a%2Fb%3Fc"
    assert lead(visit("acme"), problem("audit")) is None
    assert lead(visit("acme"), problem("quota")) is None


def test_the_platform_team_is_led_to_the_tenant() -> None:
    team = visit("")
    assert leads_of({("tenant", "/dead-letters")})(team, problem("dead_letters"), "acme") is None
    found = leads_of({("admin", "/tenants/{tenant}")})(team, problem("dead_letters"), "acme")
    assert found is not None
    assert found.address == "/console/admin/tenants/acme"
    # What all tenants share is mended outside.
    assert leads_of({("admin", "/tenants/{tenant}")})(team, problem("queue")) is None
