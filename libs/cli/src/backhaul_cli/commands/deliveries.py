"""``backhaul deliveries``: what the tenant's application was told, and what became of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from backhaul_cli import connecting
from backhaul_cli.options import (
    LIMIT,
    All,
    AsJson,
    Channel,
    From,
    Limit,
    OfCommunication,
    ProfileName,
    To,
    Yes,
    askable,
    bound,
    confirmed,
    page,
)
from backhaul_cli.output import Column, Output, facts, section
from backhaul_cli.texts import age

app = typer.Typer(no_args_is_help=True)

_COUNTED = 100_000
"""So far deliveries are counted."""

OfSubscription = Annotated[str, typer.Option("--subscription", metavar="ID", help="To this subscription alone.")]
OfMessage = Annotated[str, typer.Option("--message", metavar="ID", help="Of this message; needs --channel.")]
OfType = Annotated[str, typer.Option("--type", metavar="TYPE", help="Of this type alone, such as message.failed.")]


@app.command("list")
def list_(
    subscription: OfSubscription = "",
    state: Annotated[
        str, typer.Option("--state", metavar="STATE", help="waiting, held, delivered or failed alone.")
    ] = "",
    type_: OfType = "",
    channel: Channel = "",
    message_id: OfMessage = "",
    communication: OfCommunication = "",
    reason: Annotated[
        str,
        typer.Option("--reason", metavar="WORD", help="Whose latest try failed so: 503, 5xx, timeout or tls_*, say."),
    ] = "",
    undelivered: Annotated[bool, typer.Option("--undelivered", help="Only what did not arrive.")] = False,
    never_attempted: Annotated[bool, typer.Option("--never-attempted", help="Only what was never tried.")] = False,
    from_: From = None,
    to: To = None,
    limit: Limit = LIMIT,
    every: All = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """List deliveries, newest first.

    Example: backhaul deliveries list --undelivered --from 1d
    """
    with connecting.tenant(profile) as backhaul:
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            backhaul.deliveries.list(
                subscription_id=subscription,
                state=state,
                type=type_,
                channel=channel,
                message_id=message_id,
                communication=communication,
                reason=reason,
                undelivered=undelivered,
                never_attempted=never_attempted,
                from_=from_,
                to=to,
                page_size=page(limit, every),
            ),
            [
                Column("delivery", lambda one: one.id, folds=True),
                Column("type", lambda one: one.type),
                Column("state", lambda one: one.state),
                Column("tries", lambda one: one.attempts, right=True),
                Column("last", lambda one: one.last_attempt and (one.last_attempt.status or one.last_attempt.error)),
                Column("age", lambda one: age(one.created_at, now), right=True),
            ],
            of="deliveries",
            limit=bound(limit, every),
        )


@app.command()
def show(
    delivery: Annotated[str, typer.Argument(metavar="ID", help="Its id.")],
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Show one delivery with its attempts.

    Example: backhaul deliveries show 0f3c
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.deliveries.get(delivery)
    Output(as_json=json).thing(
        found,
        lambda: [
            facts(
                ("delivery", found.id),
                ("subscription", found.subscription_id),
                ("type", found.type),
                ("event", found.event_id),
                ("channel", found.channel),
                ("message", found.message_id),
                ("state", found.state),
                ("tries", found.attempts),
                ("made", found.created_at),
                ("next try", "when its subscription is resumed" if found.when_resumed else found.next_attempt_at),
                ("ended", found.ended_at),
            ),
            *section(
                found.history,
                [
                    Column("try", lambda one: one.number, right=True),
                    Column("at", lambda one: one.at),
                    Column("answered", lambda one: one.status or one.error),
                    Column("took", lambda one: f"{one.duration_ms:.0f} ms", right=True),
                    Column("text", lambda one: one.text or one.answer_text, folds=True),
                ],
            ),
        ],
    )


@app.command()
def redeliver(
    deliveries: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="These; without one those that fit.")
    ] = None,
    subscription: OfSubscription = "",
    which: Annotated[
        Literal["failed", "all", "never_attempted"] | None,
        typer.Option("--which", help="What of a subscription is sent again; without, what failed."),
    ] = None,
    from_: From = None,
    to: To = None,
    rate: Annotated[int, typer.Option("--rate", min=0, metavar="N", help="At so many calls a second.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, and send nothing.")] = False,
    yes: Yes = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Send deliveries again: those named, or those of a subscription from a time on.

    Example: backhaul deliveries redeliver --subscription 0f3c --from 6h
    """
    output = Output(as_json=json)
    if bool(deliveries) == bool(subscription):
        raise typer.BadParameter("Name deliveries, or a subscription by --subscription.")
    if deliveries:
        given = {"--which": which, "--from": from_, "--to": to, "--rate": rate, "--dry-run": dry_run}
        if alone := [name for name, value in given.items() if value]:
            raise typer.BadParameter(f"{', '.join(alone)} goes with --subscription, not with deliveries by their ids.")
        with connecting.tenant(profile) as backhaul:
            done = ({"id": one, "deliveries": backhaul.deliveries.redeliver(one).deliveries} for one in deliveries)
            output.done(
                done,
                [Column("delivery", lambda one: one["id"]), Column("sent again", lambda one: one["deliveries"])],
                of="deliveries",
            )
        return
    if from_ is None:
        raise typer.BadParameter("Say from when on: --from TIME, such as --from 6h.")
    if not dry_run:
        askable("Send them again?", yes=yes)
    # What comes meanwhile was not counted, so it is not meant.
    to, what = to or datetime.now(UTC), which or "failed"
    with connecting.tenant(profile) as backhaul:
        if not (dry_run or yes):
            counted = backhaul.subscriptions.redeliver(subscription, what, from_=from_, to=to, dry_run=True)
            confirmed(f"Send {_counted(counted.deliveries)} deliveries again?", yes=False)
        found = backhaul.subscriptions.redeliver(
            subscription, what, from_=from_, to=to, rate_per_s=rate, dry_run=dry_run
        )
    output.thing(
        found, lambda: [facts(("would be sent again" if dry_run else "sent again", _counted(found.deliveries)))]
    )


def _counted(deliveries: int) -> str:
    return f"{deliveries}{' or more' if deliveries >= _COUNTED else ''}"
