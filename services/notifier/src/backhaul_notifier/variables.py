"""Names that stand in addresses, and what they stand for.

Of a plain name (``${first_name}``) the first of these that knows it counts:

1. ``batchId``, ``communicationId`` and ``memberId`` are Backhaul's own;
2. an attribute of the member, so also ``id`` where the members have an attribute of that name;
3. ``id`` is the message's id;
4. a variable of the environment that the communication's mode has.

A name with one of the prefixes of ``PREFIXES`` says where it is looked up, and is looked up nowhere else: a member's
attribute ``batchId`` is ``${member.batchId}``. ``${event.…}`` names fields of what is told: those of ``FIELDS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from backhaul_common.times import time_of
from backhaul_common.vocabulary import Words
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Attribute, Event
from backhaul_proto.notice.v1.notice_pb2 import Notice

from backhaul_notifier.catalogue.types import KINDS, TYPES, EventType, Part

MAX_NAME: Final = 128
"""Characters of a name of an attribute and of a variable of an environment, without the prefix."""


@dataclass(frozen=True, slots=True)
class Own:
    """A plain name that Backhaul gives a value. ``part``: only what is about such a thing has it."""

    name: str
    text: str
    part: Part


OWN: Final[Mapping[str, Own]] = MappingProxyType({
    each.name: each
    for each in (
        Own("batchId", "The id of the batch.", Part.BATCH),
        Own("communicationId", "The id of the communication.", Part.COMMUNICATION),
        Own("id", "The message's id; the member's attribute where the members have one of that name.", Part.MESSAGE),
        Own("memberId", "The message's id, also where the members have an attribute id.", Part.MESSAGE),
    )
})  # fmt: skip

PREFIXES: Final[Mapping[str, str]] = MappingProxyType({
    "member.": "An attribute of the member, by its name.",
    "environment.": "A variable of the environment that the communication's mode has.",
    "event.vars.": "A custom parameter of the event, by its name; the first one of several.",
    "event.attributes.": "An attribute of the event or the notice, by its name; the first one of several.",
    "event.": "A field of what is told.",
})  # fmt: skip

_NOTHING: Mapping[str, str] = MappingProxyType({})
_Reader = Callable[[Any], str]


def _word(name: str, words: Words) -> _Reader:
    return lambda event: words.by_number.get(getattr(event, name), "")


def _field(name: str) -> _Reader:
    return lambda said: str(getattr(said, name))


def _about(name: str) -> _Reader:
    return lambda notice: str(getattr(notice.about, name))


def _at(name: str) -> _Reader:
    return lambda said: time_of(getattr(said, name)) or ""


def _truth(name: str) -> _Reader:
    return lambda event: "true" if getattr(event, name) else "false"


_CONSENT = Words(event_pb2.ConsentAction.DESCRIPTOR)


@dataclass(frozen=True, slots=True)
class FieldOf:
    """A field ``${event.<name>}``. ``of_event`` and ``of_notice`` read it; None: such a thing does not have it."""

    name: str
    text: str
    of_event: _Reader | None
    of_notice: _Reader | None = None


FIELDS: Final[Mapping[str, FieldOf]] = MappingProxyType({
    each.name: each
    for each in (
        FieldOf("id", "The event's, or the notice's.", _field("id"), _field("id")),
        FieldOf("type", "The type under which it is told.", lambda _: "", lambda _: ""),
        FieldOf("revision", "Grows when the event is completed.", _field("revision"), lambda _: "0"),
        FieldOf("kind", "delivered, say.", _word("kind", KINDS)),
        FieldOf("provider", "twilio, say.", _field("provider")),
        FieldOf("provider_status", "The provider's own word.", _field("provider_status")),
        FieldOf("channel", "The channel's key.", _field("channel"), _about("channel")),
        FieldOf("message_id", "The message's id, as the event has it.", _field("message_id"), _about("message_id")),
        FieldOf("recipient", "The person's address.", _field("recipient"), _about("recipient")),
        FieldOf(
            "recipient_family", "phone, email or voice.",
            _word("recipient_family", Words(event_pb2.AddressFamily.DESCRIPTOR)),
        ),
        FieldOf("sender", "The tenant's own address or number.", _field("sender")),
        FieldOf("communication_id", "As the event has it.", _field("communication_id"), _about("communication_id")),
        FieldOf("batch_id", "As the event has it.", _field("batch_id")),
        FieldOf("member_key", "As the event has it.", _field("member_key")),
        FieldOf("error_code", "As the provider spells it.", _field("error_code")),
        FieldOf("error_text", "What the error says.", _field("error_text")),
        FieldOf("error_class", "hard, say.", _word("error_class", Words(event_pb2.ErrorClass.DESCRIPTOR))),
        FieldOf("text", "What a person wrote; of a notice, what it says.", _field("text"), _field("text")),
        FieldOf("occurred_at", "RFC 3339, in UTC.", _at("occurred_at_us"), _at("occurred_at_us")),
        FieldOf("received_at", "RFC 3339, in UTC.", _at("received_at_us")),
        FieldOf("source", "callback, say.", _word("source", Words(callback_pb2.Source.DESCRIPTOR))),
        FieldOf("verification", "verified, say.", _word("verification", Words(callback_pb2.Verification.DESCRIPTOR))),
        FieldOf("by_machine", "true or false.", _truth("by_machine")),
        FieldOf("invalid_recipient", "true or false.", _truth("invalid_recipient")),
        FieldOf("consent", "opt_out, opt_in or help.", lambda event: _CONSENT.by_number.get(event.consent.action, "")),
        FieldOf("consent_word", "The keyword that was used.", lambda event: str(event.consent.word)),
        FieldOf("reply_payload", "What the sender attached to the button.", lambda event: str(event.reply.payload)),
        FieldOf("reply_option", "The button that was chosen.", lambda event: str(event.reply.option)),
        FieldOf("answered_channel", "Of what a reply answers.", lambda event: str(event.answered.channel)),
        FieldOf("answered_message_id", "What a reply answers.", lambda event: str(event.answered.message_id)),
        FieldOf("callback_id", "The callback that first brought the event.", _field("callback_id")),
        FieldOf("event_id", "The event that brought the notice about.", None, _about("event_id")),
        FieldOf("reference", "What else the notice is about.", None, _about("reference")),
    )
})  # fmt: skip
"""``${event.<name>}``. Where the event says nothing the text is empty."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beyond the event itself of what it is about. ``attributes`` are the member's, ``environment`` the
    variables of the communication's mode; ids are empty where the event's own count."""

    attributes: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    environment: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    communication_id: str = ""
    batch_id: str = ""
    message_id: str = ""


class Variables:
    """The values of names for one event or notice, told under ``event_type``."""

    def __init__(self, said: Event | Notice, event_type: str, known: Known | None = None) -> None:
        self._said = said
        self._type = event_type
        self._known = known or Known()

    def get(self, name: str) -> str | None:
        """The value; None where there is none. A field of the event that says nothing has an empty one."""
        if name.startswith("event."):
            return self._field(name.removeprefix("event."))
        if name.startswith("member."):
            return self._known.attributes.get(name.removeprefix("member."))
        if name.startswith("environment."):
            return self._known.environment.get(name.removeprefix("environment."))
        if name in OWN and name != "id":
            return self._own(name) or None
        found = self._known.attributes.get(name)
        if found is None and name == "id":
            found = self._own(name) or None
        return self._known.environment.get(name) if found is None else found

    def _own(self, name: str) -> str:
        said, known = self._said, self._known
        if isinstance(said, Notice):
            about = said.about
            each = TYPES.get(said.type)
            batch = about.reference if each and Part.BATCH in each.parts else ""
            own = (about.communication_id, batch, about.message_id)
        else:
            own = (said.communication_id, said.batch_id, said.message_id)
        if name == "communicationId":
            return known.communication_id or own[0]
        return (known.batch_id or own[1]) if name == "batchId" else (known.message_id or own[2])

    def _field(self, name: str) -> str | None:
        said = self._said
        if name == "type":
            return self._type
        if name.startswith("attributes."):
            return _first(said.attributes, name.removeprefix("attributes."))
        if name.startswith("vars."):
            return None if isinstance(said, Notice) else _first(said.vars, name.removeprefix("vars."))
        named = FIELDS.get(name)
        reader = named and (named.of_notice if isinstance(said, Notice) else named.of_event)
        return reader(said) if reader else None


def impossible(name: str, types: Iterable[EventType]) -> str:
    """Why ``name`` can never have a value in what is told of ``types``; empty where it can. Whether a member has an
    attribute is only known when something is told of it."""
    told = list(types)
    if name.startswith("event."):
        return _impossible_field(name.removeprefix("event."), told)
    stem = next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)
    if not 1 <= len(stem) <= MAX_NAME:
        return f"a name has 1 to {MAX_NAME} characters"
    wanted = _of(name)
    if any(wanted & each.parts for each in told):
        return ""
    return f"nothing that is told is about a {' or a '.join(sorted(wanted))}"


def needed(names: Iterable[str]) -> frozenset[Part]:
    """Of what more must be known to give ``names`` their values than what is told: the member's attributes, the
    communication's environment and its id, the batch's, the message's."""
    return frozenset[Part]().union(*(_of(name) for name in names if not name.startswith("event.")))


def _of(name: str) -> frozenset[Part]:
    """Of what a name that is none of a field may be."""
    if name in OWN and name != "id":
        return frozenset({OWN[name].part})
    if name.startswith("member."):
        return frozenset({Part.MEMBER})
    if name.startswith("environment."):
        return frozenset({Part.COMMUNICATION})
    return frozenset({Part.MEMBER, Part.COMMUNICATION})


def _impossible_field(name: str, told: list[EventType]) -> str:
    for prefix, of_events in (("vars.", True), ("attributes.", False)):
        if name.startswith(prefix):
            if name == prefix:
                return "it names no parameter"
            return "" if not of_events or any(each.of_events for each in told) else "a notice has no parameters"
    named = FIELDS.get(name)
    if named is None:
        return f"there is no such field; there are {', '.join(FIELDS)}, vars.NAME and attributes.NAME"
    possible = any(named.of_event if each.of_events else named.of_notice for each in told)
    return "" if possible else "nothing that is told has this field"


def _first(pairs: Iterable[Attribute], name: str) -> str | None:
    return next((pair.value for pair in pairs if pair.name == name), None)
