"""One part of a callback as the event that it becomes: what the adapter understood, completed by what is the same for
all providers. Pure, and what a preview shows as well."""

from __future__ import annotations

from typing import Any

import msgspec

from backhaul_channels.adapter import Adapter, Context
from backhaul_channels.event import EventKind, Ignored, NormalizedEvent
from backhaul_channels.replies.heard import heard
from backhaul_channels.replies.settings import ReplySettings
from backhaul_channels.settings import ChannelSettings, ConversationSettings

_DEFAULT = ReplySettings()


def read_part(adapter: Adapter[Any], part: bytes, context: Context[Any]) -> NormalizedEvent | Ignored:
    """``part`` as an event, or ignored. Raises what ``Adapter.normalize`` raises.

    An error code gets its meaning, a reply what it says of consent, and the channel's declared parameters their
    defaults.
    """
    event = adapter.normalize(part, context)
    if isinstance(event, Ignored):
        return event
    if event.error_code and not event.error_class:
        event = explained(adapter, event)
    settings: ChannelSettings = context.settings
    if event.kind is EventKind.INBOUND:
        # Nobody overlooks an opt-out because a provider's channels have no settings for replies.
        event = heard(event, settings.replies if isinstance(settings, ConversationSettings) else _DEFAULT)
    if settings.parameters:
        event = _with_declared(event, context)
    return event


def explained(adapter: Adapter[Any], event: NormalizedEvent) -> NormalizedEvent:
    """``event`` with what its error code means to that provider; as it is where nobody knows the code."""
    meaning = adapter.explain(event.error_code)
    if meaning is None:
        return event
    return msgspec.structs.replace(
        event,
        error_text=event.error_text or meaning.text,
        error_class=meaning.error_class,
        error_url=meaning.url,
    )


def _with_declared(event: NormalizedEvent, context: Context[Any]) -> NormalizedEvent:
    """``event`` with the defaults of declared parameters that it lacks, and the names of required ones."""
    settings: ChannelSettings = context.settings
    present = {name.lower() for name, value in (*event.vars, *context.parameters) if value}
    lacking = [one for one in settings.parameters if one.name.lower() not in present]
    if not lacking:
        return event
    defaults = [(one.name, one.default) for one in lacking if one.default is not None]
    missing = [one.name for one in lacking if one.required]
    return msgspec.structs.replace(
        event,
        vars=[*event.vars, *defaults],
        default_parameters=[name for name, _ in defaults],
        missing_parameters=missing,
    )
