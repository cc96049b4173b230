"""``backhaul suppressions``, the whole list: as a file, from a file, and its changes as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from backhaul_cli import connecting
from backhaul_cli.commands.suppressions import Family, Standing
from backhaul_cli.failing import Code
from backhaul_cli.importing import imported, sent
from backhaul_cli.options import AsJson, Errors, ProfileName
from backhaul_cli.output import Output


def export(
    form: Annotated[Literal["csv", "jsonl"], typer.Option("--format", help="The form of the file.")] = "csv",
    family: Family = "",
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Of this kind alone.")] = "",
    standing: Standing = "",
    profile: ProfileName = "",
) -> None:
    """Write the list as a file to standard output.

    Example: backhaul suppressions export > suppressions.csv
    """
    output = Output(as_json=False)
    with connecting.tenant(profile) as backhaul:
        for piece in backhaul.export_suppressions(format=form, family=family, kind=kind, standing=standing):
            output.bytes(piece)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A list as export writes it; .jsonl is JSON Lines.")],
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Of lines that do not say it.")] = "",
    family: Annotated[str, typer.Option("--family", metavar="FAMILY", help="Of lines that do not say it.")] = "",
    errors: Errors = None,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Take over a list. The same one again changes nothing. It ends with 7 where lines were refused.

    Example: backhaul suppressions import list.csv --kind stop --errors refused.csv
    """
    output = Output(as_json=json)
    with file.open("rb") as opened, connecting.tenant(profile) as backhaul:
        try:
            found = backhaul.import_suppressions(
                sent(opened, output), format="jsonl" if file.suffix == ".jsonl" else "csv", kind=kind, family=family
            )
        finally:
            output.progress("")
    imported(found, {"changed": found.changed}, errors, output)
    if found.refused:
        raise typer.Exit(Code.NO)


def watch(
    after: Annotated[
        int | None,
        typer.Option("--after", min=0, metavar="POSITION", help="Go on behind this one; else from now."),
    ] = None,
    family: Family = "",
    kind: Annotated[str, typer.Option("--kind", metavar="KINDS", help="Of these kinds alone, by commas.")] = "",
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Show changes of the list as they come, until Ctrl-C, also while the gateway is restarted. Each has the position
    that --after takes.

    Example: backhaul suppressions watch --kind stop,complaint
    """
    from backhaul_cli.suppressionchanges import watched

    watched(after, family, kind, profile, Output(as_json=json))
