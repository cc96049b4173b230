"""``backhaul reconcile``: what providers know and their callbacks did not tell."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from backhaul_cli import connecting
from backhaul_cli.failing import Code
from backhaul_cli.options import LIMIT, All, AsJson, Channel, From, Limit, ProfileName, To, bound, page
from backhaul_cli.output import Column, Output, facts
from backhaul_cli.texts import age, command

if TYPE_CHECKING:
    from backhaul_client.reconciliationmodels import RunReport
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True)

OfChannel = Annotated[str, typer.Argument(metavar="CHANNEL", help="The channel's label.")]


@app.command()
def channels(profile: ProfileName = "", json: AsJson = False) -> None:
    """Say of each channel whether its provider is asked, and whether anything is heard.

    Example: backhaul reconcile channels
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.reconciliation.channels()
    now = datetime.now(UTC)
    Output(as_json=json).rows(
        found,
        [
            Column("channel", lambda one: one.channel),
            Column("standing", lambda one: one.standing),
            Column("asked", lambda one: age(one.asked_at, now), right=True),
            Column("silence", lambda one: one.silence),
            Column("", lambda one: one.text, folds=True),
        ],
        of="channels",
    )


@app.command()
def run(
    channel: OfChannel,
    from_: From = None,
    to: To = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is missing, and bring nothing.")] = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Ask a channel's provider now, and wait; without a span about the last 24 hours. It ends with 7 where it stopped.

    Example: backhaul reconcile run Twilio --from 2d --dry-run
    """
    output = Output(as_json=json)
    last: RunReport | None = None
    try:
        with connecting.tenant(profile) as backhaul:
            for last in backhaul.reconciliation.run(channel, from_=from_, to=to, dry_run=dry_run):
                output.progress(f"{last.state}: {last.counts.seen} seen, {last.counts.missing} missing")
    except KeyboardInterrupt:
        output.progress("")
        output.note(f"It goes on: {command('reconcile report', last.id, profile=profile)}" if last else "It may go on.")
        raise typer.Exit(Code.INTERRUPTED) from None
    output.progress("")
    if last is None:
        output.note("Nothing was said of the run: backhaul reconcile reports lists it.")
        raise typer.Exit(Code.AGAIN)
    _say(output, last)
    if last.state == "stopped":
        raise typer.Exit(Code.NO)


@app.command()
def report(
    report: Annotated[str, typer.Argument(metavar="ID", help="The report's id.")],
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Show what a run found, as far as it is.

    Example: backhaul reconcile report 0f3c --json
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.reconciliation.report(report)
    _say(Output(as_json=json), found)


@app.command()
def reports(
    channel: Channel = "",
    from_: From = None,
    to: To = None,
    limit: Limit = LIMIT,
    every: All = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """List runs, newest first.

    Example: backhaul reconcile reports --channel Twilio
    """
    with connecting.tenant(profile) as backhaul:
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            backhaul.reconciliation.reports(channel=channel, from_=from_, to=to, page_size=page(limit, every)),
            [
                Column("report", lambda one: one.id, folds=True),
                Column("channel", lambda one: one.channel),
                Column("state", lambda one: one.state),
                Column("seen", lambda one: one.counts.seen, right=True),
                Column("missing", lambda one: one.counts.missing, right=True),
                Column("age", lambda one: age(one.began_at, now), right=True),
            ],
            of="reports",
            limit=bound(limit, every),
        )


@app.command()
def differences(
    channel: Channel = "",
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="state or unknown_to_provider alone.")] = "",
    from_: From = None,
    to: To = None,
    limit: Limit = LIMIT,
    every: All = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """List messages about which the provider says something else.

    Example: backhaul reconcile differences --kind state --from 2d
    """
    with connecting.tenant(profile) as backhaul:
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            backhaul.reconciliation.differences(
                channel=channel, kind=kind, from_=from_, to=to, page_size=page(limit, every)
            ),
            [
                Column("message", lambda one: one.message_id, folds=True),
                Column("channel", lambda one: one.channel),
                Column("here", lambda one: " ".join(filter(None, (one.our_state, one.our_error_code)))),
                Column("there", lambda one: " ".join(filter(None, (one.provider_state, one.provider_error_code)))),
                Column("seen", lambda one: age(one.last_seen_at, now), right=True),
            ],
            of="differences",
            limit=bound(limit, every),
        )


@app.command()
def day(
    channel: OfChannel,
    date: Annotated[str, typer.Argument(metavar="DAY", help="The day in UTC, such as 2026-11-28.")],
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Say whether all of a day is known. It ends with 7 where the day is not closed.

    Example: backhaul reconcile day Twilio 2026-11-28
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.reconciliation.day(channel, date)
    Output(as_json=json).thing(
        found,
        lambda: [
            facts(
                ("channel", found.channel),
                ("day", found.day),
                ("state", found.state.replace("_", " ")),
                ("", found.text),
                ("at the provider", found.provider_messages),
                ("equal", found.equal),
                ("backfilled", found.backfilled),
                ("differing", found.differing),
                ("open there", found.open),
                ("unknown there", found.unknown_to_provider),
                ("compared", found.compared_at),
            )
        ],
    )
    if found.state != "closed":
        raise typer.Exit(Code.NO)


def _say(output: Output, found: RunReport) -> None:
    output.thing(found, lambda: _parts(found))


def _parts(found: RunReport) -> Iterator[RenderableType]:
    counts = found.counts
    yield facts(
        ("report", found.id),
        ("channel", found.channel),
        ("state", found.state),
        ("", found.text),
        ("dry run", "yes, nothing was brought" if found.dry_run else None),
        ("from", found.asked_from),
        ("to", found.asked_to),
        ("seen", counts.seen),
        ("known", counts.known),
        ("missing", counts.missing),
        ("completed", counts.better),
        ("differing", counts.differing),
        ("open there", counts.open),
        ("unknown there", counts.unknown_to_provider),
        ("unreadable", counts.unreadable),
        ("requests", counts.requests),
        ("began", found.began_at),
        ("ended", found.ended_at),
    )
