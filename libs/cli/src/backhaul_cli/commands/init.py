"""``backhaul init``: from an installation with nobody in it to the first callback in a timeline."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from backhaul_cli import connecting, profiles
from backhaul_cli.failing import Code, FailedError
from backhaul_cli.options import AsJson, ProfileName, Yes, confirmed
from backhaul_cli.output import Output, facts, words
from backhaul_cli.texts import command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backhaul_client.models import Message
    from rich.console import RenderableType


def init(
    tenant: Annotated[str, typer.Option("--tenant", metavar="ID", help="The tenant's id. Asked for otherwise.")] = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What it is called: the id, unless said.")] = "",
    queue_path: Annotated[
        str, typer.Option("--queue-path", metavar="PATH", help="Its part of the streams' subjects: the id, likewise.")
    ] = "",
    provider: Annotated[
        str, typer.Option("--provider", metavar="NAME", help="Of the first channel. Asked for otherwise.")
    ] = "",
    channel: Annotated[
        str, typer.Option("--channel", metavar="LABEL", help="The channel's label: the provider's usual, unless said.")
    ] = "",
    with_secret: Annotated[
        bool,
        typer.Option("--secret", help="Ask for the secret that verifies callbacks, or read it; else one is made."),
    ] = False,
    own: Annotated[
        str, typer.Option("--as", metavar="NAME", help="The profile that keeps the tenant's key: the id, likewise.")
    ] = "",
    yes: Yes = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Make the first tenant, a profile with its key, and its first channel; show the address to paste at the provider,
    send a signed sample, and follow it into the timeline. It takes the platform team's admin token. What is there
    already stays, so that it goes on where it stopped.

    Example: backhaul init --tenant acme --provider twilio --yes
    """
    from backhaul_cli import beginning

    output = Output(as_json=json)
    with connecting.platform(profile) as platform:
        where = profiles.chosen(profile, os.environ).url
        asked = beginning.asked(tenant, name, queue_path, provider, channel, own)
        confirmed(
            f"Make the tenant {asked.tenant} at {where} with the channel {asked.label}, as far as they are not there, "
            "and send a sample?",
            yes=yes,
        )
        found = beginning.tenant_of(platform, asked, where, output)
    with connecting.tenant(asked.profile) as backhaul:
        opened = beginning.channel_of(backhaul, asked, found, with_secret, output)
        at = beginning.pasted(found, opened.channel)
        if not json:
            output.note(f"At {asked.provider.label}, paste this address. Who knows it can post to it:")
            output.line(at)
        told = beginning.first_callback(backhaul, asked, found, opened, output)
    output.thing(
        {
            "tenant": asked.tenant,
            "profile": asked.profile,
            "channel": opened.channel.label,
            "callback_url": at,
            "secret_made_for_trying": told.for_trying,
            "message": told.message,
            "sample_refused": told.refused or None,
        },
        lambda: _parts(told.message, asked.profile),
    )
    for line in beginning.next_steps(asked, told):
        output.note(line)
    if told.refused:
        raise FailedError(told.refused, told.fix, code=Code.NO)


def _parts(message: Message | None, profile: str) -> Iterator[RenderableType]:
    if message is None:
        return
    from backhaul_cli import messageviews

    yield words("")
    yield from messageviews.VIEWS["timeline"](message, ())
    yield facts(("in the timeline", command("message", message.message_id, profile=profile)))
