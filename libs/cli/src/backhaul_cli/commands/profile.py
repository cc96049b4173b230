"""``backhaul profile``: where Backhaul is, and what opens it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

import typer

from backhaul_cli import profiles
from backhaul_cli.failing import FailedError
from backhaul_cli.options import AsJson, secret
from backhaul_cli.output import Column, Output
from backhaul_cli.profiles import Profile

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="What you call it.")]


@app.command()
def add(
    name: Name,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Where Backhaul's gateway is.")],
    admin: Annotated[
        bool, typer.Option("--admin", help="Ask for the platform team's admin token, not an API key.")
    ] = False,
    use: Annotated[bool, typer.Option("--use", help="Use it from now on where none is named.")] = False,
) -> None:
    """Add a profile, or set one anew. The key is asked for, or read from standard input: the platform team gives the
    first one (backhaul tenants add shows it), and backhaul keys add makes more.

    Example: backhaul profile add acme --url https://callbacks.example.com < key-file
    """
    file = profiles.path(os.environ)
    known = profiles.read(file)
    where = profiles.address(url)
    credential = secret("Admin token" if admin else "API key")
    if not credential or not credential.isascii() or not credential.isprintable() or " " in credential:
        raise FailedError("That is no key: it is empty, or holds a character that none has.", "Give it in one line.")
    # The other credential stays, if it is of the same place.
    before = known.known.get(name)
    kept = before if before is not None and before.url == where else Profile(source="", url=where)
    # An ingest token goes with the key of its tenant, which this may not be.
    made = replace(kept, admin_token=credential) if admin else replace(kept, api_key=credential, ingest_token="")
    changed = known.with_one(name, made)
    profiles.write(file, changed.using(name) if use else changed)
    Output(as_json=False).note(f"Profile {name} is in {file}.")


@app.command("list")
def list_(json: AsJson = False) -> None:
    """List profiles, without their keys."""
    found = profiles.read(profiles.path(os.environ))
    rows = [
        {
            "name": name,
            "url": profile.url,
            "current": name == found.current,
            "has_api_key": bool(profile.api_key),
            "has_admin_token": bool(profile.admin_token),
        }
        for name, profile in found.known.items()
    ]
    Output(as_json=json).rows(
        rows,
        [
            Column("", lambda row: "*" if row["current"] else ""),
            Column("name", lambda row: row["name"]),
            Column("url", lambda row: row["url"], folds=True),
            Column("api key", lambda row: row["has_api_key"]),
            Column("admin token", lambda row: row["has_admin_token"]),
        ],
        of="profiles",
    )


@app.command()
def use(name: Name) -> None:
    """Use a profile from now on where none is named."""
    file = profiles.path(os.environ)
    profiles.write(file, profiles.read(file).using(name))


@app.command()
def remove(name: Name) -> None:
    """Remove a profile with its keys. They stay valid: backhaul keys remove revokes one."""
    file = profiles.path(os.environ)
    profiles.write(file, profiles.read(file).without(name))
