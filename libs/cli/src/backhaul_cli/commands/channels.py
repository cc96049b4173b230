"""``backhaul channels``: where providers' callbacks come in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backhaul_cli import connecting
from backhaul_cli.documents import object_of
from backhaul_cli.failing import Code
from backhaul_cli.options import AsJson, OfTenant, ProfileName, Yes, confirmed, secret
from backhaul_cli.output import Column, Output, facts, section

if TYPE_CHECKING:
    from backhaul_client import ChannelIn
    from backhaul_client.adminmodels import Channel
    from backhaul_client.models import PreviewPart

app = typer.Typer(no_args_is_help=True)

Label = Annotated[str, typer.Argument(metavar="LABEL", help="The channel's label, such as Twilio.")]


@app.command("list")
def list_(tenant: OfTenant = "", profile: ProfileName = "", json: AsJson = False) -> None:
    """List channels.

    Example: backhaul channels list --json
    """
    if tenant:
        with connecting.platform(profile) as platform:
            found = platform.channels(tenant)
    else:
        with connecting.tenant(profile) as backhaul:
            found = backhaul.channels()
    Output(as_json=json).rows(
        found,
        [
            Column("label", lambda one: one.label, folds=True),
            Column("provider", lambda one: one.provider),
            Column("verification", lambda one: one.verification),
            Column("secrets", lambda one: one.secret_count, right=True),
            Column("processing", lambda one: one.processing),
            Column("asked", lambda one: one.has_pull_credentials),
        ],
        of="channels",
    )


@app.command()
def show(label: Label, tenant: OfTenant = "", profile: ProfileName = "", json: AsJson = False) -> None:
    """Show one channel, with the address to paste at its provider.

    Example: backhaul channels show Twilio
    """
    _say(_found(label, tenant, profile), json)


@app.command()
def add(
    label: Label,
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="NAME", help="Where the label does not say it, such as twilio.")
    ] = None,
    with_secret: Annotated[
        bool,
        typer.Option("--secret", help="Ask for the secret that verifies callbacks, or read it: all others go."),
    ] = False,
    verification: Annotated[
        Literal["enforce", "observe", "off"] | None, typer.Option("--verification", help="What a bad signature means.")
    ] = None,
    processing: Annotated[
        Literal["on", "held"] | None, typer.Option("--processing", help="Whether callbacks wait after they are stored.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", metavar="FILE", help="JSON: the provider's own settings, all of them.")
    ] = None,
    tenant: OfTenant = "",
    yes: Yes = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Add a channel, or change what is said of it.

    Example: backhaul channels add Twilio --secret --verification observe
    """
    fields: ChannelIn = {"provider": provider, "verification": verification, "processing": processing}
    if provider and not yes:
        _ask_about_another(label, provider, tenant, profile)
    if with_secret:
        given = secret(f"Secret of {label}")
        if not given:
            raise typer.BadParameter("The secret is empty.")
        fields["secrets"] = [given]
    if settings is not None:
        example = 'It is like {"statuses": {"arrived": "delivered"}}.'
        fields["settings"] = object_of(str(settings), settings.read_text(), example)
    if tenant:
        with connecting.platform(profile) as platform:
            found = platform.put_channel(tenant, label, **fields)
    else:
        with connecting.tenant(profile) as backhaul:
            found = backhaul.put_channel(label, **fields)
    _say(found, json)


@app.command()
def preview(
    label: Label,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The body, byte by byte; without, standard input.")] = "-",
    headers: Annotated[
        Path | None, typer.Option("--headers", metavar="FILE", help="What comes beside it, one a line, or as JSON.")
    ] = None,
    query: Annotated[
        str, typer.Option("--query", metavar="TEXT", help="Custom parameters of the address, as id=1&category=x.")
    ] = "",
    with_url: Annotated[
        bool, typer.Option("--url", help="Ask for the address that the provider posts to, or read it: it has a token.")
    ] = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Show what a callback would be answered, and what would become of it. Nothing of it is kept. It ends with 7 where
    it would be refused, or a part of it could not be read.

    Example: backhaul channels preview Twilio body.txt --headers headers.txt --query communicationId=spring
    """
    if with_url and query:
        raise typer.BadParameter("An address has its own parameters: leave --query out.")
    if with_url and file == "-" and not sys.stdin.isatty():
        raise typer.BadParameter("Standard input is the body: name a file, and give the address there.")
    from backhaul_cli.signatures import headers_of

    beside = headers_of(headers.read_text()) if headers is not None else None
    url = secret("Address") if with_url else ""
    body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    with connecting.tenant(profile) as backhaul:
        found = backhaul.preview(label, body=body, headers=beside, query=query, url=url)
    Output(as_json=json).thing(
        found,
        lambda: [
            facts(
                ("verification", found.verification.result),
                ("mode", found.verification.mode),
                ("because", found.verification.detail),
                ("answer", found.answer.status),
            ),
            *section(
                found.parts,
                [
                    Column("becomes", _becomes),
                    Column("message", lambda one: one.event and one.event.message_id, folds=True),
                    Column("recipient", lambda one: one.event and one.event.recipient, folds=True),
                    Column("error", lambda one: one.event and one.event.error_code),
                    Column("because", lambda one: one.ignored or one.dead_letter, folds=True),
                ],
            ),
        ],
    )
    if found.answer.status >= 300 or any(part.dead_letter for part in found.parts):
        raise typer.Exit(Code.NO)


def _becomes(part: PreviewPart) -> str:
    return part.event.kind if part.event else "a dead letter" if part.dead_letter else "nothing"


def _ask_about_another(label: str, provider: str, tenant: str, profile: str) -> None:
    """Where ``label`` has another provider than ``provider``: its secrets and settings go with that one."""
    from backhaul_client import ForbiddenError, NotFoundError

    try:
        before = _found(label, tenant, profile).provider
    except NotFoundError:
        return
    except ForbiddenError:
        # A key that may change what it may not read.
        confirmed(f"It cannot be seen whether {label} has another provider, whose secrets would go. Go on?", yes=False)
        return
    if before.lower() != provider.lower():
        confirmed(f"{label} is of {before}, whose secrets and settings go. Make it one of {provider}?", yes=False)


def _found(label: str, tenant: str, profile: str) -> Channel:
    if tenant:
        with connecting.platform(profile) as platform:
            return platform.channel(tenant, label)
    with connecting.tenant(profile) as backhaul:
        return backhaul.channel(label)


def _say(found: Channel, json: bool) -> None:
    Output(as_json=json).thing(
        found,
        lambda: [
            facts(
                ("label", found.label),
                ("provider", found.provider),
                ("verification", found.verification),
                ("secrets", found.secret_count),
                ("processing", found.processing),
                ("held since", found.held_since),
                ("asks the provider", found.has_pull_credentials),
                ("own bucket", found.has_audit_credentials),
                ("settings", found.settings),
                ("callback address", found.callback_url),
                ("token address", found.token_url),
                ("changed", found.updated_at),
            )
        ],
    )
