"""Tenants, channels and subscriptions as one document: exported, compared and applied by the platform team."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backhaul_cli import connecting
from backhaul_cli.documents import object_of
from backhaul_cli.failing import Code, FailedError
from backhaul_cli.options import AsJson, ProfileName, Yes, confirmed
from backhaul_cli.output import Column, Output, pretty, section, table

if TYPE_CHECKING:
    from backhaul_client.adminmodels import FieldChange, TenantChange

Document = Annotated[
    str, typer.Argument(metavar="FILE", help="The document as backhaul export writes it, JSON; - is standard input.")
]
Secrets = Annotated[
    Path | None,
    typer.Option("--secrets", metavar="FILE", help="JSON: the secrets for the document's references, by their names."),
]


_TENANTS = 100
_EXAMPLE = "backhaul export writes such a document."


def export(
    tenant: Annotated[str, typer.Option("--tenant", metavar="ID", help="This tenant alone.")] = "",
    profile: ProfileName = "",
) -> None:
    """Write the configuration as a JSON document. References stand in the place of secrets.

    Example: backhaul export > backhaul.json
    """
    with connecting.platform(profile) as platform:
        document = platform.export(tenant=tenant)
        cursor = document.pop("next_cursor", None)
        while cursor:
            more = platform.export(tenant=tenant, cursor=cursor)
            document["tenants"] += more["tenants"]
            cursor = more.pop("next_cursor", None)
    output = Output(as_json=False)
    for line in pretty(document).splitlines():
        output.line(line)


def diff(document: Document, secrets: Secrets = None, profile: ProfileName = "", json: AsJson = False) -> None:
    """Say what applying a document would change, and change nothing. It ends with 7 where it would change anything.

    Example: backhaul diff backhaul.json
    """
    body, values = _document(document), _secrets(secrets)
    with connecting.platform(profile) as platform:
        found = platform.apply(body, secrets=values, dry_run=True)
    _say(found, json)
    if _changes(found):
        raise typer.Exit(Code.NO)


def apply(
    document: Document, secrets: Secrets = None, yes: Yes = False, profile: ProfileName = "", json: AsJson = False
) -> None:
    """Make true what a document says. Nothing is deleted. New credentials are shown this once.

    Example: backhaul apply backhaul.json --secrets secrets.json
    """
    if json and not yes:
        raise typer.BadParameter("--json is for programs, which nobody asks: look at backhaul diff, then say --yes.")
    body, values = _document(document), _secrets(secrets)
    with connecting.platform(profile) as platform:
        if not yes:
            planned = platform.apply(body, secrets=values, dry_run=True)
            _say(planned, json=False)
            if not _changes(planned):
                return
            confirmed("Apply it?", yes=False)
        _say(platform.apply(body, secrets=values), json)


def _document(name: str) -> dict[str, Any]:
    body = object_of(name, sys.stdin.read() if name == "-" else Path(name).read_text(), _EXAMPLE)
    # What a page of the API's own answer holds besides.
    body.pop("next_cursor", None)
    tenants = body.get("tenants")
    if isinstance(tenants, list) and len(tenants) > _TENANTS:
        raise FailedError(
            f"{name} has {len(tenants)} tenants, and {_TENANTS} are taken at once.",
            "Divide it: backhaul export --tenant ID writes the document of one.",
        )
    return body


def _secrets(file: Path | None) -> dict[str, Any] | None:
    return None if file is None else object_of(str(file), file.read_text(), _EXAMPLE)


def _changes(found: tuple[TenantChange, ...]) -> bool:
    changed = [part.change for one in found for part in (*one.channels, *one.subscriptions)]
    changed += [one.change for one in found]
    return any(change != "unchanged" for change in changed)


def _say(found: tuple[TenantChange, ...], json: bool) -> None:
    output = Output(as_json=json)
    if json:
        output.rows(found, [], of="tenants")
        return
    rows = [row for one in found for row in _rows(one)]
    output.thing(
        found,
        lambda: [
            table(
                rows,
                [
                    Column("what", lambda row: row[0], folds=True),
                    Column("change", lambda row: row[1]),
                    Column("field", lambda row: row[2], folds=True),
                    Column("before", lambda row: row[3], folds=True),
                    Column("after", lambda row: row[4], folds=True),
                ],
            ),
            *section(
                [row for one in found for row in _credentials(one)],
                [
                    Column("new", lambda row: row[0], folds=True),
                    Column("credential", lambda row: row[1], folds=True),
                ],
            ),
        ],
    )


def _credentials(one: TenantChange) -> Iterator[tuple[str, str]]:
    """What nobody is told again."""
    given = [(f"{one.id} api key", one.api_key), (f"{one.id} ingest token", one.ingest_token)]
    given += [(f"{one.id} subscription {part.name}", part.secret) for part in one.subscriptions]
    yield from ((name, str(credential)) for name, credential in given if credential)


def _rows(one: TenantChange) -> Iterator[tuple[str, str, str, object, object]]:
    parts: list[tuple[str, str, tuple[FieldChange, ...]]] = [(one.id, one.change, one.fields)]
    parts += [(f"{one.id} channel {part.name}", part.change, part.fields) for part in one.channels]
    parts += [(f"{one.id} subscription {part.name}", part.change, part.fields) for part in one.subscriptions]
    for name, change, fields in parts:
        if not fields:
            yield name, change, "", "", ""
        for number, field in enumerate(fields):
            yield ("" if number else name), ("" if number else change), field.field, field.before, field.after
