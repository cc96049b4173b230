"""What adapters make of a provider's words: one vocabulary for all of them. Values, and nothing else."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class EventKind(StrEnum):
    """What happened, in one vocabulary for all providers."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    REJECTED = "rejected"
    BOUNCED = "bounced"
    DEFERRED = "deferred"
    READ = "read"
    OPENED = "opened"
    CLICKED = "clicked"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    SUBSCRIBED = "subscribed"
    INBOUND = "inbound"
    CANCELED = "canceled"
    EXPIRED = "expired"
    BLOCKED_CREDIT = "blocked_credit"
    DUPLICATE_BLOCKED = "duplicate_blocked"
    INITIATED = "initiated"
    RINGING = "ringing"
    ANSWERED = "answered"
    COMPLETED = "completed"
    BUSY = "busy"
    NO_ANSWER = "no_answer"


class Ignored(msgspec.Struct, frozen=True, gc=False):
    """A part that is understood and tells nothing that anybody keeps, such as that a person is typing. It is counted by
    its ``reason``, one of the adapter's ``ignores``, and is neither an event nor a dead letter."""

    reason: str


class AddressFamily(StrEnum):
    """Which kind of address a recipient's is. Consent is kept by family: ``PHONE`` is for messages to a number,
    ``VOICE`` for calls to one."""

    UNKNOWN = ""
    PHONE = "phone"
    EMAIL = "email"
    VOICE = "voice"


class ConsentAction(StrEnum):
    """What a person said about being contacted."""

    HELP = "help"
    OPT_IN = "opt_in"
    OPT_OUT = "opt_out"


class ConsentBy(StrEnum):
    """Who decided what a person meant: we, by a keyword in what the person wrote; the provider, which knows the
    tenant's own keywords and has acted upon them already; or the tenant, who looked at a reply that was unclear. The
    greater one counts."""

    KEYWORD = "keyword"
    PROVIDER = "provider"
    TENANT = "tenant"


class ConsentScope(StrEnum):
    """What a person's word covers, as far as the provider says."""

    UNKNOWN = ""
    MESSAGING_SERVICE = "messaging_service"
    GROUP = "group"


class Consent(msgspec.Struct, frozen=True, order=True, omit_defaults=True, gc=False):
    """That a person does not want to be contacted, wants to be again, or asks for help.

    ``word`` is the keyword that they used, in capitals. ``scope`` is the provider's id of what
    ``scope_kind`` names (an unsubscribe group, say); both are empty where the provider names nothing.
    ``only_if_opted_out`` marks a word that only opts in whoever is opted out: YES answers many questions. Of two that
    differ the greater one stands, by the fields in their order.
    """

    by: ConsentBy
    action: ConsentAction
    word: str = ""
    scope_kind: ConsentScope = ConsentScope.UNKNOWN
    scope: str = ""
    only_if_opted_out: bool = False


class Confidence(StrEnum):
    """How sure it is what a reply means. ``EXACT``: the whole message is a keyword. ``LIKELY``: a short message has a
    keyword among its words, or one that is misspelt. ``PROVIDER``: the provider says what it means."""

    UNKNOWN = ""
    LIKELY = "likely"
    EXACT = "exact"
    PROVIDER = "provider"


class Classification(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What the text of an inbound message was understood to mean; whether anything follows from it, ``Consent`` says.

    ``action`` is None where it holds no keyword about being contacted; ``word`` is that keyword, in capitals.
    ``templates`` are the names of the channel's keyword templates that it answers, sorted. ``survey_response`` says
    that it is free text, which this channel captures. ``scope_kind`` and ``scope`` are what an opt-out by this message
    would cover, as those of ``Consent``; they are all that an adapter sets.
    """

    confidence: Confidence = Confidence.UNKNOWN
    action: ConsentAction | None = None
    word: str = ""
    templates: tuple[str, ...] = ()
    survey_response: bool = False
    scope_kind: ConsentScope = ConsentScope.UNKNOWN
    scope: str = ""


class Review(StrEnum):
    """Whether a person must look at a reply that is likely an opt-out, or what they decided."""

    NONE = ""
    FLAGGED = "flagged"
    DISMISSED = "dismissed"
    ACCEPTED = "accepted"


class ErrorClass(StrEnum):
    """What an error says. ``HARD``: the address will never work. ``SUPPRESS``: the person does not want messages.
    ``TRANSIENT``: another try may work. ``CARRIER``, ``CONTENT`` and ``ACCOUNT``: the network, what was sent, or the
    sender's own account or set-up is the reason. ``CHANNEL``: not on this channel, which says nothing about the
    person."""

    UNKNOWN = ""
    HARD = "hard"
    SUPPRESS = "suppress"
    TRANSIENT = "transient"
    CARRIER = "carrier"
    CONTENT = "content"
    ACCOUNT = "account"
    CHANNEL = "channel"


class ErrorMeaning(msgspec.Struct, frozen=True, gc=False):
    """What a provider's error code means: a sentence of ours for people, its class, and the address of the provider's
    documentation."""

    text: str
    error_class: ErrorClass
    url: str = ""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What an inbound message answers: the message that it refers to, by the provider's id, and the button or option
    that was chosen, by what the sender attached to it (``payload``) and by what the person saw (``option``)."""

    message_id: str = ""
    payload: str = ""
    option: str = ""


class NormalizedEvent(msgspec.Struct, gc=False):
    """One fact, as the adapter understands it.

    ``key`` identifies the fact within tenant, channel and provider: the same fact has the same key whether it arrives
    as a callback, a duplicate or a backfill, and different facts differ. ``occurred_at_us`` is unix time in
    microseconds, None where the provider does not say. ``vars`` are the sender's custom parameters, ``attributes``
    what the provider told beyond the common fields, each name once.

    ``message_id`` names one message to one person. ``aliases`` are further names of the same message that events which
    lack the first one may use; ``provisional`` says that ``message_id`` is itself such a further name, so that the
    event belongs to whichever message has it as an alias. ``references`` are texts by which people look the message
    up, and which several messages may share (what the provider's API answered to the sending, say). ``by_machine``
    marks an opening or a click that no person made.

    ``consent`` is what a person said about being contacted, ``reply`` what an inbound message answers; None where an
    event says nothing of the kind. ``recipient_family`` is which kind of address the recipient's is. ``sequence`` is
    the provider's own number of the event within its message (from 0), where it counts them: times may be too coarse
    to order a call.

    ``communication_id``, ``batch_id`` and ``member_key`` are the sender's own word, of what it registers as sent; no
    adapter sets them, since providers' callbacks name all three by ``vars`` or in their URL.

    The last fields no adapter sets but where the provider itself says it: ``reading`` completes them, the same for all
    providers. ``error_class`` and ``error_url`` are of the code's meaning, ``classification`` of the text; ``review``
    says whether a person must look at it, ``missing_parameters`` which of the channel's declared parameters lack, and
    ``default_parameters`` which of ``vars`` are there by the channel's defaults, since the sender gave none.
    """

    kind: EventKind
    key: str
    provider_status: str
    message_id: str = ""
    recipient: str = ""
    sender: str = ""
    occurred_at_us: int | None = None
    error_code: str = ""
    error_text: str = ""
    text: str = ""
    invalid_recipient: bool = False
    provisional: bool = False
    by_machine: bool = False
    recipient_family: AddressFamily = AddressFamily.UNKNOWN
    sequence: int | None = None
    consent: Consent | None = None
    reply: Reply | None = None
    communication_id: str = ""
    batch_id: str = ""
    member_key: str = ""
    error_class: ErrorClass = ErrorClass.UNKNOWN
    error_url: str = ""
    classification: Classification | None = None
    review: Review = Review.NONE
    missing_parameters: list[str] = []
    default_parameters: list[str] = []
    aliases: list[str] = []
    references: list[str] = []
    vars: list[tuple[str, str]] = []
    attributes: list[tuple[str, str]] = []
