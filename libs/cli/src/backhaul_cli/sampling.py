"""A sample on its way: signed for a channel's address, looked at, posted, and followed until it is in the timeline."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backhaul_samples import Post, Provider, addresses
from backhaul_samples.provider import Content

from backhaul_cli.failing import Code, FailedError
from backhaul_cli.texts import command

if TYPE_CHECKING:
    from backhaul_client import TenantClient
    from backhaul_client.adminmodels import Channel
    from backhaul_client.models import Message, Preview
    from rich.console import RenderableType

    from backhaul_cli.output import Output
    from backhaul_cli.profiles import Profile

_TIMEOUT_S = 30.0
_ASK_AGAIN_S = 0.1
PATIENCE_S = 60.0
"""For which a sample is followed. It takes milliseconds, unless the normalizer is away."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """A channel's. ``signed`` is the provider's. ``posted`` leads to the same place by the profile's own address, to
    which its key belongs; ``headers`` go with it."""

    signed: str
    posted: str
    headers: Mapping[str, str]


def address(found: Profile, channel: Channel, parameters: Sequence[str] = ()) -> Address:
    """Where a channel's callbacks go, with parameters ``name=value`` of the tenant's own: by the profile's ingest
    token, or else by its API key."""
    at = addresses.address(channel.callback_url, found.ingest_token, parameters)
    headers = {} if found.ingest_token else {"X-Api-Key": found.api_key}
    return Address(signed=at.signed, posted=found.url + at.path, headers=headers)


def signing(provider: Provider, given: str, found: Profile) -> str:
    """What signs a sample: what was ``given``, or else what follows from the profile; empty where neither is."""
    if given or provider.trying is None or not found.sample_key:
        return given
    return provider.trying(found.sample_key).signs


def looked_at(backhaul: TenantClient, channel: Channel, post: Post, at: Address) -> Preview:
    """What would become of it."""
    return backhaul.preview(channel.label, body=post.body, headers=post.headers, url=at.signed)


def check(preview: Preview, provider: Provider, channel: Channel) -> None:
    """FailedError where the channel would refuse a sample, with what is to be done."""
    proof = preview.verification
    if proof.result != "refused":
        return
    if provider.is_public:
        fix = (
            "SendGrid alone has the key that fits its own; add the public half of another pair to the channel and say "
            "--signing-key FILE, or look only: --preview."
        )
    elif provider.signs:
        fix = f"--secret asks for the secret of {channel.label}; --preview shows what would come of it."
    else:
        fix = f"--secret asks for the name and the password of {channel.label}, as name:password."
    raise FailedError(f"{channel.label} would refuse it: {proof.detail or proof.code}", fix, code=Code.REFUSED)


def posted(post: Post, at: Address) -> str:
    """The id of the callback that it became."""
    import httpx
    from backhaul_client.errors import problem_of

    try:
        answer = httpx.post(at.posted, content=post.body, headers={**post.headers, **at.headers}, timeout=_TIMEOUT_S)
    except httpx.TransportError as exc:
        # Without the address, which holds a token.
        raise FailedError(
            f"No answer: {type(exc).__name__}. Whether it was stored is not known.",
            "backhaul events says so, once it is there again.",
            code=Code.AGAIN,
        ) from None
    if not answer.is_success:
        raise problem_of(answer)
    callback_id: str = answer.headers.get("backhaul-callback-id", "")
    return callback_id


def followed(backhaul: TenantClient, preview: Preview, profile: str, output: Output) -> list[Message]:
    """The messages in whose timelines its events are. FailedError where one is not in time."""
    due = [(one.event.channel, one.event.message_id, one.event.id) for one in preview.parts if one.event is not None]
    began = time.monotonic()
    found: dict[tuple[str, str], Message] = {}
    try:
        for channel, message_id, event_id in due:
            while (message := _with(event_id, known(backhaul, channel, message_id))) is None:
                waited_s = time.monotonic() - began
                if waited_s > PATIENCE_S:
                    raise FailedError(
                        f"It was stored, and is not in the timeline of {message_id} after {PATIENCE_S:g} s.",
                        f"Look again: {command('message', message_id, profile=profile)}; "
                        f"{command('status', channel, profile=profile)} says what is behind.",
                        code=Code.AGAIN,
                    )
                output.progress(f"stored; not in the timeline yet, after {waited_s:.1f} s")
                time.sleep(_ASK_AGAIN_S)
            found[channel, message_id] = message
    except KeyboardInterrupt:
        output.progress("")
        shown = (command("message", message_id, profile=profile) for _, message_id, _ in due)
        output.note("It was sent: " + ", ".join(shown))
        raise
    finally:
        output.progress("")
    return list(found.values())


def _with(event_id: str, message: Message | None) -> Message | None:
    """The message, if its timeline has the event."""
    return message if message is not None and any(one.id == event_id for one in message.timeline) else None


def known(backhaul: TenantClient, channel: str, message_id: str) -> Message | None:
    """The message; None while nothing has told of it."""
    from backhaul_client import NotFoundError

    try:
        return backhaul.message(channel, message_id)
    except NotFoundError:
        return None


def events_of(preview: Preview) -> list[dict[str, Any]]:
    """What a sample becomes, part by part."""
    return [
        {
            "kind": one.event.kind if one.event else None,
            "message_id": one.event.message_id if one.event else None,
            "event_id": one.event.id if one.event else None,
            "ignored": one.ignored,
            "dead_letter": one.dead_letter,
        }
        for one in preview.parts
    ]


def described(
    provider: Provider, event: str, channel: Channel, content: Content, preview: Preview, callback_id: str
) -> Iterator[RenderableType]:
    """A sample, and what becomes of it."""
    from backhaul_cli.output import facts, pretty, words

    proof = preview.verification
    yield facts(
        ("sample", f"{provider.label} {event}"),
        ("as told by", provider.source),
        ("channel", channel.label),
        ("proof", " ".join(part for part in (proof.result.replace("_", " "), proof.detail) if part)),
        ("callback", callback_id),
        *(("becomes", _becomes(one)) for one in events_of(preview)),
    )
    if not callback_id:
        yield from (words(line) for line in pretty(content).splitlines())


def _becomes(part: Mapping[str, Any]) -> str:
    if part["kind"]:
        return f"{part['kind']} of {part['message_id']}"
    return f"nothing: {part['ignored']}" if part["ignored"] else f"a dead letter: {part['dead_letter']}"
