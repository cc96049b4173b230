"""Where providers' callbacks come in: how each channel is set up, whether it works, and what one callback would be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from backhaul_client import BackhaulError, ChannelIn, NotFoundError
from backhaul_client.adminmodels import Channel
from backhaul_client.models import Event
from backhaul_samples import PROVIDERS
from starlette.responses import Response

from backhaul_console.asking import asks, shows_once
from backhaul_console.forms import REFUSED, Filled, wrong
from backhaul_console.providers import (
    CREDENTIALS,
    KNOWN,
    Provider,
    credentials_of,
    object_of,
    provider,
    settings_of,
    shown,
)
from backhaul_console.rendering import pretty, time_of
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

_SECRETS = ("secrets[0]", "secrets[1]")
"""As the API names them: the one that is valid, and one more while the provider changes over."""
_WAS = "was.settings"
"""What the form showed of the settings, all of them."""
_LATEST = 200
"""Events that are looked at for what a signature is worth."""
_INVALID = "observed_invalid"
_MAX_BODY_BYTES = 1 << 20
_MODES: dict[str, str] = {
    "enforce": _("Callbacks whose signature is bad or missing are refused from then on: the provider is answered 403."),
    "observe": _("Callbacks whose signature is bad or missing are taken, marked, and counted."),
    "off": _("No signature is looked at: whoever has the address can report what they like."),
}


async def _list(visit: Visit) -> Response:
    return visit.page("channels/list.html", channels=await visit.api.channels())


async def _new(visit: Visit) -> Response:
    """First which provider it is: by that the form's fields are."""
    of = KNOWN.get(visit.query.get("provider", ""))
    if of is None:
        return visit.page("channels/providers.html", providers=KNOWN.values())
    return _form(visit, Filled.of(label=of.label, provider=of.name, verification="observe"), of)


async def _make(visit: Visit) -> Response:
    form = await visit.filled()
    label, of = form["label"], provider(form["provider"])
    try:
        if await _is_there(visit, label):
            raise wrong("label", _("There is a channel of this label."), _("Choose another one, or change that one."))
        fields = _fields(form, of)
        fields["provider"], fields["settings"] = form["provider"] or None, settings_of(of, form)
        mode = form["verification"]
        fields["verification"] = "observe" if mode == "observe" else "off" if mode == "off" else "enforce"
        made = await visit.api.put_channel(label, **fields)
    except REFUSED as exc:
        return _form(visit, form.refused(exc), of)
    return visit.to(_at(made), said="channel-made")


async def _is_there(visit: Visit, label: str) -> bool:
    if not label:
        raise wrong("label", _("It has no label."), _("Give it one, such as Twilio."))
    try:
        await visit.api.channel(label)
    except NotFoundError:
        return False
    return True


async def _edit(visit: Visit) -> Response:
    channel = await _found(visit)
    of = provider(channel.provider)
    values = shown(of, channel.settings)
    return _form(visit, Filled({**values, _WAS: [pretty(channel.settings)]}), of, channel)


async def _save(visit: Visit) -> Response:
    form, channel = await visit.filled(), await _found(visit)
    of = provider(channel.provider)
    try:
        fields = _fields(form, of, asked=channel.has_pull_credentials)
        # Emptied, they are the provider's defaults. As the form showed them, they are not touched: what somebody else
        # has changed since stays so.
        settings = settings_of(of, form)
        was = object_of(form, _WAS) if form[_WAS] else {}
        if settings != settings_of(of, Filled(shown(of, was))):
            fields["settings"] = settings
        await visit.api.put_channel(channel.label, **fields)
    except REFUSED as exc:
        return _form(visit, form.refused(exc), of, channel)
    return visit.to(_at(channel), said="saved")


def _form(visit: Visit, form: Filled, of: Provider, channel: Channel | None = None) -> Response:
    values: dict[str, Any] = {
        "channel": channel,
        "secrets": _SECRETS,
        "credentials": CREDENTIALS,
        "of": of,
        "was": _WAS,
    }
    return visit.page("channels/form.html", status=form.status, form=form, **values)


def _fields(form: Filled, of: Provider, *, asked: bool = False) -> ChannelIn:
    """What was typed of a channel but for its settings; what was left empty stays. ``asked``: whether its provider is
    asked already. Raises as the API would."""
    fields: ChannelIn = {}
    given = [_secret(form, name, of.parts) for name in _SECRETS]
    if given[1] and not given[0]:
        raise wrong(
            f"{_SECRETS[0]}.{of.parts[0]}" if of.parts else _SECRETS[0],
            _("Another secret alone would take the place of the one that is valid now."),
            _("Type the one that is valid here as well: it is not known to this form."),
        )
    if given[0]:
        fields["secrets"] = [one for one in given if one]
    if credentials := credentials_of(of, form, asked=asked):
        fields["pull_credentials"] = credentials
    return fields


def _secret(form: Filled, name: str, parts: Sequence[str]) -> str | dict[str, str]:
    """A text, or an object where a secret has several parts; a text that is JSON is one as well. Empty for none."""
    if parts:
        return {part: typed for part in parts if (typed := form[f"{name}.{part}"])}
    return object_of(form, name) if form[name].startswith("{") else form[name]


async def _one(visit: Visit) -> Response:
    channel = await _found(visit)
    working = await visit.api.channel_status(channel.label)
    sampled = channel.provider in PROVIDERS
    return visit.page("channels/one.html", channel=channel, working=working, modes=_MODES, sampled=sampled)


async def _address(visit: Visit) -> Response:
    """A new ingest token, in the address to paste: nobody can show that of a token there was."""
    channel = await _found(visit)
    issued = await visit.api.add_key("ingest")
    own = next((one for one in issued.addresses if one.label == channel.label), None)
    secrets = [(_("Address of %s") % channel.label, str(own.callback_url) if own is not None else str(issued.key))]
    if own is not None and own.token_url:
        secrets.append((_("Address at which it asks for access tokens"), str(own.token_url)))
    return shows_once(
        visit,
        _("The address to paste at the provider"),
        secrets,
        _("Custom parameters follow as &name=value, in front of a # where there is one."),
        _("The token in it is %s, and opens every channel of yours. Addresses from before stay good.") % issued.id,
        back=_at(channel),
    )


async def _verifying(visit: Visit) -> Response:
    """Before another mode: what the latest callbacks would have met."""
    channel, mode = await _found(visit), visit.query.get("to", "enforce")
    if mode not in _MODES:
        mode = "enforce"
    figures: list[tuple[str, object]] = [(_("Now"), channel.verification), (_("Secrets"), channel.secret_count)]
    texts = [_MODES[mode]]
    if mode == "enforce":
        refused = (await visit.api.channel_status(channel.label)).parts.verification.refused
        latest = await _latest(visit, channel)
        if latest:
            kinds = Counter(one.verification for one in latest)
            oldest = min((one.received_at for one in latest if one.received_at), default=None)
            figures += [
                (_("Latest events looked at"), len(latest)),
                (_("The oldest of them"), time_of(oldest)),
                (_("Of these verified"), kinds["verified"]),
                (_("Of these it would have refused"), kinds[_INVALID]),
            ]
        figures.append((_("Bad signatures since this process began"), refused))
        if not channel.secret_count:
            texts.append(_("It has no secret: every callback that needs one would be refused. Give it one first."))
        elif latest is None:
            texts.append(_("What it would have refused cannot be told now: the events are not answered. Wait with it."))
        elif not latest:
            texts.append(
                _("Nothing has come yet by which this could be told. A preview of a callback tells it of one.")
            )
    return asks(
        visit,
        _("Verification of %(label)s: %(mode)s") % {"label": channel.label, "mode": mode},
        *texts,
        figures=figures,
        fields=[("to", mode)],
        action=f"{_at(channel)}/verification",
        label=_("Change it to %s") % mode,
        kind="primary" if mode == "enforce" else "danger",
        back=_at(channel),
    )


async def _latest(visit: Visit, channel: Channel) -> tuple[Event, ...] | None:
    """None where it cannot be told."""
    try:
        return (await visit.first(visit.api.events(channel=channel.key, page_size=_LATEST))).rows
    except BackhaulError:
        return None


async def _verify(visit: Visit) -> Response:
    form = await visit.filled()
    mode: Literal["enforce", "observe", "off"]
    mode = "observe" if form["to"] == "observe" else "off" if form["to"] == "off" else "enforce"
    channel = await visit.api.put_channel(_label(visit), verification=mode)
    return visit.to(_at(channel), said="saved")


async def _holding(visit: Visit) -> Response:
    channel = await _found(visit)
    return asks(
        visit,
        _("Hold %s") % channel.label,
        _("Callbacks are verified, stored and answered as ever, and are processed when processing is on again."),
        _("Until then nothing of them is seen: no events, no opt-outs, and no application is told."),
        figures=[(_("Now"), channel.processing)],
        fields=[("to", "held")],
        action=f"{_at(channel)}/processing",
        label=_("Hold it"),
        back=_at(channel),
    )


async def _process(visit: Visit) -> Response:
    held = (await visit.filled())["to"] == "held"
    channel = await visit.api.put_channel(_label(visit), processing="held" if held else "on")
    return visit.to(_at(channel), said="held" if held else "processed")


async def _previewing(visit: Visit) -> Response:
    return visit.page("channels/preview.html", channel=await _found(visit), form=visit.asked, preview=None)


async def _preview(visit: Visit) -> Response:
    """By POST, since a callback has people's addresses and texts: these belong in no address of a page."""
    form, channel, preview = await visit.filled(), await _found(visit), None
    try:
        preview = await visit.api.preview(
            channel.label,
            body=form.raw("body"),
            headers=form.headers(),
            query=form["query"],
            url=form["url"],
        )
    except REFUSED as exc:
        form = form.refused(exc)
    return visit.page("channels/preview.html", status=form.status, channel=channel, form=form, preview=preview)


async def _deleting(visit: Visit) -> Response:
    channel = await _found(visit)
    return asks(
        visit,
        _("Remove %s") % channel.label,
        _("Its callbacks are refused from then on, and its secrets are gone. What it brought stays."),
        figures=[(_("Provider"), channel.provider), (_("Secrets"), channel.secret_count)],
        action=f"{_at(channel)}/delete",
        label=_("Remove it"),
        back=_at(channel),
    )


async def _delete(visit: Visit) -> Response:
    try:
        await visit.api.delete_channel(_label(visit))
    except NotFoundError:
        return visit.to("/channels", said="gone")
    return visit.to("/channels", said="deleted")


async def _found(visit: Visit) -> Channel:
    return await visit.api.channel(_label(visit))


def _label(visit: Visit) -> str:
    return str(visit.request.path_params["label"])


def _at(channel: Channel) -> str:
    """Labels are letters, digits, spaces, hyphens and underscores, and begin with none of the last three."""
    return f"/channels/{channel.label.replace(' ', '%20')}"


_ONE = "/channels/{label}"
ROUTES = (
    Page("GET", "/channels", _list),
    # No label begins with an underscore.
    Page("GET", "/channels/_new", _new),
    Page("POST", "/channels/_new", _make),
    Page("GET", _ONE, _one),
    Page("GET", f"{_ONE}/edit", _edit),
    Page("POST", f"{_ONE}/edit", _save),
    Page("POST", f"{_ONE}/address", _address),
    Page("GET", f"{_ONE}/verification", _verifying),
    Page("POST", f"{_ONE}/verification", _verify),
    Page("GET", f"{_ONE}/processing", _holding),
    Page("POST", f"{_ONE}/processing", _process),
    Page("GET", f"{_ONE}/preview", _previewing),
    Page("POST", f"{_ONE}/preview", _preview, max_body=_MAX_BODY_BYTES),
    Page("GET", f"{_ONE}/delete", _deleting),
    Page("POST", f"{_ONE}/delete", _delete),
)
