"""What two callbacks tell of one event, as one: pure, and the same whichever of them came first.

Of two that differ in how far they are to be trusted, the better one counts alone. Only what the sender has given is
taken from either, unless a signature was asked for and was not good: such a callback completes nothing. Of two that are
trusted alike, each completes the other. Only what says who brought the event first (the callback, its arrival and its
source, and the provider's own words) stays as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from backhaul_channels import Classification, Confidence, Consent, ErrorClass, NormalizedEvent, Reply, Review
from backhaul_common.sizes import MAX_EVENT_BYTES
from backhaul_proto.event.v1 import event_pb2

from backhaul_normalizer.facts import KIND_TO_PROTO, MAX_REFERENCES
from backhaul_normalizer.model import Fact, Name, Place
from backhaul_normalizer.said import write_error, write_said
from backhaul_normalizer.sender import Pair, defaults_of, joined, least, placed, vars_of, with_senders_words
from backhaul_normalizer.states import RANK

MAX_NAMES = 32
"""Further names that the callbacks of one batch tell of one event. Each of them tells two or three, and the same."""

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
        return _with_senders_words(kept, told) if told.trust else kept
    if told.trust > kept.trust:
        return _in_place_of(kept, told)
    both = _both(kept, told)
    if both.says_what(kept) and both.occurred_at_us == kept.occurred_at_us and both.event == kept.event:
        return kept
    payload = event_pb2.Event.FromString(kept.payload)
    _write(payload, both.event)
    payload.communication_id = both.communication_id
    payload.batch_id, payload.member_key = both.place
    payload.occurred_at_us = both.occurred_at_us
    if payload.ByteSize() > MAX_EVENT_BYTES:
        return kept  # No stream would take it.
    return _changed(
        kept,
        payload,
        event=both.event,
        message=both.named.message,
        alias=both.named.alias,
        communication_id=both.communication_id,
        told_communication_id=joined(kept, kept.told_communication_id, told, told.told_communication_id),
        occurred_at_us=both.occurred_at_us,
        batch_id=both.place.batch_id,
        member_key=both.place.member_key,
        told_place=placed(kept.told_place, told.told_place),
    )


def tells_more(kept: Fact, told: Fact, near_us: int) -> bool:
    """Whether ``told`` says more of the same event than ``kept`` does, were both trusted alike: anything but a time
    that is not earlier by ``near_us``. A later one is no better: what was told had happened."""
    if told.digest == kept.digest:
        return False
    both = _both(kept, told)
    if not both.says_what(kept) or kept.occurred_at_us - both.occurred_at_us >= near_us:
        return True
    return both.event != msgspec.structs.replace(kept.event, occurred_at_us=both.event.occurred_at_us)


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


class _Both(NamedTuple):
    """What two that are trusted alike say together; ``named`` is the one whose name of the message stands."""

    named: Fact
    event: NormalizedEvent
    communication_id: str
    place: Place
    occurred_at_us: int

    def says_what(self, kept: Fact) -> bool:
        """Whether all but ``event`` and its time is as ``kept`` says it."""
        own = kept.communication_id, (kept.batch_id, kept.member_key)
        return self.named is kept and (self.communication_id, self.place) == own


def _both(kept: Fact, told: Fact) -> _Both:
    completed = _completed(kept, told)
    named = _named_by(kept, told)
    if named is told:
        completed = msgspec.structs.replace(
            completed, message_id=told.event.message_id, provisional=told.event.provisional
        )
    communication_id = joined(kept, kept.communication_id, told, told.told_communication_id)
    place = placed(Place(kept.batch_id, kept.member_key), told.told_place)
    arrived_us = min(kept.occurred_at_us, told.occurred_at_us)
    at_us = completed.occurred_at_us if completed.occurred_at_us is not None else arrived_us
    return _Both(named, completed, communication_id, place, at_us)


def _pairs(facts: Sequence[Fact]) -> list[Sequence[Fact]]:
    return [facts[start : start + 2] for start in range(0, len(facts), 2)]


def _with_senders_words(kept: Fact, told: Fact) -> Fact:
    """``kept`` with what the sender has given as ``told`` says, which is trusted less."""
    completed = with_senders_words(kept, told)
    if completed is kept:
        return kept
    payload = event_pb2.Event.FromString(kept.payload)
    _write_senders_words(payload, completed)
    return kept if payload.ByteSize() > MAX_EVENT_BYTES else _changed(completed, payload)


def _in_place_of(kept: Fact, told: Fact) -> Fact:
    """``told``, where ``kept`` was: a page's position never moves, so the time of the first arrival stays."""
    if kept.trust:
        # Who came first tells all that its URL has.
        first = msgspec.structs.replace(
            kept,
            origin=msgspec.structs.replace(kept.origin, url_is_signed=True),
            told_communication_id=kept.communication_id,
            told_place=Place(kept.batch_id, kept.member_key),
        )
        told = _with_senders_words(told, first)
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
    defaults = defaults_of(kept_fact, told_fact)
    times = [at for at in (kept.occurred_at_us, told.occurred_at_us) if at is not None]
    # As a whole, as a word belongs to its action. The provider's word is greater than what was read in a text, and the
    # tenant's decision is the greatest.
    consent = max(kept.consent, told.consent) if kept.consent and told.consent else kept.consent or told.consent
    return msgspec.structs.replace(
        kept,
        kind=max(kept.kind, told.kind, key=lambda kind: (RANK.get(kind, -1), kind.value)),
        provider_status=least(kept.provider_status, told.provider_status),
        recipient=least(kept.recipient, told.recipient),
        sender=least(kept.sender, told.sender),
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
        vars=vars_of(kept_fact, told_fact, defaults),
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


def _reply(kept: Reply | None, told: Reply | None) -> Reply | None:
    if kept is None or told is None:
        return kept or told
    return Reply(
        least(kept.message_id, told.message_id), least(kept.payload, told.payload), least(kept.option, told.option)
    )


def _united(kept: list[str], told: list[str]) -> list[str]:
    """``kept`` as it is, followed by what only ``told`` has; the least, where they are too many."""
    missing = set(told).difference(kept)
    if len(kept) + len(missing) > MAX_REFERENCES:
        least = sorted({*kept, *missing})[:MAX_REFERENCES]
        return kept if set(least) == set(kept) else least
    return [*kept, *sorted(missing)] if missing else kept


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
    _write_vars(payload, event, gone)
    if event.occurred_at_us is not None:
        payload.occurred_at_basis = event_pb2.TIME_BASIS_PROVIDER
    del payload.references[:]
    payload.references.extend(event.references)
    del payload.attributes[:]
    for name, value in event.attributes:
        payload.attributes.add(name=name, value=value)


def _write_senders_words(payload: event_pb2.Event, fact: Fact) -> None:
    payload.communication_id = fact.communication_id
    payload.batch_id, payload.member_key = fact.batch_id, fact.member_key
    gone = set(payload.default_parameters).difference(fact.event.default_parameters)
    write_said(payload, fact.event)
    _write_vars(payload, fact.event, gone)


def _write_vars(payload: event_pb2.Event, event: NormalizedEvent, gone: Collection[str]) -> None:
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
