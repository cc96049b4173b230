"""The steps of ``backhaul init``. Each does nothing where it was done before."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from backhaul_samples import PROVIDERS, Provider, named

from backhaul_cli import profiles, sampling
from backhaul_cli.failing import Code, FailedError
from backhaul_cli.options import secret
from backhaul_cli.profiles import Profile
from backhaul_cli.texts import command

if TYPE_CHECKING:
    from backhaul_client import AdminClient, ChannelIn, TenantClient
    from backhaul_client.adminmodels import Channel
    from backhaul_client.models import Message

    from backhaul_cli.output import Output

_EVENT = "delivered"
"""Every provider has it."""


class Asked(NamedTuple):
    """What is to be there in the end."""

    tenant: str
    name: str
    queue_path: str
    provider: Provider
    label: str
    profile: str


class Opened(NamedTuple):
    """The channel, and what signs a sample for it, as far as that is known. ``made_up``: that is no secret of the
    provider's, but one for trying. ``left_out``: one was given, and the channel was there, which stays as it is."""

    channel: Channel
    signs: str
    made_up: bool
    left_out: bool


class First(NamedTuple):
    """What became of the sample: its message, or why it was not sent, and what to do. ``for_trying``: whoever knows a
    secret that was made up can sign for the channel."""

    message: Message | None = None
    for_trying: bool = False
    refused: str = ""
    fix: str = ""


def asked(tenant: str, name: str, queue_path: str, provider: str, label: str, own: str) -> Asked:
    """What the options say; what they leave out is asked for, or follows from the rest."""
    tenant = tenant or _answer("Tenant", "--tenant")
    chosen = provider or _answer(f"Provider ({', '.join(PROVIDERS)})", "--provider")
    known = named(chosen)
    if known is None:
        raise FailedError(
            f"There is no sample of {chosen!r}, with which to try a channel.",
            f"There are of {', '.join(PROVIDERS)}; for others: backhaul channels add, and preview a real callback.",
        )
    return Asked(tenant, name or tenant, queue_path or tenant, known, label or known.label, own or tenant)


def _answer(question: str, option: str) -> str:
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"Nobody can be asked for it here: say {option}.")
    answer: str = typer.prompt(question, err=True)
    return answer.strip()


def tenant_of(platform: AdminClient, asked: Asked, where: str, output: Output) -> Profile:
    """The tenant's profile, with a key and a token that are valid; both are made where they are not there."""
    from backhaul_client import NotFoundError

    file = profiles.path(os.environ)
    known = profiles.read(file)
    kept = known.known.get(asked.profile) or Profile(source="", url=where)
    # Whatever is wrong with the profile is said before there is a key, which it is to keep.
    known.with_one(asked.profile, kept)
    if kept.url != where:
        raise FailedError(f"The profile {asked.profile} is of {kept.url}.", "Say another name: --as NAME.")
    if kept.keyring:
        raise FailedError(
            f"The profile {asked.profile} keeps its key in the keyring, and this one would be in the file.",
            "Say another name for the tenant's profile: --as NAME.",
        )
    if not kept.sample_key:
        kept = replace(kept, sample_key=secrets.token_hex(32))
    try:
        ids = {key.id for key in platform.tenant(asked.tenant).keys}
        there = True
    except NotFoundError:
        ids, there = set(), False
    if kept.api_key and _id(kept.api_key) not in ids:
        raise FailedError(
            f"The profile {asked.profile} has a key that is none of a tenant {asked.tenant}.",
            "Say another name for the tenant's profile: --as NAME; or, where the key is of no use any more: "
            f"{command('profile remove', asked.profile)}",
        )
    if not there:
        made = platform.create_tenant(asked.tenant, name=asked.name, queue_path=asked.queue_path)
        kept = replace(kept, api_key=str(made.api_key), ingest_token=str(made.ingest_token))
        kept = _keep(asked, kept)
        output.note(f"Made the tenant {asked.tenant}; profile {asked.profile} in {file} has its key.")
        return kept
    if not kept.api_key:
        kept = _keep(asked, replace(kept, api_key=str(platform.add_key(asked.tenant, "api").key)))
        output.note(f"The tenant {asked.tenant} is there; profile {asked.profile} has a new key of it.")
    if _id(kept.ingest_token) not in ids:
        kept = _keep(asked, replace(kept, ingest_token=str(platform.add_key(asked.tenant, "ingest").key)))
    return kept


def _keep(asked: Asked, changed: Profile) -> Profile:
    file = profiles.path(os.environ)
    profiles.write(file, profiles.read(file).with_one(asked.profile, changed))
    return changed


def _id(credential: str) -> str:
    """The part of a key or token that is no secret."""
    return "".join(credential.split("_")[1:2])


def channel_of(backhaul: TenantClient, asked: Asked, found: Profile, with_secret: bool, output: Output) -> Opened:
    """The channel, made where it is not there. Its secret is the provider's where it is given, or else one that follows
    from the profile."""
    from backhaul_client import NotFoundError

    provider = asked.provider
    given = _given(provider, asked.label) if with_secret else ""
    trying = provider.trying(found.sample_key) if provider.trying is not None and not given else None
    # What verifies SendGrid's callbacks signs none.
    signs = trying.signs if trying is not None else "" if provider.is_public else given
    try:
        there, made = backhaul.channel(asked.label), False
    except NotFoundError:
        fields: ChannelIn = {"provider": provider.name}
        if given:
            fields["secrets"] = [given if provider.signs else _credentials(given)]
        elif trying is not None:
            fields["secrets"] = [trying.verifies]
        there, made = backhaul.put_channel(asked.label, **fields), True
        output.note(f"Made the channel {asked.label}.")
    if there.provider != provider.name:
        raise FailedError(
            f"The channel {asked.label} is of {there.provider}.",
            "Say another label: --channel LABEL.",
            code=Code.REFUSED,
        )
    return Opened(there, signs, made_up=trying is not None, left_out=bool(given) and not made)


def _given(provider: Provider, label: str) -> str:
    given = secret(f"{provider.secret} ({label})")
    if not given:
        raise typer.BadParameter("The secret is empty.")
    return given


def _credentials(text: str) -> dict[str, Any]:
    name, _, password = text.partition(":")
    return {"username": name, "password": password}


def pasted(found: Profile, channel: Channel) -> str:
    """The address to paste at the provider, with the token in its place."""
    return channel.callback_url.replace("{ingest_token}", found.ingest_token)


def first_callback(backhaul: TenantClient, asked: Asked, found: Profile, opened: Opened, output: Output) -> First:
    """A sample in the timeline of its message, which is the same each time; it is sent where it is not there."""
    provider, channel = asked.provider, opened.channel
    content = provider.sample(_EVENT, seed=found.sample_key + channel.key)
    at = sampling.address(found, channel)
    post = provider.post(content, at.signed, opened.signs)
    preview = sampling.looked_at(backhaul, channel, post, at)
    for_trying = opened.made_up and preview.verification.result == "verified"
    if opened.left_out and preview.verification.result != "verified":
        refused = f"The channel {asked.label} was there already, and nothing shows that this is its secret."
        return First(refused=refused, fix=f"Set it: {secret_of(asked)}")
    try:
        # Before it is looked whether it was sent: what was taken once says nothing of what is taken now.
        sampling.check(preview, provider, channel)
    except FailedError as exc:
        return First(refused=exc.what, fix=exc.fix)
    for one in preview.parts:
        if one.event is not None:
            there = sampling.known(backhaul, one.event.channel, one.event.message_id)
            if there is not None and any(event.kind == one.event.kind for event in there.timeline):
                output.note("The sample was sent before, and is in the timeline.")
                return First(there, for_trying)
    sampling.posted(post, at)
    messages = sampling.followed(backhaul, preview, asked.profile, output)
    return First(messages[0] if messages else None, for_trying)


def next_steps(asked: Asked, told: First) -> Iterator[str]:
    """What is left to be done, and what can be looked at."""
    if told.for_trying:
        yield f"The secret of {asked.label} is one for trying. {asked.provider.label} has another: {secret_of(asked)}"
    yield f"Next: {command('listen', 'http://127.0.0.1:9000', profile=asked.profile)}"


def secret_of(asked: Asked) -> str:
    """The command that gives the channel its secret."""
    return command("channels add", asked.label, secret=True, profile=asked.profile)
