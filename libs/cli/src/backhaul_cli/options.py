"""What many commands are told alike."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def moment(text: str) -> datetime:
    """A time: ISO 8601, in UTC where it names no zone, or how long ago, such as ``90m`` or ``2d``."""
    from backhaul_client.moments import moment_of

    try:
        return moment_of(text, datetime.now(UTC))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time: say 2026-11-28T09:00Z, or how long ago, such as 90m or 2d."
        ) from None


def ahead(text: str) -> datetime:
    """A time to come: ISO 8601, or in how long, such as ``90d``."""
    from backhaul_client.moments import is_span

    now = datetime.now(UTC)
    return now + (now - moment(text)) if is_span(text) else moment(text)


def secret(prompt: str) -> str:
    """What nobody else may see: asked for without showing it, or the next line of standard input. It is no argument,
    since everybody on the machine sees those."""
    given: str = typer.prompt(prompt, hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    return given.strip()


ProfileName = Annotated[
    str, typer.Option("--profile", "-p", metavar="NAME", help="Which profile to use, instead of the current one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: one document, or a line for each row.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="So many rows at most.")]
All = Annotated[bool, typer.Option("--all", help="All rows, however many there are.")]
From = Annotated[
    datetime | None,
    typer.Option("--from", parser=moment, metavar="TIME", help="From this time on: 2h, 3d, or ISO 8601."),
]
To = Annotated[datetime | None, typer.Option("--to", parser=moment, metavar="TIME", help="Until this time.")]
Channel = Annotated[str, typer.Option("--channel", metavar="LABEL", help="Of this channel alone.")]
Recipient = Annotated[str, typer.Option("--recipient", metavar="ADDRESS", help="Of this person alone.")]
OfCommunication = Annotated[str, typer.Option("--communication", metavar="ID", help="Of this communication alone.")]
ErrorCode = Annotated[
    str, typer.Option("--error-code", metavar="CODE", help="With this error code of the provider alone.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
OfTenant = Annotated[
    str, typer.Option("--tenant", metavar="ID", help="Of this tenant, with the platform team's admin token.")
]
Errors = Annotated[
    Path | None, typer.Option("--errors", metavar="FILE", help="Where to write the lines that were refused.")
]
LIMIT = 50


def bound(limit: int, every: bool) -> int | None:
    """How many rows are wanted; None for all."""
    return None if every else limit


def page(limit: int, every: bool) -> int:
    """How many rows to ask for at once: one more than is shown, which tells whether there are more."""
    return 100 if every else min(limit + 1, 100)


def askable(question: str, *, yes: bool) -> None:
    """Goes on where ``question`` can be answered: at a terminal, or beforehand."""
    if not (yes or sys.stdin.isatty()):
        raise typer.BadParameter(f"{question} Nobody can be asked here: say --yes.")


def confirmed(question: str, *, yes: bool) -> None:
    """Goes on where ``question`` is answered with yes. Where nobody can be asked it has to be said beforehand."""
    askable(question, yes=yes)
    if not yes:
        typer.confirm(question, abort=True, err=True)
