"""``backhaul send``: a signed sample of any provider's callback, to one of the tenant's channels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backhaul_cli import connecting, profiles
from backhaul_cli.failing import Code, FailedError
from backhaul_cli.options import AsJson, ProfileName, secret
from backhaul_cli.output import Column, Output
from backhaul_cli.texts import command

if TYPE_CHECKING:
    from backhaul_client import TenantClient
    from backhaul_client.adminmodels import Channel
    from backhaul_client.models import Message
    from backhaul_samples import Provider


def send(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="Whose callback, such as twilio.")] = "",
    event: Annotated[str, typer.Argument(metavar="EVENT", help="What it tells, in the provider's word.")] = "",
    listed: Annotated[bool, typer.Option("--list", help="List providers and their events, and send nothing.")] = False,
    channel: Annotated[
        str, typer.Option("--channel", metavar="LABEL", help="To this channel, where several are of the provider.")
    ] = "",
    message: Annotated[str, typer.Option("--message", metavar="ID", help="Of this message, and not a new one.")] = "",
    override: Annotated[
        list[str] | None,
        typer.Option("--override", metavar="PATH=VALUE", help="Set a field; a.b leads into JSON. May be repeated."),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", metavar="NAME=VALUE", help="A custom parameter of the address. May be repeated."),
    ] = None,
    edit: Annotated[bool, typer.Option("--edit", help="Edit it in VISUAL or EDITOR before it is signed.")] = False,
    with_secret: Annotated[
        bool, typer.Option("--secret", help="Ask for the channel's secret that signs it, or read it.")
    ] = False,
    signing_key: Annotated[
        Path | None,
        typer.Option("--signing-key", metavar="FILE", help="Sign by the private key in this PEM file (SendGrid)."),
    ] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Say what would become of it, and send nothing.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Wait until it is in the timeline, and show that.")] = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Send a signed sample of a provider's callback to a channel, and say what becomes of it. It counts as a real one
    does. It is looked at first, and not sent where the channel would refuse it.

    Example: backhaul send twilio delivered --override To=+12025550107 --follow
    """
    output = Output(as_json=json)
    if listed:
        _list(output, provider)
        return
    from backhaul_cli import changing, sampling

    one = _chosen(provider, event)
    found = profiles.chosen(profile, os.environ)
    with connecting.tenant(profile) as backhaul:
        to = _channel(backhaul, one, channel, profile)
        given = signs_with(one, to, with_secret, signing_key)
        content = changing.overridden(one.sample(event, message), override or [], is_form=one.is_form)
        if edit:
            content = changing.edited(content, is_form=one.is_form)
        at = sampling.address(found, to, parameter or [])
        post = one.post(content, at.signed, sampling.signing(one, given, found))
        looked_at = sampling.looked_at(backhaul, to, post, at)
        if not preview:
            sampling.check(looked_at, one, to)
        callback_id = "" if preview else sampling.posted(post, at)
        parts = sampling.events_of(looked_at)
        messages = sampling.followed(backhaul, looked_at, profile, output) if follow and not preview else []
    output.thing(
        {
            "provider": one.name,
            "event": event,
            "channel": to.label,
            "verification": looked_at.verification.result,
            "callback_id": callback_id or None,
            "parts": parts,
            "content": content,
            "messages": messages,
        },
        lambda: [*sampling.described(one, event, to, content, looked_at, callback_id), *_told(messages)],
    )
    if any(part["kind"] is None for part in parts):
        raise typer.Exit(Code.NO)


def _told(messages: list[Message]) -> list[Any]:
    from backhaul_cli import messageviews
    from backhaul_cli.output import words

    return [part for one in messages for part in (words(""), *messageviews.VIEWS["timeline"](one, ()))]


def _list(output: Output, provider: str) -> None:
    from backhaul_samples import PROVIDERS, named

    asked = named(provider)
    if provider and asked is None:
        raise _unknown(provider)
    output.rows(
        [
            {"provider": one.name, "event": event, "source": one.source}
            for one in PROVIDERS.values()
            if asked in (None, one)
            for event in one.events
        ],
        [
            Column("provider", lambda row: row["provider"]),
            Column("event", lambda row: row["event"]),
            Column("as told by", lambda row: row["source"], folds=True),
        ],
        of="samples",
    )


def _unknown(provider: str) -> FailedError:
    from backhaul_samples import PROVIDERS

    return FailedError(f"There is no sample of {provider!r}.", f"There are of {', '.join(PROVIDERS)}.")


def _chosen(provider: str, event: str) -> Provider:
    from backhaul_samples import named

    if not provider or not event:
        raise FailedError("Name a provider and an event.", "backhaul send --list has all.")
    one = named(provider)
    if one is None:
        raise _unknown(provider)
    if event not in one.events:
        raise FailedError(f"{one.label} has no sample {event!r}.", f"It has {', '.join(one.events)}.")
    return one


def _channel(backhaul: TenantClient, provider: Provider, label: str, profile: str) -> Channel:
    """The channel that is named, or else the only one of the provider."""
    if label:
        found = backhaul.channel(label)
        if found.provider != provider.name:
            raise FailedError(f"{label} is a channel of {found.provider}.", "Leave --channel out, or send that one's.")
        return found
    fitting = [one for one in backhaul.channels() if one.provider == provider.name]
    if not fitting:
        raise FailedError(
            f"There is no channel of {provider.name}.",
            f"{command('channels add', provider.label, provider=provider.name, profile=profile)}, or backhaul init.",
            code=Code.NOT_FOUND,
        )
    if len(fitting) > 1:
        raise FailedError(
            f"{', '.join(one.label for one in fitting)} are of {provider.name}.", "Say which: --channel LABEL."
        )
    return fitting[0]


def signs_with(provider: Provider, channel: Channel, with_secret: bool, signing_key: Path | None) -> str:
    """What is to sign it, as far as it was said."""
    if signing_key is not None:
        if not provider.is_public:
            raise FailedError("--signing-key is SendGrid's alone.", f"--secret asks for that of {channel.label}.")
        return signing_key.read_text()
    if not with_secret:
        return ""
    if provider.is_public:
        raise FailedError("SendGrid's secret is a public key, which signs nothing.", "Say --signing-key FILE.")
    return secret(f"{provider.secret} ({channel.label})")
