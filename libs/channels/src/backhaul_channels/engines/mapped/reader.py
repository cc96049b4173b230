"""One part of a mapped webhook as a fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backhaul_channels.adapter import MalformedError
from backhaul_channels.engines.mapped.paths import compile_expression
from backhaul_channels.engines.mapped.split import Envelope, split
from backhaul_channels.engines.mapped.times import ToMicroseconds
from backhaul_channels.engines.mapped.values import (
    MAX_KEPT,
    add_vars,
    address_of,
    document_of,
    error_code_of,
    family_of,
    key_of_a_text,
)
from backhaul_channels.engines.mapped.words import (
    CONSENTS,
    DIRECTIONS,
    ERROR_CLASSES,
    INVALID_RECIPIENT,
    STATUSES,
    WITH_ERRORS,
    Direction,
    squeezed,
)
from backhaul_channels.engines.times import MAX_TIME
from backhaul_channels.event import (
    AddressFamily,
    Consent,
    ConsentAction,
    ConsentBy,
    ErrorClass,
    EventKind,
    Ignored,
    NormalizedEvent,
    Reply,
)
from backhaul_channels.jsonparts import scalar_text
from backhaul_channels.values import MAX_TEXT, MAX_VALUE, MAX_WORD, bounded, id_of, text_of, word_of

EXCLUDED = "excluded"
"""Why a part is ignored: the channel's settings name its status."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a channel's webhook is read. ``expressions`` are those that are set, by field; an empty one reads nothing.
    ``names`` find all other fields. Words are spelled in any way."""

    envelope: Envelope
    names: Mapping[str, str]
    expressions: Mapping[str, str]
    vars: Sequence[str] | None
    statuses: Mapping[str, EventKind]
    directions: Mapping[str, Direction]
    ignored: Sequence[str]
    invalid_recipient: Sequence[str]
    status_repeats: bool
    to_microseconds: ToMicroseconds
    time_format: str
    family: AddressFamily
    international_numbers: bool
    own: frozenset[str]
    """Names of parameters that the sender has declared or joins by, casefolded: the sender's wherever they stand."""
    communication_key: str


class Reader:
    """Reads the parts of one channel. Everything that can be is prepared."""

    __slots__ = (
        "_directions",
        "_expressions",
        "_ignored",
        "_invalid",
        "_opt_ins",
        "_roots",
        "_rules",
        "_statuses",
        "_usual",
        "_vars",
    )

    def __init__(self, rules: Rules) -> None:
        compiled = {field: compile_expression(text) for field, text in rules.expressions.items() if text}
        vars_of = [compile_expression(text) for text in rules.vars or () if text]
        self._rules = rules
        self._expressions = [(field, expression.read) for field, expression in compiled.items()]
        self._vars = [(one.name, one.read) for one in vars_of]
        self._roots = frozenset(root for one in (*compiled.values(), *vars_of) for root in one.roots)
        free = {field for field in rules.names.values() if field not in rules.expressions}
        if rules.vars is not None:
            free.discard("vars")
        ranked = [(name, field) for name, field in rules.names.items() if field in free]
        self._usual = {name: (field, rank) for rank, (name, field) in enumerate(ranked)}
        self._statuses = {**STATUSES, **{squeezed(word): kind for word, kind in rules.statuses.items()}}
        self._directions = {**DIRECTIONS, **{squeezed(word): way for word, way in rules.directions.items()}}
        self._ignored = frozenset(map(squeezed, rules.ignored))
        opt_ins = (word for word, kind in rules.statuses.items() if kind is EventKind.SUBSCRIBED)
        self._opt_ins = frozenset(map(squeezed, opt_ins))
        self._invalid = INVALID_RECIPIENT | frozenset(map(squeezed, rules.invalid_recipient))

    def split(self, body: bytes) -> list[bytes]:
        """The events of a body, each verbatim. Raises MalformedError."""
        return split(body, self._rules.envelope)

    def normalize(self, part: bytes, received_at_us: int) -> NormalizedEvent | Ignored:
        """``part`` as a fact, or ignored. Raises MalformedError, naming the field."""
        document = document_of(part)
        told, others = self._told(document)
        status = word_of(told.get("status"), "status")
        if status and self._ignored and squeezed(status) in self._ignored:
            return Ignored(EXCLUDED)
        text = text_of(told.get("text"))
        kind = self._kind(status, text_of(told.get("direction")), text)
        occurred_at_us = self._time(told.get("timestamp"))
        message_id = id_of(told.get("message_id"), "message_id")
        inbound = kind is EventKind.INBOUND
        recipient, sender = self._addresses(told, inbound=inbound)
        error_code = error_text = ""
        if kind in WITH_ERRORS:
            error_code, error_text = error_code_of(told.get("error_code")), bounded(told.get("error_text"))
        event_id = id_of(told.get("event_id"), "event_id")
        key = f"{event_id or message_id}:{'inbound' if inbound else status}"
        if self._rules.status_repeats and occurred_at_us is not None:
            key = f"{key}:{occurred_at_us}"
        if not event_id and not message_id:
            if not inbound:
                raise MalformedError(self._nowhere("message_id"))
            key = key_of_a_text(recipient, text, received_at_us if occurred_at_us is None else occurred_at_us)
        reply_to = id_of(told.get("reply_to"), "reply_to") if inbound else ""
        own, attributes = self._kept(document, told, others)
        return NormalizedEvent(
            kind=kind,
            key=key,
            provider_status=status or "inbound",
            message_id=message_id,
            recipient=recipient,
            sender=sender,
            occurred_at_us=occurred_at_us,
            error_code=error_code,
            error_text=error_text,
            error_class=self._error_class(kind, status),
            text=text[:MAX_TEXT] if inbound else "",
            invalid_recipient=kind in WITH_ERRORS and self._is_invalid(status, error_code),
            recipient_family=self._family(recipient),
            consent=self._consent(kind, status) if recipient else None,
            reply=Reply(reply_to) if reply_to else None,
            vars=own,
            attributes=attributes,
        )

    def is_invalid(self, error_code: str) -> bool:
        """Whether that error code says that an address does not exist."""
        return error_code != "" and squeezed(error_code) in self._invalid

    def sent_to(self, recipient: str) -> tuple[str, AddressFamily]:
        """An address that a sender wrote to, as it is in events, and its family."""
        address = self._address(recipient)
        return address, self._family(address)

    def _told(self, document: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
        """What each field has; and the members of the document that no field has taken."""
        usual, roots = self._usual, self._roots
        told: dict[str, Any] = {}
        others: list[tuple[str, Any]] = []
        winners: dict[str, tuple[int, str]] = {}
        for name, value in document.items():
            if name in roots:
                continue
            found = usual.get(squeezed(name)) if len(name) <= MAX_WORD else None
            if (
                found is None
                or value is None
                or value is False
                or value == ""
                or (type(value) in (dict, list)) != (found[0] == "vars")
            ):
                others.append((name, value))
                continue
            field, rank = found
            winner = winners.get(field)
            if winner is None or rank < winner[0]:
                if winner is not None:
                    others.append((winner[1], told[field]))
                winners[field] = rank, name
                told[field] = value
            else:
                others.append((name, value))
        for field, read in self._expressions:
            told[field] = read(document)
        return told, others

    def _kind(self, status: str, direction: str, text: str) -> EventKind:
        way = self._directions.get(squeezed(direction)) if direction and len(direction) <= MAX_WORD else None
        if way is Direction.INBOUND:
            return EventKind.INBOUND
        if status:
            return self._statuses.get(self._known(status), EventKind.UNKNOWN)
        # The text of one's own message may come back.
        if text.strip() and way is None:
            return EventKind.INBOUND
        raise MalformedError(self._nowhere("status"))

    def _known(self, status: str) -> str:
        """The status as the table writes it. Many webhooks name events by what they are about: email.delivered."""
        word = squeezed(status)
        if "." in status and word not in self._statuses:
            return squeezed(status.rpartition(".")[2])
        return word

    def _consent(self, kind: EventKind, status: str) -> Consent | None:
        """What the provider says of a person's consent. A usual word opts out, since to overlook that is the worse
        mistake; nobody's opt-out is lifted but by a word that this channel, or its provider, declares."""
        action = CONSENTS.get(kind)
        if action is None or (action is ConsentAction.OPT_IN and self._known(status) not in self._opt_ins):
            return None
        return Consent(ConsentBy.PROVIDER, action)

    def _is_invalid(self, status: str, error_code: str) -> bool:
        return self._known(status) in self._invalid or self.is_invalid(error_code)

    def _error_class(self, kind: EventKind, status: str) -> ErrorClass:
        # A channel may say that a usual word means something else.
        if kind is not EventKind.BOUNCED:
            return ErrorClass.UNKNOWN
        return ERROR_CLASSES.get(self._known(status), ErrorClass.UNKNOWN)

    def _time(self, value: object) -> int | None:
        if value is None or value == "":
            return None
        try:
            return self._rules.to_microseconds(value)
        except (ValueError, OverflowError):
            shown = (scalar_text(value) or type(value).__name__)[:MAX_TIME]
            raise MalformedError(
                f"timestamp is {shown!r}, no time that time_format {self._rules.time_format!r} reads; set time_format."
            ) from None

    def _addresses(self, told: Mapping[str, Any], *, inbound: bool) -> tuple[str, str]:
        """(recipient, sender) as an event has them: the recipient is the person, whichever way a message went."""
        person = self._address(told.get("person"))
        to, sender = self._address(told.get("recipient")), self._address(told.get("sender"))
        if not inbound:
            return person or to, sender
        if person:
            return person, to or (sender if sender != person else "")
        return (sender, to) if sender else (to, "")

    def _address(self, value: object) -> str:
        return address_of(value, international=self._rules.international_numbers)

    def _family(self, address: str) -> AddressFamily:
        return (self._rules.family or family_of(address)) if address else AddressFamily.UNKNOWN

    def _kept(
        self, document: Mapping[str, Any], told: Mapping[str, Any], others: Sequence[tuple[str, Any]]
    ) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """(vars, attributes): what is the sender's, and what else there is."""
        rules = self._rules
        own: list[tuple[str, str]] = []
        attributes: list[tuple[str, str]] = []
        communication = scalar_text(told.get("communication"))
        if communication and rules.communication_key:
            own.append((rules.communication_key, communication[:MAX_VALUE]))
        if "vars" in told:
            add_vars("vars", told["vars"], own)
        for name, read in self._vars:
            add_vars(name, read(document), own)
        for name, value in others:
            text = value if type(value) is str else scalar_text(value)
            if text is None:
                continue
            kept = own if name.casefold() in rules.own else attributes
            if len(kept) < MAX_KEPT:
                kept.append((name[:MAX_VALUE], text[:MAX_VALUE]))
        return own, attributes

    def _nowhere(self, field: str) -> str:
        text = self._rules.expressions.get(field)
        if text:
            return f"{field} is not there: nothing stands at {text}. Correct mapping.{field}."
        return f"{field} is not there under any usual name. Say where it stands, in mapping.{field}."
