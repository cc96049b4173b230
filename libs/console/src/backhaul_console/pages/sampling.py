"""A channel is tried with a sample of its provider's callbacks: looked at, signed, sent as by the provider, followed.

The secret that signs is in the form that sends the sample, and nowhere else: no page, address or log has it.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import httpx
from backhaul_client import NotFoundError, UnreachableError
from backhaul_client.adminmodels import Channel
from backhaul_client.errors import problem_of
from backhaul_client.models import Message, Preview
from backhaul_samples import PROVIDERS, Post, Provider
from backhaul_samples.addresses import Address, address
from backhaul_samples.provider import Content
from starlette.responses import Response

from backhaul_console.forms import REFUSED, Filled, wrong
from backhaul_console.rendering import segment
from backhaul_console.texts import _
from backhaul_console.visits import BASE_URL, Page, Visit

_FIRST = "delivered"
"""Every provider has it."""
_REFUSED = "refused"
_ASKS_FOR_SECRET = (_REFUSED, "observed_invalid")
"""What is said of a sample that nothing signs, where something may."""
_OFTEN_S = 60
_AT_ALL_S = 600
"""How long after a sample was sent its page asks for the event every second, and every five."""
_DIGITS = 12


class _Sample(NamedTuple):
    """What is chosen of a provider's samples, and where it goes."""

    event: str
    message_id: str
    content: Content
    at: Address


async def _look(visit: Visit) -> Response:
    channel = await _channel(visit)
    return await _shown(visit, channel, _provider(channel), visit.asked)


async def _shown(visit: Visit, channel: Channel, provider: Provider, form: Filled) -> Response:
    """The sample that ``form`` chooses, and what would become of it; with what is needed to send it."""
    sample: _Sample | None = None
    preview: Preview | None = None
    try:
        sample = _sample(provider, channel, form)
        preview = await _preview(visit, channel, provider.post(sample.content, sample.at.signed, ""), sample.at)
    except REFUSED as exc:
        form = form.refused(exc)
    result = preview.verification.result if preview is not None else ""
    values: dict[str, Any] = {
        "form": form,
        "channel": channel,
        "provider": provider,
        "sample": sample,
        "preview": preview,
        "refused": result == _REFUSED,
        "takes_secret": result in _ASKS_FOR_SECRET and not provider.is_public,
    }
    return visit.page("channels/sample.html", status=form.status, **values)


async def _send(visit: Visit) -> Response:
    form, channel = await visit.filled(), await _channel(visit)
    provider = _provider(channel)
    try:
        sample = _sample(provider, channel, form)
        secret = "" if provider.is_public else form["secret"]
        post = provider.post(sample.content, sample.at.signed, secret)
        preview = await _preview(visit, channel, post, sample.at)
        if preview.verification.result == _REFUSED:
            # It is not sent: a refusal counts in the channel's health.
            raise _would_refuse(provider, preview)
        await _take(visit, post, sample.at)
    except REFUSED as exc:
        return await _shown(visit, channel, provider, form.refused(exc))
    event = next((one.event for one in preview.parts if one.event is not None), None)
    followed = {"event": event.id, "message": event.message_id} if event is not None else {}
    at = int(time.time())
    return visit.to(f"{_at(channel)}/sample/sent", said="sample-stored", sample=sample.event, sent=at, **followed)


async def _sent(visit: Visit) -> Response:
    """How far a sample is: the same address shows its event as soon as that can be read."""
    channel, wanted = await _channel(visit), visit.query.get("event", "")
    message = await _message(visit, channel, visit.query.get("message", "")) if wanted else None
    event = next((one for one in message.timeline if one.id == wanted), None) if message is not None else None
    values: dict[str, Any] = {"channel": channel, "wanted": wanted, "message": message, "event": event}
    every_s = asks_every(visit.query.get("sent", ""), time.time(), held=channel.processing == "held")
    return visit.page("channels/sent.html", every_s=every_s, **values)


def asks_every(sent: str, now: float, *, held: bool) -> int:
    """After how many seconds the page of a sample asks again, by when that was ``sent``, in seconds since 1970; 0 for
    not at all. An address may say anything, and another gateway's clock be ahead."""
    if not sent.isascii() or not sent.isdecimal() or len(sent) > _DIGITS:
        return 0
    ago = abs(now - int(sent))
    return 0 if ago >= _AT_ALL_S else 5 if held or ago >= _OFTEN_S else 1


def _provider(channel: Channel) -> Provider:
    found = PROVIDERS.get(channel.provider)
    if found is None:
        raise wrong("", _("There is no sample of this provider's callbacks."), _("Preview a callback of its own."))
    return found


def _sample(provider: Provider, channel: Channel, form: Filled) -> _Sample:
    event = form["event"] or _FIRST
    if event not in provider.events:
        raise wrong("event", _("The provider has no such sample."), _("Choose one of the list."))
    message_id = form["message"] or provider.new_message_id()
    return _Sample(event, message_id, provider.sample(event, message_id), address(channel.callback_url))


def _would_refuse(provider: Provider, preview: Preview) -> Exception:
    proof = preview.verification
    said = proof.detail or proof.code or _("The channel would refuse it.")
    if provider.is_public:
        return wrong("", said, _("Nobody but the provider signs with the key that this channel has."))
    return wrong("secret", said, _("Nothing was sent. Type the secret by which the channel verifies it."))


async def _preview(visit: Visit, channel: Channel, post: Post, at: Address) -> Preview:
    return await visit.api.preview(channel.label, body=post.body, headers=post.headers, url=at.signed)


async def _take(visit: Visit, post: Post, at: Address) -> None:
    """Have the gateway take it as it takes the provider's, by the visitor's key, which needs the scope for it. Returns
    when it is stored."""
    tenant = visit.tenant_of
    assert tenant is not None  # noqa: S101  # it is a page of tenants
    # It comes as encrypted as the address is that it was signed for.
    base = BASE_URL.replace("http:", "https:") if at.signed.startswith("https:") else BASE_URL
    headers = {**post.headers, "X-Api-Key": tenant.key}
    try:
        answer = await visit.http.post(base + at.path, content=post.body, headers=headers)
    except httpx.TransportError as exc:
        raise UnreachableError(f"POST of a sample: {type(exc).__name__}") from None
    if not answer.is_success:
        raise problem_of(answer)


async def _message(visit: Visit, channel: Channel, message_id: str) -> Message | None:
    """None while nothing has told of it."""
    try:
        return await visit.api.message(channel.key, message_id) if message_id else None
    except NotFoundError:
        return None


async def _channel(visit: Visit) -> Channel:
    return await visit.api.channel(str(visit.request.path_params["label"]))


def _at(channel: Channel) -> str:
    return f"/channels/{segment(channel.label)}"


ROUTES = (
    Page("GET", "/channels/{label}/sample", _look),
    Page("POST", "/channels/{label}/sample/send", _send),
    Page("GET", "/channels/{label}/sample/sent", _sent),
)
