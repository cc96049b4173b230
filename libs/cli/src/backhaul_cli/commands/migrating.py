"""``backhaul import-rpi``: what an RPI callback service is configured with, as Backhaul's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backhaul_cli.failing import FailedError
from backhaul_cli.output import Column, Output, pretty
from backhaul_cli.texts import command


def import_rpi(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The appsettings file of an RPI callback service, JSON.")
    ],
    tenant: Annotated[str, typer.Option("--tenant", metavar="ID", help="The tenant's id; else the queue path's.")] = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The tenant's name; else the queue path.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to write the document, instead of out.")
    ] = None,
) -> None:
    """Make a document for backhaul apply of an RPI callback service's settings, and say of each what becomes of it.

    Example: backhaul import-rpi appsettings.json --tenant acme --out acme.json
    """
    import json

    from backhaul_cli.rpi import Setting, imported

    try:
        # What .NET writes begins with a mark of its encoding.
        document, settings = imported(json.loads(file.read_text("utf-8-sig")), tenant, name)
    except UnicodeDecodeError:
        raise FailedError(f"{file} is not UTF-8.", "Save it as UTF-8.") from None
    except RecursionError:
        raise FailedError(
            f"{file} is nested too deeply.", "Name the appsettings file of an RPI callback service."
        ) from None
    except ValueError as exc:
        # Where it is, and not what stands there, which may be a secret.
        where = f" at line {exc.lineno}, column {exc.colno}" if isinstance(exc, json.JSONDecodeError) else ""
        raise FailedError(f"{file} is not JSON{where}.", "Take comments out of it.") from None
    output = Output(as_json=False)
    text = pretty(document)
    if out is None:
        for line in text.splitlines():
            output.line(line)
        for one in settings:
            output.note(f"{one.name}: {one.what}")
        return
    out.write_text(text + "\n")
    columns: list[Column[Setting]] = [
        Column("setting", lambda one: one.name.removeprefix("CallbackServiceConfig."), folds=True),
        Column("carried over", lambda one: one.carried),
        Column("what", lambda one: one.what, folds=True),
    ]
    output.rows(settings, columns, of="settings")
    output.note(f"Now: {command('diff', out)}, and {command('apply', out)}")
