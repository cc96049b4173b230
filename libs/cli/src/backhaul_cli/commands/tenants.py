"""``backhaul tenants``: the platform team's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backhaul_cli import connecting
from backhaul_cli.options import LIMIT, All, AsJson, Limit, ProfileName, Yes, bound, confirmed, page
from backhaul_cli.output import Column, Output, facts
from backhaul_cli.texts import age

if TYPE_CHECKING:
    from backhaul_client.adminmodels import Tenant

app = typer.Typer(no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The tenant's id.")]


@app.command("list")
def list_(limit: Limit = LIMIT, every: All = False, profile: ProfileName = "", json: AsJson = False) -> None:
    """List tenants by id.

    Example: backhaul tenants list --all --json
    """
    with connecting.platform(profile) as platform:
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            platform.tenants(page_size=page(limit, every)),
            [
                Column("tenant", lambda one: one.id, folds=True),
                Column("name", lambda one: one.name, folds=True),
                Column("status", lambda one: one.status),
                Column("channels", lambda one: tuple(channel.label for channel in one.channels), folds=True),
                Column("age", lambda one: age(one.created_at, now), right=True),
            ],
            of="tenants",
            limit=bound(limit, every),
        )


@app.command()
def show(tenant: Id, profile: ProfileName = "", json: AsJson = False) -> None:
    """Show one tenant.

    Example: backhaul tenants show acme
    """
    with connecting.platform(profile) as platform:
        _say(platform.tenant(tenant), json)


@app.command()
def add(
    tenant: Id,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What it is called.")],
    queue_path: Annotated[str, typer.Option("--queue-path", metavar="PATH", help="Its part of the streams' subjects.")],
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Register a tenant. Its first key and token are shown this once.

    Example: backhaul tenants add acme --name "Acme Ltd" --queue-path acme-prod
    """
    with connecting.platform(profile) as platform:
        made = platform.create_tenant(tenant, name=name, queue_path=queue_path)
    _say(made, json, ("api key", str(made.api_key)), ("ingest token", str(made.ingest_token)))


@app.command("set-status")
def set_status(
    tenant: Id,
    status: Annotated[Literal["active", "suspended"], typer.Argument(metavar="STATUS", help="active or suspended.")],
    yes: Yes = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Suspend a tenant, whose calls are refused then, or let it go on.

    Example: backhaul tenants set-status acme suspended --yes
    """
    if status == "suspended":
        confirmed(f"Suspend {tenant}?", yes=yes)
    with connecting.platform(profile) as platform:
        _say(platform.change_tenant(tenant, status=status), json)


def _say(found: Tenant, json: bool, *more: tuple[str, object]) -> None:
    kept = found.retention
    Output(as_json=json).thing(
        found,
        lambda: [
            facts(
                ("tenant", found.id),
                ("name", found.name),
                ("status", found.status),
                ("queue path", found.queue_path),
                ("registration", found.registration),
                ("channels", tuple(channel.label for channel in found.channels)),
                ("requests a second", found.limits.requests_per_second),
                ("reads a second", found.limits.reads_per_second),
                ("events kept for days", kept.event_retention_days),
                ("messages kept for days", kept.message_retention_days),
                ("addresses kept for days", kept.address_retention_days),
                ("opt-outs hold for", found.suppression.revocation_scope),
                ("since", found.created_at),
                *more,
            )
        ],
    )
