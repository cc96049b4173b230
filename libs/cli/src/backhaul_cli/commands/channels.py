"""``backhaul channels``: where providers' callbacks come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backhaul_cli import connecting
from backhaul_cli.options import AsJson, OfTenant, ProfileName, Yes, confirmed, secret
from backhaul_cli.output import Column, Output, facts

if TYPE_CHECKING:
    from backhaul_client import ChannelIn
    from backhaul_client.adminmodels import Channel

app = typer.Typer(no_args_is_help=True)

Label = Annotated[str, typer.Argument(metavar="LABEL", help="The channel's label, such as Twilio.")]


@app.command("list")
def list_(tenant: OfTenant = "", profile: ProfileName = "", json: AsJson = False) -> None:
    """List channels."""
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
    """Show one channel, with the address to paste at its provider."""
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
    if tenant:
        with connecting.platform(profile) as platform:
            found = platform.put_channel(tenant, label, **fields)
    else:
        with connecting.tenant(profile) as backhaul:
            found = backhaul.put_channel(label, **fields)
    _say(found, json)


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
