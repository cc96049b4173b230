"""``backhaul dead-letters``: what could not be read, sent through once more or closed, one or many."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backhaul_cli import connecting
from backhaul_cli.failing import Code, FailedError
from backhaul_cli.options import (
    LIMIT,
    All,
    AsJson,
    Channel,
    Limit,
    ProfileName,
    To,
    Yes,
    askable,
    bound,
    confirmed,
    moment,
    page,
)
from backhaul_cli.output import Column, Output, facts, words
from backhaul_cli.texts import age, shown

if TYPE_CHECKING:
    from backhaul_client.models import DeadLetter
    from backhaul_client.replays import DeadLettersIn

app = typer.Typer(no_args_is_help=True)

Letters = Annotated[list[str] | None, typer.Argument(metavar="ID", help="These; without one those that fit.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Whose reason holds this text.")]
FirstSeen = Annotated[
    datetime | None,
    typer.Option(
        "--from", parser=moment, metavar="TIME", help="By when it was first seen, from then on: 2h, 3d, or ISO 8601."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count those that fit, and do nothing.")]


@app.command("list")
def list_(
    channel: Channel = "",
    state: Annotated[
        str, typer.Option("--state", metavar="STATE", help="open, replayed or discarded; or any.")
    ] = "open",
    limit: Limit = LIMIT,
    every: All = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """List open dead letters, newest first.

    Example: backhaul dead-letters list --channel Twilio --limit 5
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.dead_letters(
            channel=channel, state="" if state == "any" else state, page_size=page(limit, every)
        )
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            found,
            [
                Column("dead letter", lambda one: one.id),
                Column("channel", lambda one: one.channel, folds=True),
                Column("times", lambda one: one.occurrences, right=True),
                Column("age", lambda one: age(one.last_seen_at, now), right=True),
                Column("reason", lambda one: one.reason, folds=True),
            ],
            of="dead letters",
            limit=bound(limit, every),
        )


@app.command()
def show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="Its id.")],
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Show one dead letter with the callback that could not be read.

    Example: backhaul dead-letters show 0f3c
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.dead_letter(letter)
    callback = found.callback
    Output(as_json=json).thing(
        found,
        lambda: [
            facts(
                ("dead letter", found.id),
                ("channel", found.channel),
                ("state", found.state),
                ("reason", found.reason),
                ("times", found.occurrences),
                ("first seen", found.first_seen_at),
                ("last seen", found.last_seen_at),
                ("callback", callback and callback.id),
                ("verification", callback and callback.verification),
                ("received", callback and callback.received_at),
            ),
            *(words(line) for line in (callback.body_text.splitlines() if callback else ())),
        ],
    )


@app.command()
def replay(
    letters: Letters = None,
    channel: Channel = "",
    reason: Reason = "",
    from_: FirstSeen = None,
    to: To = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Send dead letters through once more: those named, or all open ones that fit. It ends with 7 where it stopped.

    Example: backhaul dead-letters replay --channel Twilio --from 2d
    """
    _each_or_fitting("replay", letters or [], _fitting(channel, reason, from_, to), dry_run, yes, profile, json)


@app.command()
def discard(
    letters: Letters = None,
    channel: Channel = "",
    reason: Reason = "",
    from_: FirstSeen = None,
    to: To = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Close dead letters unprocessed: those named, or all open ones that fit. It ends with 7 where it stopped.

    Example: backhaul dead-letters discard --channel Twilio --to 30d
    """
    _each_or_fitting("discard", letters or [], _fitting(channel, reason, from_, to), dry_run, yes, profile, json)


def _fitting(channel: str, reason: str, from_: datetime | None, to: datetime | None) -> DeadLettersIn:
    fitting: DeadLettersIn = {}
    if channel:
        fitting["channel"] = channel
    if reason:
        fitting["reason"] = reason
    if from_ is not None:
        fitting["from_"] = from_
    if to is not None:
        fitting["to"] = to
    return fitting


def _each_or_fitting(
    what: Literal["replay", "discard"],
    letters: list[str],
    fitting: DeadLettersIn,
    dry_run: bool,
    yes: bool,
    profile: str,
    json: bool,
) -> None:
    if bool(letters) == bool(fitting):
        raise typer.BadParameter("Name dead letters, or say which fit by --channel, --reason, --from or --to.")
    output = Output(as_json=json)
    if letters:
        if dry_run:
            raise typer.BadParameter(
                "--dry-run counts those that fit; dead letters that are named are counted already."
            )
        with connecting.tenant(profile) as backhaul:
            one = backhaul.replay_dead_letter if what == "replay" else backhaul.discard_dead_letter
            output.done((one(letter) for letter in letters), _DONE, of="dead letters")
        return
    from backhaul_cli.replaying import ended, followed

    if not dry_run:
        askable(f"{what.capitalize()} those that fit?", yes=yes)
    # What comes meanwhile was not counted, so it is not meant.
    fitting.setdefault("to", datetime.now(UTC))
    counting: DeadLettersIn = {**fitting, "dry_run": True}
    with connecting.tenant(profile) as backhaul:
        begin = backhaul.replays.replay_dead_letters if what == "replay" else backhaul.replays.discard_dead_letters
        if not (dry_run or yes):
            counted = followed(backhaul, begin(**counting), profile, output)
            if counted.state != "done":
                raise FailedError(
                    f"Counting them was {counted.state}: {counted.text or 'it is not said why'}",
                    "Nothing was changed.",
                    code=Code.NO,
                )
            confirmed(f"{what.capitalize()} {counted.counts.dead_letters} dead letters?", yes=False)
        done = followed(backhaul, begin(**(counting if dry_run else fitting)), profile, output)
    ended(done, output)


_DONE: list[Column[DeadLetter]] = [
    Column("dead letter", lambda one: one.id),
    Column("channel", lambda one: one.channel, folds=True),
    Column("state", lambda one: shown(one.state)),
]
