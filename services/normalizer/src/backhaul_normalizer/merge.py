"""What two callbacks tell of one event, as one: pure, and the same whichever of them came first.

Of two that differ in how far they are to be trusted, the better one counts alone: what nobody has verified completes
nothing. Of two that are trusted alike, each completes the other. Only what says who brought the event first (the
callback, its arrival and its source, and the provider's own words) stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec
from backhaul_channels import Classification, Confidence, Consent, ErrorClass, NormalizedEvent, Reply, Review
from backhaul_common.sizes import MAX_EVENT_BYTES
from backhaul_proto.event.v1 import event_pb2

from backhaul_normalizer.facts import KIND_TO_PROTO, MAX_REFERENCES, is_default
from backhaul_normalizer.model import NOWHERE, Fact, Name, Place
from backhaul_normalizer.said import write_error, write_said
from backhaul_normalizer.states import RANK

MAX_VARS = 1024
"""Custom parameters up to which duplicates add theirs to an event. A callback brings a few hundred at most."""

MAX_NAMES = 32
"""Further names that the callbacks of one batch tell of one event. Each of them tells two or three, and the same."""

Pair = tuple[str, str]

# From least to greatest, as the words are declared.
_CONFIDENCES = list(Confidence)
_REVIEWS = list(Review)


def together(kept: Fact, told: Fact) -> Fact:
    """Both as one that stands for either, neither of which is stored yet. Nothing of the two is touched."""
    merged = merge(kept, told)
    positions = (kept.positions() | told.positions()) - {kept.origin.stream_seq}
    names = _names(kept, told)
    # The further names are each of the message that its own callback named, which need not be that of the other.
    event = msgspec.structs.replace(merged.event, aliases=[]) if merged.event.aliases else merged.event
    return msgspec.structs.replace(merged, event=event, also=tuple(sorted(positions)), names=names)


def all_together(facts: Sequence[Fact]) -> Fact:
    """All of ``facts`` as one, the first of which came first."""
    left = list(facts)
    while len(left) > 1:
        # By pairs, and pairs of pairs: one after another, each would be merged with all that came before it.
        left = [together(*pair) if len(pair) > 1 else pair[0] for pair in _pairs(left)]
    return left[0]


def merge(kept: Fact, told: Fact) -> Fact:
    """``kept``, completed by what ``told`` says of the same event; ``kept`` itself where that is nothing new."""
    if told.digest == kept.digest and told.occurred_at_us >= kept.occurred_at_us:
        return kept
    if told.trust < kept.trust:
        return kept
    if told.trust > kept.trust:
        return _in_place_of(kept, told)
    completed = _completed(kept, told)
    named = _named_by(kept, told)
    if named is told:
        completed = msgspec.structs.replace(
            completed, message_id=told.event.message_id, provisional=told.event.provisional
        )
    communication_id = _joined(kept, kept.communication_id, told, told.told_communication_id)
    own_place = Place(kept.batch_id, kept.member_key)
    place = _placed(own_place, told.told_place)
    arrived_us = min(kept.occurred_at_us, told.occurred_at_us)
    occurred_at_us = completed.occurred_at_us if completed.occurred_at_us is not None else arrived_us
    if (
        named is kept
        and completed == kept.event
        and communication_id == kept.communication_id
        and place == own_place
        and occurred_at_us == kept.occurred_at_us
    ):
        return kept
    payload = event_pb2.Event.FromString(kept.payload)
    _write(payload, completed)
    payload.communication_id = communication_id
    payload.batch_id, payload.member_key = place
    payload.occurred_at_us = occurred_at_us
    if payload.ByteSize() > MAX_EVENT_BYTES:
        return kept  # No stream would take it.
    return _changed(
        kept,
        payload,
        event=completed,
        message=named.message,
        alias=named.alias,
        communication_id=communication_id,
        told_communication_id=_joined(kept, kept.told_communication_id, told, told.told_communication_id),
        occurred_at_us=occurred_at_us,
        batch_id=place.batch_id,
        member_key=place.member_key,
        told_place=_placed(kept.told_place, told.told_place),
    )


def revised(
    fact: Fact, *, revision: int, message: str = "", message_id: str = "", duplicate_of: str | None = None
) -> Fact:
    """``fact`` as a later revision of itself: of another message, or as the duplicate of another event, if one is
    given."""
    payload = event_pb2.Event.FromString(fact.payload)
    payload.revision = revision
    if duplicate_of is not None:
        payload.duplicate_of = duplicate_of
        return _changed(fact, payload, revision=revision, duplicate_of=duplicate_of)
    if not message:
        return _changed(fact, payload, revision=revision)
    payload.message_id = message_id
    event = msgspec.structs.replace(fact.event, message_id=message_id)
    return _changed(fact, payload, revision=revision, event=event, message=message)


def _pairs(facts: Sequence[Fact]) -> list[Sequence[Fact]]:
    return [facts[start : start + 2] for start in range(0, len(facts), 2)]


def _in_place_of(kept: Fact, told: Fact) -> Fact:
    """``told``, where ``kept`` was: a page's position never moves, so the time of the first arrival stays."""
    payload = event_pb2.Event.FromString(told.payload)
    payload.received_at_us = kept.origin.received_at_us
    payload.revision = kept.revision
    event = _decided(kept.event, told.event)
    if event is not told.event:
        write_said(payload, event)
    answered = event_pb2.Event.FromString(kept.payload).answered if kept.stored_communication_id is not None else None
    if answered is not None and answered.by:
        payload.answered.CopyFrom(answered)
    origin = msgspec.structs.replace(
        told.origin, received_at_us=kept.origin.received_at_us, stream_seq=kept.origin.stream_seq
    )
    return _changed(
        told,
        payload,
        event=event,
        origin=origin,
        revision=kept.revision,
        also=kept.also,
        window_us=kept.window_us,
        stored_communication_id=kept.stored_communication_id,
    )


def _decided(kept: NormalizedEvent, told: NormalizedEvent) -> NormalizedEvent:
    """``told``, with what the tenant decided about the reply: no callback takes that back, however far it is trusted.

    What was accepted stays an opt-out. What was dismissed is none by itself; a word that needs no decision counts.
    """
    if _REVIEWS.index(kept.review) < _REVIEWS.index(Review.DISMISSED):
        return told
    consents = [one for one in (kept.consent, told.consent) if one is not None]
    consent = max(consents, default=None) if kept.review is Review.ACCEPTED else told.consent
    return msgspec.structs.replace(told, review=kept.review, consent=consent)


def _changed(fact: Fact, payload: event_pb2.Event, **changes: object) -> Fact:
    encoded = payload.SerializeToString()
    changed = msgspec.structs.replace(fact, payload=encoded, **changes)
    # The payload names the message that a further name leads to. That the event uses that name only tells the alias.
    changed.digest = blake2b(encoded + changed.alias.encode(), digest_size=8).digest()
    return changed


def _named_by(kept: Fact, told: Fact) -> Fact:
    """The one that names the message better: a first name comes before a further one, and of two alike the least.

    By the names that the callbacks used, not by where a further name was found to lead.
    """
    if not told.message:
        return kept
    own, other = ((bool(fact.alias), fact.alias or fact.message) for fact in (kept, told))
    return told if not kept.message or other < own else kept


def _names(kept: Fact, told: Fact) -> frozenset[Name]:
    """The further names that both tell; the most trusted, where they are too many."""
    found: dict[tuple[str, str, str, int], Name] = {}
    for name in (*kept.told_names(), *told.told_names()):
        one = name.message, name.message_id, name.alias, name.trust
        # Told at several positions it is one name. Each of them is delivered again if this batch fails.
        found[one] = min(name, found.get(one, name))
    names = found.values()
    return frozenset(names if len(names) <= MAX_NAMES else sorted(names, key=_distrust)[:MAX_NAMES])


def _distrust(name: Name) -> tuple[int, Name]:
    return -name.trust, name


def _completed(kept_fact: Fact, told_fact: Fact) -> NormalizedEvent:
    kept, told = kept_fact.event, told_fact.event
    # As a whole: text, class and address belong to the code.
    error = max(map(_error, (kept, told)))
    defaults = _defaults(kept_fact, told_fact)
    times = [at for at in (kept.occurred_at_us, told.occurred_at_us) if at is not None]
    # As a whole, as a word belongs to its action. The provider's word is greater than what was read in a text, and the
    # tenant's decision is the greatest.
    consent = max(kept.consent, told.consent) if kept.consent and told.consent else kept.consent or told.consent
    return msgspec.structs.replace(
        kept,
        kind=max(kept.kind, told.kind, key=lambda kind: (RANK.get(kind, -1), kind.value)),
        provider_status=_least(kept.provider_status, told.provider_status),
        recipient=_least(kept.recipient, told.recipient),
        sender=_least(kept.sender, told.sender),
        occurred_at_us=min(times, default=None),
        invalid_recipient=error[0],
        error_code=error[1],
        error_text=error[2],
        error_class=error[3],
        error_url=error[4],
        text=max(kept.text, told.text, key=lambda text: (len(text), text)),
        by_machine=kept.by_machine or told.by_machine,
        recipient_family=max(kept.recipient_family, told.recipient_family),
        consent=consent,
        reply=_reply(kept.reply, told.reply),
        sequence=min((n for n in (kept.sequence, told.sequence) if n is not None), default=None),
        # As a whole too: the best sure one, and what a person decided about either.
        classification=max(filter(None, (kept.classification, told.classification)), key=_sureness, default=None),
        review=_review(max(kept.review, told.review, key=_REVIEWS.index), consent),
        # What one of them has is not missing.
        missing_parameters=[name for name in kept.missing_parameters if name in told.missing_parameters],
        references=_united(kept.references, told.references),
        default_parameters=defaults,
        vars=_vars(kept_fact, told_fact, defaults),
        attributes=_attributes(kept.attributes, told.attributes),
    )


def _error(event: NormalizedEvent) -> tuple[bool, str, str, ErrorClass, str]:
    return event.invalid_recipient, event.error_code, event.error_text, event.error_class, event.error_url


def _sureness(said: Classification) -> tuple[int, str, str, tuple[str, ...], bool, str, str]:
    return (
        _CONFIDENCES.index(said.confidence),
        said.action or "",
        said.word,
        said.templates,
        said.survey_response,
        said.scope_kind,
        said.scope,
    )


def _review(review: Review, consent: Consent | None) -> Review:
    """``review``, but that nobody need look at a reply of which it is known what it says."""
    return Review.NONE if review is Review.FLAGGED and consent is not None else review


def _least(kept: str, told: str) -> str:
    """The one that is not empty; of two, the least: any rule will do that does not depend on which came first."""
    return min(kept, told) if kept and told else kept or told


def _joined(kept: Fact, own: str, told: Fact, other: str) -> str:
    """Of the communications that two facts name: one that a sender named before one of a channel's default, and of two
    alike the least."""
    by_default = is_default(kept, own)
    if own and other and by_default is not is_default(told, other):
        return other if by_default else own
    return _least(own, other)


def _placed(own: Place, other: Place) -> Place:
    """The least of two that both name a member, or neither; as a whole, since half of each would be a place that nobody
    has named. A member comes before a batch alone."""
    if other in (own, NOWHERE):
        return own
    return other if own == NOWHERE else min(own, other, key=_vagueness)


def _vagueness(place: Place) -> tuple[bool, bool, Place]:
    return not place.member_key, not place.batch_id, place


def _reply(kept: Reply | None, told: Reply | None) -> Reply | None:
    if kept is None or told is None:
        return kept or told
    return Reply(
        _least(kept.message_id, told.message_id), _least(kept.payload, told.payload), _least(kept.option, told.option)
    )


def _united(kept: list[str], told: list[str]) -> list[str]:
    """``kept`` as it is, followed by what only ``told`` has; the least, where they are too many."""
    missing = set(told).difference(kept)
    if len(kept) + len(missing) > MAX_REFERENCES:
        least = sorted({*kept, *missing})[:MAX_REFERENCES]
        return kept if set(least) == set(kept) else least
    return [*kept, *sorted(missing)] if missing else kept


def _vars(kept: Fact, told: Fact, defaults: Sequence[str]) -> list[Pair]:
    """Those of the event and of the callback's URL; of a duplicate's URL only where the provider signed it. Of the
    channel's defaults only ``defaults``."""
    own, other = _without_defaults(kept.event, defaults), _without_defaults(told.event, defaults)
    parameters = told.origin.parameters if told.origin.url_is_signed else ()
    missing = {*other, *parameters}.difference(own, kept.origin.parameters)
    room = max(0, MAX_VARS - len(own) - len(kept.origin.parameters))
    return [*own, *sorted(missing)[:room]] if missing and room else own


def _defaults(kept: Fact, told: Fact) -> list[str]:
    """The parameters that have the channel's default, since neither of the two has another value."""
    names = _united_names(kept.event.default_parameters, told.event.default_parameters)
    if not names:
        return kept.event.default_parameters
    given = {
        name.lower()
        for fact in (kept, told)
        for name, value in (
            *_without_defaults(fact.event, ()),
            *(fact.origin.parameters if fact is kept or fact.origin.url_is_signed else ()),
        )
        if value
    }
    return [name for name in names if name.lower() not in given]


def _united_names(kept: list[str], told: list[str]) -> list[str]:
    return sorted({*kept, *told}) if kept or told else kept


def _without_defaults(event: NormalizedEvent, but: Sequence[str]) -> list[Pair]:
    """The parameters of ``event`` without those that are there by default, ``but`` for these."""
    gone = {name for name in event.default_parameters if name not in but}
    return [pair for pair in event.vars if pair[0] not in gone or not pair[1]] if gone else event.vars


def _attributes(kept: list[Pair], told: list[Pair]) -> list[Pair]:
    """By name: one that is missing is added; of two values the greater stands."""
    before = dict(kept)
    better = {name: value for name, value in sorted(told) if name not in before or value > before[name]}
    return list({**before, **better}.items()) if better else kept


def _write(payload: event_pb2.Event, event: NormalizedEvent) -> None:
    payload.kind = KIND_TO_PROTO[event.kind]
    payload.provider_status = event.provider_status
    payload.message_id = event.message_id
    payload.recipient = event.recipient
    payload.sender = event.sender
    write_error(payload, event)
    payload.ClearField("review")
    payload.text = event.text
    payload.by_machine = event.by_machine
    gone = set(payload.default_parameters).difference(event.default_parameters)
    write_said(payload, event)
    if event.occurred_at_us is not None:
        payload.occurred_at_basis = event_pb2.TIME_BASIS_PROVIDER
    del payload.references[:]
    payload.references.extend(event.references)
    # The parameters of the first callback's URL stand in its payload and not in its event, so those are only added to.
    # Only a default goes, where a duplicate brings what the sender gave.
    if gone:
        left = [(pair.name, pair.value) for pair in payload.vars if pair.name not in gone or not pair.value]
        del payload.vars[:]
        for name, value in left:
            payload.vars.add(name=name, value=value)
    present = {(pair.name, pair.value) for pair in payload.vars}
    for name, value in event.vars:
        if (name, value) not in present:
            payload.vars.add(name=name, value=value)
    del payload.attributes[:]
    for name, value in event.attributes:
        payload.attributes.add(name=name, value=value)
