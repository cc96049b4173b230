"""``backhaul replay``: a channel's callbacks of a span, read once more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from backhaul_cli import connecting
from backhaul_cli.options import LIMIT, All, AsJson, From, Limit, ProfileName, To, bound, page
from backhaul_cli.output import Column, Output
from backhaul_cli.texts import age

app = typer.Typer(no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The replay's id.")]


@app.command()
def run(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="Whose callbacks.")],
    from_: From = None,
    to: To = None,
    rate: Annotated[
        int, typer.Option("--rate", min=0, metavar="N", help="So many callbacks a second; without, half of the time.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would change, and change nothing.")] = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Read callbacks once more, and wait for what that brings. It ends with 7 where it stopped.

    Example: backhaul replay run Twilio --from 2d --dry-run
    """
    if from_ is None:
        raise typer.BadParameter("Say from when on: --from TIME, such as --from 2d.")
    from backhaul_cli.replaying import ended, followed

    output = Output(as_json=json)
    with connecting.tenant(profile) as backhaul:
        begun = backhaul.replays.begin(channel, from_=from_, to=to, dry_run=dry_run, rate_per_s=rate)
        done = followed(backhaul, begun, profile, output)
    ended(done, output)


@app.command()
def show(replay: Id, profile: ProfileName = "", json: AsJson = False) -> None:
    """Show one replay, as far as it is.

    Example: backhaul replay show 0f3c
    """
    from backhaul_cli.replaying import parts

    with connecting.tenant(profile) as backhaul:
        found = backhaul.replays.get(replay)
    Output(as_json=json).thing(found, lambda: parts(found))


@app.command()
def cancel(replay: Id, profile: ProfileName = "", json: AsJson = False) -> None:
    """End a replay. What it did stays.

    Example: backhaul replay cancel 0f3c
    """
    from backhaul_cli.replaying import parts

    with connecting.tenant(profile) as backhaul:
        found = backhaul.replays.cancel(replay)
    Output(as_json=json).thing(found, lambda: parts(found))


@app.command("list")
def list_(limit: Limit = LIMIT, every: All = False, profile: ProfileName = "", json: AsJson = False) -> None:
    """List replays, newest first.

    Example: backhaul replay list --limit 5
    """
    with connecting.tenant(profile) as backhaul:
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            backhaul.replays.list(page_size=page(limit, every)),
            [
                Column("replay", lambda one: one.id),
                Column("of", lambda one: one.kind.replace("_", " "), folds=True),
                Column("channel", lambda one: one.channel, folds=True),
                Column("dry run", lambda one: one.dry_run),
                Column("state", lambda one: one.state),
                Column("age", lambda one: age(one.created_at, now), right=True),
            ],
            of="replays",
            limit=bound(limit, every),
        )
