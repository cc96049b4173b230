"""What a call holds: bodies of events and notices, in the form that a subscription chose.

| form | one event | several in one call |
|---|---|---|
| ``full`` | ``id``, ``type``, ``timestamp``, ``revision``, and in ``data`` all that is known | a list |
| ``thin`` | the same, but ``data`` has ids, and where the rest is read with the tenant's key | a list |
| ``cloudevents`` | CloudEvents 1.0, structured, with the data of ``full`` | its batch format |
| ``spec`` | nothing; of ``communication.completed``, by POST, where its batch is read | never |

A body of ``full`` is about 1.5 kB. It grows with what people wrote and senders attached, and is never cut.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.times import time_of
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.notice.v1.notice_pb2 import Notice

from backhaul_notifier.catalogue.types import OF_SUBSCRIPTIONS, TYPES
from backhaul_notifier.fields import ABOUT, EVENT

MAX_EVENTS: Final = 100
"""Of one call."""

MAX_WAIT_S: Final = 60

_JSON = "application/json"
_CLOUDEVENT = "application/cloudevents+json"
_CLOUDEVENTS = "application/cloudevents-batch+json"
_COMPLETED = "communication.completed"
_NO_TIME = "1970-01-01T00:00:00.000000Z"

_encode = msgspec.json.Encoder().encode


class Form(StrEnum):
    """How much of what happened a call tells."""

    FULL = "full"
    THIN = "thin"
    CLOUDEVENTS = "cloudevents"
    SPEC = "spec"


class Told(msgspec.Struct, frozen=True):
    """An event or a notice, and the type under which it is told."""

    type: str
    said: Event | Notice


class Body(msgspec.Struct, frozen=True):
    """What a call sends; both are empty where it sends nothing but its address."""

    content: bytes
    content_type: str


NO_BODY: Final = Body(b"", "")


def check_form(
    form: Form,
    *,
    max_events: int,
    max_wait_s: int,
    post: bool,
    variables: bool,
    with_raw: bool,
    field: str = "definition",
) -> None:
    """That what a subscription chose goes together; ``variables``: its address has some. INVALID_ARGUMENT otherwise.

    ``max_events`` is 0 or 1 where each event has a call of its own.
    """
    wrong = []
    batched = max_events > 1
    if not 0 <= max_events <= MAX_EVENTS:
        wrong.append(
            Violation(
                f"{field}.payload.max_events", f"It is not 1 to {MAX_EVENTS}.", "Pass 1 for a call for each event."
            )
        )
    if not 0 <= max_wait_s <= MAX_WAIT_S:
        wrong.append(
            Violation(
                f"{field}.payload.max_wait_s",
                f"It is not 0 to {MAX_WAIT_S}.",
                "Pass seconds, or 0: none waits for others.",
            )
        )
    if not post and form is not Form.SPEC:
        wrong.append(
            Violation(
                f"{field}.http.method",
                f"A GET has no body, so it cannot tell events as {form}.",
                "Choose POST, or form spec.",
            )
        )
    if batched and form is Form.SPEC:
        wrong.append(
            Violation(
                f"{field}.payload.max_events",
                "Calls of the form spec have no body, so each is of one event.",
                "Pass 1, or choose another form.",
            )
        )
    elif batched and variables:
        wrong.append(
            Violation(
                f"{field}.http.url",
                "Its variables are of one event, and a call would tell several.",
                "Take the variables out, or pass 1 as max_events.",
            )
        )
    if with_raw and form in {Form.THIN, Form.SPEC}:
        wrong.append(
            Violation(
                f"{field}.payload.with_raw",
                f"The form {form} has no room for it.",
                "Leave it out, or choose form full.",
            )
        )
    if wrong:
        raise BackhaulError(Code.INVALID_ARGUMENT, "The payload is not valid.", violations=wrong)


class Renderer:
    """Makes bodies. ``public_url`` is where tenants reach the gateway, such as ``https://backhaul.example.com``."""

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url.rstrip("/")

    def body(
        self, form: Form, told: Sequence[Told], *, batched: bool = False, post: bool = True, with_raw: bool = False
    ) -> Body:
        """What a call says of ``told``; a list where ``batched``, also of one. ValueError of several that are not
        batched, and of the form ``spec`` where they are."""
        if len(told) != 1 and not (batched and told):
            raise ValueError("a call that is not batched tells one event")
        if form is Form.SPEC:
            return self._spec(told[0], post=post, batched=batched)
        if not post:
            return NO_BODY
        if form is Form.CLOUDEVENTS:
            made = [self._cloudevent(each, with_raw=with_raw) for each in told]
            return Body(_encode(made), _CLOUDEVENTS) if batched else Body(_encode(made[0]), _CLOUDEVENT)
        made = [self._thin(each) if form is Form.THIN else _full(each, with_raw=with_raw) for each in told]
        return Body(_encode(made if batched else made[0]), _JSON)

    def _spec(self, told: Told, *, post: bool, batched: bool) -> Body:
        if batched:
            raise ValueError("calls of the form spec are not batched")
        if told.type != _COMPLETED or not post or not isinstance(told.said, Notice):
            return NO_BODY
        return Body(_encode({"batch": self._batch(told.said.about.reference)}), _JSON)

    def _thin(self, told: Told) -> dict[str, Any]:
        return {**_envelope(told), "data": self._references(told)}

    def _cloudevent(self, told: Told, *, with_raw: bool) -> dict[str, Any]:
        said = told.said
        channel = said.channel if isinstance(said, Event) else said.about.channel
        revision = said.revision if isinstance(said, Event) else 0
        made = {
            "specversion": "1.0",
            # Of one source each id is one occurrence: a later revision of an event is another.
            "id": f"{said.id}-{revision}",
            "source": f"{self._public_url}/v1" + (f"/channels/{quote(channel, safe='')}" if channel else ""),
            "type": told.type,
            "time": _timestamp(said),
            "datacontenttype": _JSON,
        }
        subject = said.message_id if isinstance(said, Event) else said.about.reference or said.about.message_id
        if subject:
            made["subject"] = subject
        if said.traceparent:
            made["traceparent"] = said.traceparent
        return {**made, "data": _data(told, with_raw=with_raw)}

    def _references(self, told: Told) -> dict[str, Any]:
        """Ids of what it is about, and where that is read."""
        if isinstance(told.said, Notice):
            return self._references_of_notice(told.said)
        event = told.said
        references: dict[str, Any] = {"id": event.id, "channel": event.channel, "message_id": event.message_id}
        references["communication_id"] = event.communication_id
        links = {}
        if event.message_id:
            links["message"] = self._at("messages", event.channel, event.message_id)
        else:  # By the moment at which it arrived.
            span = {"from": time_of(event.received_at_us), "to": time_of(event.received_at_us + 1)}
            links["events"] = f"{self._at('events')}?{urlencode({'channel': event.channel, **span})}"
        if event.communication_id:
            links["communication"] = self._at("communications", event.communication_id)
        return {**references, "links": links}

    def _references_of_notice(self, notice: Notice) -> dict[str, Any]:
        about = notice.about
        name = _reference_name(notice.type)
        references: dict[str, Any] = {"id": notice.id, "channel": about.channel, "message_id": about.message_id}
        references["communication_id"] = about.communication_id
        references[name] = about.reference
        links = {}
        if about.message_id and about.channel:
            links["message"] = self._at("messages", about.channel, about.message_id)
        if about.communication_id:
            links["communication"] = self._at("communications", about.communication_id)
        if name == "batch_id" and about.reference:
            links["batch"] = self._batch(about.reference)
        if notice.type.startswith(OF_SUBSCRIPTIONS):
            links["subscription"] = self._at("subscriptions", about.reference)
        said = {pair.name: pair.value for pair in notice.attributes}
        if notice.type == "audit.digest":
            links["digest"] = self._at("audits", "digests", said.get("chain", ""), said.get("number", ""))
        elif notice.type == "channel.silent":
            links["channels"] = self._at("reconciliation", "channels")
        elif notice.type == "dead_letters.full":
            links["dead_letters"] = self._at("dead-letters")
        elif notice.type.startswith("suppression.") and said.get("position", "").isdecimal():
            links["changes"] = f"{self._at('suppressions', 'changes')}?after={int(said['position']) - 1}"
        return {**references, "links": links}

    def _batch(self, batch_id: str) -> str:
        return self._at("batches", batch_id)

    def _at(self, *path: str) -> str:
        return "/".join((self._public_url, "v1", *(quote(part, safe="") for part in path)))


def _full(told: Told, *, with_raw: bool) -> dict[str, Any]:
    return {**_envelope(told), "data": _data(told, with_raw=with_raw)}


def _envelope(told: Told) -> dict[str, Any]:
    said = told.said
    return {
        "id": said.id,
        "type": told.type,
        "timestamp": _timestamp(said),
        "revision": said.revision if isinstance(said, Event) else 0,
    }


def _timestamp(said: Event | Notice) -> str:
    """When it happened; of what has no time that a calendar knows, when the epoch began: there must be one."""
    arrived_us = said.received_at_us if isinstance(said, Event) else 0
    return time_of(said.occurred_at_us) or time_of(arrived_us) or _NO_TIME


def _data(told: Told, *, with_raw: bool) -> dict[str, Any]:
    said = told.said
    if isinstance(said, Notice):
        return _notice_data(said)
    data = EVENT.of(said)
    if with_raw:
        data["raw_base64"] = b64encode(said.raw).decode("ascii")
    return data


def _notice_data(notice: Notice) -> dict[str, Any]:
    about = notice.about
    known = TYPES.get(notice.type)
    numbers = known.attributes if known else {}
    return {
        "id": notice.id,
        "occurred_at": time_of(notice.occurred_at_us),
        "text": notice.text,
        **{name: getattr(about, name) for name in ABOUT},
        _reference_name(notice.type): about.reference,
        "attributes": {
            pair.name: _number(pair.value) if numbers.get(pair.name) else pair.value for pair in notice.attributes
        },
    }


def _number(text: str) -> int | str:
    """What is said to be a whole number; the text where it is none, since it must not keep anything from being told."""
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20 else text


def _reference_name(notice_type: str) -> str:
    known = TYPES.get(notice_type)
    return known.reference if known else "reference"
