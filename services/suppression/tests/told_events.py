"""Events as the normalizer publishes them: ready made, and of what adapters understand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from backhaul_channels import Adapter, Context, Ignored, MalformedError, NormalizedEvent, RawCallback, Source
from backhaul_channels.reading import read_part
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event

AT_US = 1_790_000_000_000_000
ANNA = "+14155550123"
SENDER = "+14155550100"


def event(kind: str, /, **fields: Any) -> Event:
    """An event of the kind, to Anna, from Twilio, of 10 seconds before ``AT_US`` when it arrived; words are those of
    the enums."""
    told = Event(
        id="0" * 32,
        tenant_id="acme",
        registration="acme.1",
        channel="twilio",
        provider="twilio",
        kind=event_pb2.EventKind.Value(f"EVENT_KIND_{kind.upper()}"),
        recipient=ANNA,
        sender=SENDER,
        occurred_at_us=AT_US - 10_000_000,
        received_at_us=AT_US,
        verification=callback_pb2.VERIFICATION_VERIFIED,
        recipient_family=event_pb2.ADDRESS_FAMILY_PHONE,
    )
    told.MergeFrom(Event(**{name: _value(name, value) for name, value in fields.items()}))
    for name, value in fields.items():
        if value == "":
            told.ClearField(name)  # type: ignore[arg-type]  # a name of a field, as it was taken above
    return told


def consent(action: str, by: str = "keyword", word: str = "STOP", scope_kind: str = "", scope: str = "") -> Any:
    """A consent, in the words of the enums."""
    return event_pb2.Consent(
        action=_number(event_pb2.ConsentAction, action),
        by=_number(event_pb2.ConsentBy, by),
        word=word,
        scope_kind=_number(event_pb2.ConsentScope, scope_kind),
        scope=scope,
    )


def cases(adapter: Adapter[Any]) -> Iterator[tuple[str, NormalizedEvent]]:
    """(The case's name, what the adapter makes of it) of all cases in the provider's folder."""
    folder = Path(str(files("backhaul_channels.providers").joinpath(adapter.provider, "tests", "cases")))
    for path in sorted(folder.glob("*.json")):
        told = json.loads(path.read_text("utf-8"))
        for case in told if isinstance(told, list) else ():
            if "body" in case:
                yield from ((case["name"], one) for one in _events_of(adapter, case))


def published(told: NormalizedEvent, provider: str, **fields: Any) -> Event:
    """What the normalizer publishes of it."""
    published = Event(
        id="0" * 32,
        tenant_id="acme",
        registration="acme.1",
        channel=provider,
        provider=provider,
        kind=_number(event_pb2.EventKind, told.kind),
        provider_status=told.provider_status,
        message_id=told.message_id,
        recipient=told.recipient,
        sender=told.sender,
        error_code=told.error_code,
        error_class=_number(event_pb2.ErrorClass, told.error_class),
        invalid_recipient=told.invalid_recipient,
        recipient_family=_number(event_pb2.AddressFamily, told.recipient_family),
        occurred_at_us=told.occurred_at_us or AT_US,
        received_at_us=AT_US,
        verification=callback_pb2.VERIFICATION_VERIFIED,
        attributes=[event_pb2.Attribute(name=name, value=value) for name, value in told.attributes],
        review=_number(event_pb2.Review, told.review),
        **fields,
    )
    if (said := told.consent) is not None:
        published.consent.CopyFrom(consent(said.action, said.by, said.word, said.scope_kind, said.scope))
    return published


def _events_of(adapter: Adapter[Any], case: Mapping[str, Any]) -> Iterator[NormalizedEvent]:
    url = case.get("url", "https://callbacks.example.com/api/postevents?channelLabel=Any")
    settings = adapter.settings_model(**case.get("settings", {}))
    headers = [(name.encode(), value.encode()) for name, value in case.get("headers", {}).items()]
    query = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    context = Context(settings, query, Source(case.get("from", "callback")), AT_US)
    try:
        parts = adapter.split(RawCallback("POST", url, headers, str(case["body"]).encode()), settings)
    except MalformedError:
        return
    for part in parts:
        try:
            told = read_part(adapter, part, context)
        except MalformedError:
            continue
        if not isinstance(told, Ignored):
            yield told


def _value(name: str, value: Any) -> Any:
    field = Event.DESCRIPTOR.fields_by_name[name]
    if field.enum_type is None or not isinstance(value, str):
        return value
    # "hard" of ERROR_CLASS_HARD: every value but the first has the enum's name before it.
    prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
    return field.enum_type.values_by_name[prefix + value.upper()].number


def _number(enum: Any, word: str) -> Any:
    prefix = enum.DESCRIPTOR.values[0].name.removesuffix("UNSPECIFIED")
    text = word.name if isinstance(word, StrEnum) and word.value else word.upper()
    return enum.Value(prefix + (text or "UNSPECIFIED"))
