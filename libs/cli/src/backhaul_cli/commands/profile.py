"""``backhaul profile``: where Backhaul is, and what opens it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated

import typer

from backhaul_cli import keeping, profiles
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
    keyring: Annotated[
        bool, typer.Option("--keyring", help="Keep the key in the system's keyring, and not in the file of profiles.")
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
    if keyring:
        keeping.import_or_say()
    credential = secret("Admin token" if admin else "API key")
    if not credential or not credential.isascii() or not credential.isprintable() or " " in credential:
        raise FailedError("That is no key: it is empty, or holds a character that none has.", "Give it in one line.")
    # The other credential stays, if it is of the same place.
    before = known.known.get(name)
    kept = before if before is not None and before.url == where else Profile(source="", url=where)
    kind = "admin_token" if admin else "api_key"
    others = tuple(one for one in kept.keyring if one != kind)
    kept = replace(kept, keyring=(*others, kind) if keyring else others)
    written = "" if keyring else credential
    # An ingest token goes with the key of its tenant, which this may not be.
    made = replace(kept, admin_token=written) if admin else replace(kept, api_key=written, ingest_token="")
    changed = known.with_one(name, made)
    if keyring:
        # First: a profile that says that it is there must not come before it.
        keeping.write(name, where, kind, credential)
    profiles.write(file, changed.using(name) if use else changed)
    if before is not None:
        _forget(name, before.url, [one for one in before.keyring if before.url != where or one not in made.keyring])
    Output(as_json=False).note(f"Profile {name} is in {file}.")


@app.command("list")
def list_(json: AsJson = False) -> None:
    """List profiles, without their keys.

    Example: backhaul profile list --json
    """
    found = profiles.read(profiles.path(os.environ))
    rows = [
        {
            "name": name,
            "url": profile.url,
            "current": name == found.current,
            "has_api_key": profile.has("api_key"),
            "has_admin_token": profile.has("admin_token"),
            "keyring": bool(profile.keyring),
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
            Column("keyring", lambda row: row["keyring"]),
        ],
        of="profiles",
    )


@app.command()
def use(name: Name) -> None:
    """Use a profile from now on where none is named.

    Example: backhaul profile use acme
    """
    file = profiles.path(os.environ)
    profiles.write(file, profiles.read(file).using(name))


@app.command()
def remove(name: Name) -> None:
    """Remove a profile with its keys. They stay valid: backhaul keys remove revokes one.

    Example: backhaul profile remove acme
    """
    file = profiles.path(os.environ)
    known = profiles.read(file)
    gone = known.one(name)
    profiles.write(file, known.without(name))
    _forget(name, gone.url, gone.keyring)


def _forget(name: str, url: str, kept: Iterable[str]) -> None:
    """Takes keys that no profile names any more out of the keyring. One that does not answer is no reason to fail."""
    for kind in kept:
        try:
            keeping.remove(name, url, kind)
        except FailedError as exc:
            Output(as_json=False).note(f"A key of {name} stays in the keyring: {exc.what}")
