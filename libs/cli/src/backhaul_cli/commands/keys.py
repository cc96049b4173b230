"""``backhaul keys``: API keys and ingest tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, cast, get_args

import typer

from backhaul_cli import connecting
from backhaul_cli.options import AsJson, OfTenant, ProfileName, Yes, ahead, confirmed
from backhaul_cli.output import Column, Output, facts
from backhaul_cli.texts import age

app = typer.Typer(no_args_is_help=True)

Scope = Literal["ingest", "read", "check", "send", "manage"]


@app.command("list")
def list_(tenant: OfTenant = "", profile: ProfileName = "", json: AsJson = False) -> None:
    """List keys and tokens, without their texts.

    Example: backhaul keys list --json
    """
    if tenant:
        with connecting.platform(profile) as platform:
            found = platform.tenant(tenant).keys
    else:
        with connecting.tenant(profile) as backhaul:
            found = backhaul.keys()
    now = datetime.now(UTC)
    Output(as_json=json).rows(
        found,
        [
            Column("key", lambda one: one.id),
            Column("kind", lambda one: one.kind),
            Column("opens", lambda one: one.scopes, folds=True),
            Column("made", lambda one: age(one.created_at, now), right=True),
            Column("used", lambda one: _used(one.last_used_at, now), right=True),
            Column("expires", lambda one: one.expires_at),
        ],
        of="keys",
    )


def _used(at: datetime | None, now: datetime) -> str:
    """How long ago it was used. That is known to two hours only."""
    return "< 2h" if at is not None and now - at < timedelta(hours=2) else age(at, now)


@app.command()
def add(
    kind: Annotated[Literal["api", "ingest"], typer.Option("--kind", help="A key, or a token for addresses.")] = "api",
    scopes: Annotated[
        str, typer.Option("--scopes", metavar="NAMES", help=f"What it opens, some of {', '.join(get_args(Scope))}.")
    ] = "",
    expires_at: Annotated[
        datetime | None,
        typer.Option("--expires", parser=ahead, metavar="TIME", help="Valid until then: 90d, or ISO 8601."),
    ] = None,
    tenant: OfTenant = "",
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Add a key or a token. It is shown this once.

    Example: backhaul keys add --scopes read,check --expires 90d
    """
    words = [word.strip() for word in scopes.split(",") if word.strip()]
    if unknown := set(words) - set(get_args(Scope)):
        raise typer.BadParameter(f"There is no scope {', '.join(sorted(unknown))}: {', '.join(get_args(Scope))}.")
    asked = cast("list[Scope]", words) or None
    if tenant:
        with connecting.platform(profile) as platform:
            made = platform.add_key(tenant, kind, scopes=asked, expires_at=expires_at)
    else:
        with connecting.tenant(profile) as backhaul:
            made = backhaul.add_key(kind, scopes=asked, expires_at=expires_at)
    Output(as_json=json).thing(
        made,
        lambda: [
            facts(
                ("id", made.id),
                ("kind", made.kind),
                ("opens", made.scopes),
                ("expires", made.expires_at),
                ("key", str(made.key)),
                *((f"callback address of {one.label}", str(one.callback_url)) for one in made.addresses),
                *((f"token address of {one.label}", one.token_url) for one in made.addresses),
            )
        ],
    )


@app.command()
def remove(
    key: Annotated[str, typer.Argument(metavar="ID", help="Its id, as keys list has it.")],
    tenant: OfTenant = "",
    yes: Yes = False,
    profile: ProfileName = "",
) -> None:
    """Revoke a key or a token: whoever shows it is refused from now on.

    Example: backhaul keys remove 0f3c --yes
    """
    confirmed(f"Revoke {key}?", yes=yes)
    if tenant:
        with connecting.platform(profile) as platform:
            platform.delete_key(tenant, key)
    else:
        with connecting.tenant(profile) as backhaul:
            backhaul.delete_key(key)
