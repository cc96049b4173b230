"""What an event says about contacting its recipient: a table over what adapters tell, in the vocabulary of all of them.

========================================================  =====================================  ======================
the event                                                 suppresses                             scope
========================================================  =====================================  ======================
consent: opt-out, of an unsubscribe group                 unsubscribe                            the group
consent: opt-out, unsubscribed, of an e-mail address      unsubscribe                            everything
any other consent: opt-out                                stop                                   a STOP's
complained                                                complaint                              everything
class suppress: a drop, since the person unsubscribed     unsubscribe                            its group or everything
class suppress: a drop, since the person complained       complaint                              everything
class suppress: marketing alone is declined               unsubscribe                            a STOP's
class suppress: this sender is blocked                    provider_block                         the sender
any other class suppress                                  provider_block; of a mail unsubscribe  a STOP's
class hard, or an invalid recipient                       invalid_address; of a mail that was    everything
                                                          refused at a valid address hard_bounce
========================================================  =====================================  ======================

A STOP covers everything, or, where the tenant's setting says so, the messaging service if it is known, else the sender.
What lifts, ``rules`` says by who does: a person by an opt-in, the provider with them, a delivery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple

from backhaul_common.ids import derived_id
from backhaul_common.tenants import SuppressionSettings
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event

from backhaul_suppression.addresses import sender_of, spellings, told_address
from backhaul_suppression.model import EVERYTHING, Fact, Family, Kind, Origin, Scope, ScopeKind, Source, Target
from backhaul_suppression.rules import Who, lifted_by

ACCEPTED_NOTE: Final = "Somebody of the tenant's read the reply, and decided that it opts out."

_FAMILIES: Final = {
    event_pb2.ADDRESS_FAMILY_PHONE: Family.PHONE,
    event_pb2.ADDRESS_FAMILY_EMAIL: Family.EMAIL,
    event_pb2.ADDRESS_FAMILY_VOICE: Family.VOICE,
}
_CONSENT_SCOPES: Final = {
    event_pb2.CONSENT_SCOPE_MESSAGING_SERVICE: ScopeKind.MESSAGING_SERVICE,
    event_pb2.CONSENT_SCOPE_GROUP: ScopeKind.GROUP,
}
# What anybody can post lifts nothing.
_PROVEN: Final = frozenset({callback_pb2.VERIFICATION_VERIFIED, callback_pb2.VERIFICATION_CREDENTIAL})

# Errors of these say something of the address. A deferral is tried again, whatever it says.
_FAILURES: Final = frozenset(
    {
        event_pb2.EVENT_KIND_UNKNOWN,
        event_pb2.EVENT_KIND_UNDELIVERED,
        event_pb2.EVENT_KIND_FAILED,
        event_pb2.EVENT_KIND_REJECTED,
        event_pb2.EVENT_KIND_BOUNCED,
        event_pb2.EVENT_KIND_CANCELED,
        event_pb2.EVENT_KIND_EXPIRED,
        event_pb2.EVENT_KIND_BUSY,
        event_pb2.EVENT_KIND_NO_ANSWER,
    }
)
_SAY_SOMETHING: Final = _FAILURES | {
    event_pb2.EVENT_KIND_INBOUND,
    event_pb2.EVENT_KIND_UNSUBSCRIBED,
    event_pb2.EVENT_KIND_SUBSCRIBED,
    event_pb2.EVENT_KIND_COMPLAINED,
}
_DELIVERIES: Final = {
    event_pb2.EVENT_KIND_DELIVERED: frozenset({Family.PHONE, Family.EMAIL, Family.VOICE}),
    # A machine may have answered; there is a line behind the number.
    event_pb2.EVENT_KIND_ANSWERED: frozenset({Family.VOICE}),
    event_pb2.EVENT_KIND_COMPLETED: frozenset({Family.VOICE}),
}
KINDS: Final = frozenset(_SAY_SOMETHING | _DELIVERIES.keys())
"""Kinds of events of which some say something; of all others ``fact_of`` makes nothing."""

# They say nothing of the person: another channel may do, or another moment.
_NOT_THE_ADDRESS: Final = frozenset({event_pb2.ERROR_CLASS_CHANNEL, event_pb2.ERROR_CLASS_TRANSIENT})

# Of a call that the person made, errors and answers are the tenant's own side.
_DIRECTION: Final = "direction"
_BY_THE_PERSON: Final = frozenset({"inbound", "trunking-originating"})
# Why a provider did not even try, in the words that adapters share, and the unsubscribe group of the mail.
_REJECT_REASON: Final = "reject_reason"
_REFUSED_BY: Final = {"unsubscribed": Kind.UNSUBSCRIBE, "spam": Kind.COMPLAINT}
_GROUP: Final = "asm_group_id"

# By provider and error code, where the class alone says less. On WhatsApp a person may decline marketing, and nothing
# else. https://www.twilio.com/docs/api/errors/63033
_OF_MARKETING: Final = frozenset({("twilio", "63033")})
# These say that one sender is blocked: https://www.twilio.com/docs/api/errors/63014, and RFC 8197 of calls.
_OF_THE_SENDER: Final = frozenset({("twilio", "63014"), ("twilio", "607")})

# A word about one group, even where it does not say which.
_OF_A_GROUP: Final = frozenset({("sendgrid", "group_resubscribe")})

# Words that carriers and providers act upon by themselves, though only what they call an opt-in has ``by`` PROVIDER. To
# lift their block by one of them is safe: should it hold on, they refuse the next message, and say so.
# https://help.twilio.com/articles/360058144374
_LIFT_BLOCKS: Final = frozenset({"START", "UNSTOP"})

_BY_OPT_IN: Final = lifted_by(Who.RECIPIENT)
_BY_PROVIDER: Final = lifted_by(Who.PROVIDER)
BY_DELIVERY: Final = lifted_by(Who.DELIVERY)
"""What a delivery lifts."""
# Only for the sender and the service that delivered: others may still be blocked.
_BY_DELIVERY_EVERYWHERE: Final = BY_DELIVERY - _BY_PROVIDER
_OWN_BY_DELIVERY: Final = BY_DELIVERY & _BY_PROVIDER
_COMPLAINT: Final = frozenset({Kind.COMPLAINT})

# Of a fact's id, how much another address's has in common with it.
_KEPT: Final = 24


class _Said(NamedTuple):
    """What an event says. It lifts its targets, or else suppresses them."""

    lifts: bool
    targets: tuple[Target, ...]
    origin: Origin
    word: str = ""
    note: str = ""


def fact_of(event: Event, settings: SuppressionSettings, recorded_at_us: int) -> Fact | None:
    """What ``event`` says; None where it says nothing about contacting its recipient. Never raises.

    A fact without targets says that nothing follows from the event any more. It is made of a ``revision`` above 0 that
    says nothing where a lower one may have said something, which may be stored, or be on its way. A later revision may
    also be about another address. All that is to be stored is ``spread``.
    """
    family = _family(event)
    said = _said(event, family, settings) if event.recipient and not event.duplicate_of else None
    if said is None:
        if not event.revision or event.kind not in _SAY_SOMETHING:
            return None
        said = _Said(False, (), Origin.PROVIDER)
    address = told_address(event.registration, event.recipient, family)
    return Fact(
        id=event.id,
        tenant_id=event.tenant_id,
        address=address,
        lifts=said.lifts,
        targets=said.targets,
        effective_at_us=_effective_at_us(event),
        recorded_at_us=recorded_at_us,
        origin=said.origin,
        source=Source.EVENT,
        revision=event.revision,
        event_id=event.id,
        channel=event.channel,
        message_id=event.message_id,
        word=said.word,
        note=said.note,
        traceparent=event.traceparent,
    )


def spread(fact: Fact, settings: SuppressionSettings) -> Sequence[Fact]:
    """``fact``, and the same about every other address that the tenant's setting takes for the same one
    (``addresses.spellings``): all that is said, by an event or by a call, is recorded so, and whoever asks about either
    address finds it there. What is no fact any more is none about all of them, whatever the setting was meanwhile."""
    if not fact.targets:
        settings = settings.model_copy(update={"whatsapp": "phone"})
    first, *others = spellings(fact.address, settings)
    return [fact, *(replace(fact, id=_of_another(fact.id), address=other) for other in others if other != first)]


def proves_delivery(fact: Fact) -> bool:
    """Whether it lifts because something was delivered, so that it is worth recording only where there is something to
    lift."""
    return fact.lifts and any(target.kind in _BY_DELIVERY_EVERYWHERE for target in fact.targets)


def _stop_scope(event: Event, settings: SuppressionSettings) -> Scope:
    """What a STOP by this event covers."""
    since = settings.topic_since
    if settings.revocation_scope == "all" or (since and _effective_at_us(event) < since.timestamp() * 1_000_000):
        return EVERYTHING
    return next(iter(_own_scopes(event)), EVERYTHING)


def _said(event: Event, family: Family | None, settings: SuppressionSettings) -> _Said | None:
    if event.HasField("consent"):
        return _consented(event, family, settings)
    if event.kind == event_pb2.EVENT_KIND_COMPLAINED:
        return _Said(False, (Target(Kind.COMPLAINT, EVERYTHING),), Origin.RECIPIENT, event.provider_status)
    if family is Family.VOICE and _attribute(event, _DIRECTION).lower() in _BY_THE_PERSON:
        return None
    if event.kind in _FAILURES:
        return _failed(event, family, settings)
    if (family or Family.PHONE) in _DELIVERIES.get(event.kind, ()):
        return _delivered(event)
    return None


def _consented(event: Event, family: Family | None, settings: SuppressionSettings) -> _Said | None:
    consent = event.consent
    word = consent.word or event.provider_status
    group = _consent_scope(event, ScopeKind.GROUP)
    if consent.action == event_pb2.CONSENT_ACTION_OPT_OUT:
        note = ACCEPTED_NOTE if consent.by == event_pb2.CONSENT_BY_TENANT else ""
        if group is not None:
            target = Target(Kind.UNSUBSCRIBE, group)
        elif family is Family.EMAIL and event.kind == event_pb2.EVENT_KIND_UNSUBSCRIBED:
            target = Target(Kind.UNSUBSCRIBE, EVERYTHING)
        else:
            target = Target(Kind.STOP, _stop_scope(event, settings))
        # Also of a reply about which the tenant decided: the tenant tells what was said, and the person has said it.
        return _Said(False, (target,), Origin.RECIPIENT, word, note)
    if consent.action != event_pb2.CONSENT_ACTION_OPT_IN or event.verification not in _PROVEN:
        return None
    if group is not None:
        return _Said(True, (Target(Kind.UNSUBSCRIBE, group),), Origin.RECIPIENT, word)
    if (event.provider, event.provider_status) in _OF_A_GROUP:
        return None
    kinds = _BY_OPT_IN - _COMPLAINT
    if consent.by == event_pb2.CONSENT_BY_PROVIDER or consent.word in _LIFT_BLOCKS:
        kinds |= _BY_PROVIDER
    # Nobody complains of one sender alone.
    targets = _targets(_COMPLAINT, (EVERYTHING,)) + _targets(kinds, (EVERYTHING, *_own_scopes(event)))
    return _Said(True, targets, Origin.RECIPIENT, word)


def _failed(event: Event, family: Family | None, settings: SuppressionSettings) -> _Said | None:
    if event.error_class in _NOT_THE_ADDRESS:
        return None
    if event.error_class == event_pb2.ERROR_CLASS_SUPPRESS:
        target = _refused(event, family, settings)
    elif event.invalid_recipient:
        target = Target(Kind.INVALID_ADDRESS, EVERYTHING)
    elif event.error_class == event_pb2.ERROR_CLASS_HARD:
        # A mailbox may be gone that was there once. Of a number nobody tells the difference.
        kind = Kind.HARD_BOUNCE if family is Family.EMAIL else Kind.INVALID_ADDRESS
        target = Target(kind, EVERYTHING)
    else:
        return None
    return _Said(False, (target,), Origin.PROVIDER, event.error_code or event.provider_status)


def _refused(event: Event, family: Family | None, settings: SuppressionSettings) -> Target:
    """What the provider did not deliver because of what the person said."""
    if event.kind == event_pb2.EVENT_KIND_REJECTED:
        kind = _REFUSED_BY.get(_attribute(event, _REJECT_REASON))
        # A mail of a group is dropped for the group's unsubscription; one of none for that of everything. Should it be
        # for everything all the same, the provider drops the mails of the other groups as well, and says so.
        group = _attribute(event, _GROUP) if kind is Kind.UNSUBSCRIBE else ""
        if kind is not None:
            return Target(kind, Scope(ScopeKind.GROUP, group) if group else EVERYTHING)
    if family is Family.EMAIL:
        return Target(Kind.UNSUBSCRIBE, EVERYTHING)
    said = event.provider, event.error_code
    if said in _OF_THE_SENDER:
        return Target(Kind.PROVIDER_BLOCK, _sender(event) or EVERYTHING)
    return Target(
        Kind.UNSUBSCRIBE if said in _OF_MARKETING else Kind.PROVIDER_BLOCK,
        _stop_scope(event, settings),
    )


def _delivered(event: Event) -> _Said | None:
    if event.verification not in _PROVEN:
        return None
    targets = _targets(_BY_DELIVERY_EVERYWHERE, (EVERYTHING,)) + _targets(_OWN_BY_DELIVERY, (*_own_scopes(event),))
    return _Said(True, targets, Origin.PROVIDER, event.provider_status)


@lru_cache(maxsize=4096)
def _targets(kinds: frozenset[Kind], scopes: tuple[Scope, ...]) -> tuple[Target, ...]:
    """All of them. Most events are deliveries, of few senders, and hardly any has something to lift."""
    return tuple(Target(kind, scope) for kind, scope in product(sorted(kinds), scopes))


def _family(event: Event) -> Family | None:
    return _FAMILIES.get(event.recipient_family)


def _effective_at_us(event: Event) -> int:
    """When it happened. A clock that is fast would have a word count until its time is there, against all that the
    person says meanwhile."""
    return min(event.occurred_at_us, event.received_at_us) if event.received_at_us else event.occurred_at_us


def _own_scopes(event: Event) -> list[Scope]:
    """The messaging service and the sender of the event, as far as they are known, the first of which a topic is."""
    found = _consent_scope(event, ScopeKind.MESSAGING_SERVICE), _sender(event)
    return [scope for scope in found if scope is not None]


def _sender(event: Event) -> Scope | None:
    sender = sender_of(event.sender)
    return Scope(ScopeKind.SENDER, sender) if sender else None


def _consent_scope(event: Event, kind: ScopeKind) -> Scope | None:
    """What the provider says that the person's word covers, if it is of this kind."""
    told = event.consent if event.consent.scope else event.classification
    return Scope(kind, told.scope) if told.scope and _CONSENT_SCOPES.get(told.scope_kind) is kind else None


def _attribute(event: Event, name: str) -> str:
    return next((one.value for one in event.attributes if one.name == name), "")


def _of_another(fact_id: str) -> str:
    # Of facts of one moment the order of the ids decides, and must decide the same for both addresses.
    return fact_id[:_KEPT] + derived_id("suppression", fact_id)[_KEPT:]
