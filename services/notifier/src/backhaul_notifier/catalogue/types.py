"""The types of what can be told, as data. What follows from a type elsewhere is looked up here.

A type's name is a hierarchy with full stops: ``message.delivered``. Each kind of event has a type of its own, by its
name: ``message.<kind>``. Beside these stand views, which tell of events of several kinds, or of some of one kind.
Notices are told under the type that they have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from backhaul_common.vocabulary import Words
from backhaul_proto.event.v1.event_pb2 import ConsentAction, Event, EventKind, Review

KINDS: Final = Words(EventKind.DESCRIPTOR)

NAME: Final = re.compile(r"[a-zA-Z0-9_]+(?:\.[a-zA-Z0-9_]+)+")
"""How a type is spelled."""


class Part(StrEnum):
    """What a thing that is told can be about, and so what can be filtered, or stand in an address."""

    CHANNEL = "channel"
    MESSAGE = "message"
    MEMBER = "member"
    COMMUNICATION = "communication"
    BATCH = "batch"


_ALL = frozenset(Part)


@dataclass(frozen=True, slots=True)
class EventType:
    """A type. ``description`` says, for people, when it is told.

    Of events: ``kinds``, and where not all events of these are of the type, ``holds``. Of notices: ``reference``, the
    name of what ``about.reference`` is, and ``attributes``, with whether each is a whole number.
    """

    name: str
    title: str
    description: str
    kinds: frozenset[int] = frozenset()
    holds: Callable[[Event], bool] | None = None
    reference: str = "reference"
    attributes: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    parts: frozenset[Part] = _ALL

    @property
    def of_events(self) -> bool:
        """Whether it is of events; otherwise it is of notices."""
        return bool(self.kinds)


_OF_KINDS: Mapping[str, tuple[str, str]] = {
    "unknown": ("Unknown event", "The provider said something that Backhaul has no word for."),
    "queued": ("Message queued", "The provider took the message, or its sender told that it was handed over."),
    "sent": ("Message sent", "The message left the provider."),
    "delivered": ("Message delivered", "The message reached the person's device or mailbox."),
    "undelivered": ("Message undelivered", "The carrier could not deliver the message."),
    "failed": ("Message failed", "The message could not be made or sent."),
    "rejected": ("Message rejected", "The provider refused the message, or dropped it."),
    "bounced": ("Message bounced", "The mail came back."),
    "deferred": ("Message deferred", "The mail could not be delivered for now, and the provider tries again."),
    "read": ("Message read", "The person's app says that the message was read."),
    "opened": ("Message opened", "The mail was opened, by a person or a machine."),
    "clicked": ("Link clicked", "A link was followed, by a person or a machine."),
    "complained": ("Complaint", "The person reported the message as spam."),
    "unsubscribed": ("Unsubscribed", "The person unsubscribed at the provider."),
    "subscribed": ("Subscribed", "The person subscribed again at the provider."),
    "inbound": ("Message received", "A person wrote."),
    "canceled": ("Message canceled", "The message was canceled before it was sent."),
    "expired": ("Message expired", "The message was not delivered in its time."),
    "blocked_credit": ("Blocked for lack of credit", "The provider did not send the message, as credit is lacking."),
    "duplicate_blocked": (
        "Blocked as a duplicate",
        "The provider took the message for a duplicate, and did not send it.",
    ),
    "initiated": ("Call initiated", "The call was begun."),
    "ringing": ("Call ringing", "The person's telephone rings."),
    "answered": ("Call answered", "The call was answered."),
    "completed": ("Call completed", "The call ended after it had been answered."),
    "busy": ("Line busy", "The person's line was busy."),
    "no_answer": ("No answer", "Nobody answered the call."),
}


def _kinds(*words: str) -> frozenset[int]:
    return frozenset(KINDS.number(word) for word in words)


STATUS_KINDS: Final = _kinds(
    "queued", "initiated", "sent", "ringing", "deferred", "duplicate_blocked", "blocked_credit", "canceled", "rejected",
    "expired", "failed", "busy", "no_answer", "undelivered", "delivered", "bounced", "answered", "completed", "read",
)  # fmt: skip
"""How far a message has come. What people do with it, and say of it, is none."""

_PROBLEM_KINDS = _kinds("rejected", "failed", "blocked_credit", "duplicate_blocked")


def _said(action: int) -> Callable[[Event], bool]:
    def holds(event: Event) -> bool:
        return event.HasField("consent") and event.consent.action == action

    return holds


_EVERY_KIND = frozenset(KINDS.by_number)
_OWN = tuple(
    EventType(f"message.{word}", title, description, _kinds(word)) for word, (title, description) in _OF_KINDS.items()
)
_VIEWS = (
    EventType(
        "message.status_changed",
        "Delivery status change",
        "A status of the message was reported; the filter's kinds choose which. Statuses are told as they come, also "
        "those that come late: occurred_at says when it was so. Openings, clicks and complaints are no statuses.",
        STATUS_KINDS,
    ),
    EventType(
        "message.delivery_problem",
        "Delivery problem",
        "The message could not be made, or the provider refused it, also for lack of credit or as a duplicate. Bounces "
        "are none.",
        _PROBLEM_KINDS,
    ),
    EventType("reply.received", "Reply received", "A person wrote back.", _kinds("inbound")),
    EventType(
        "reply.flagged",
        "Reply to be looked at",
        "A reply is likely an opt-out, and somebody should accept or dismiss it.",
        _kinds("inbound"),
        lambda event: event.review == Review.REVIEW_FLAGGED,
    ),
    EventType(
        "consent.opt_out",
        "Opt-out",
        "A person does not want to be contacted, by a reply, at the provider, or as the tenant decided about a reply.",
        _EVERY_KIND,
        _said(ConsentAction.CONSENT_ACTION_OPT_OUT),
    ),
    EventType(
        "consent.opt_in",
        "Opt-in",
        "A person wants to be contacted again.",
        _EVERY_KIND,
        _said(ConsentAction.CONSENT_ACTION_OPT_IN),
    ),
    EventType(
        "consent.help",
        "Help wanted",
        "A person asks who is writing.",
        _EVERY_KIND,
        _said(ConsentAction.CONSENT_ACTION_HELP),
    ),
)

_TEXT, _NUMBER = False, True
_COUNTS = dict.fromkeys(
    ("members", "destinations", "waiting", "Queued", "Sent", "Delivered", "Undelivered", "Failed", "InvalidNumber"),
    _NUMBER,
)
_ROW = {"kind": _TEXT, "scope_kind": _TEXT, "scope": _TEXT, "family": _TEXT, "position": _NUMBER}
_OF_BATCH = frozenset({Part.COMMUNICATION, Part.BATCH})

_NOTICES = (
    EventType(
        "member.processed",
        "Message sent (to all of a member's destinations)",
        "Every destination of the member was processed: sent to, or failed. Told once a member, as Dispatch's "
        "Message Sent.",
        reference="batch_id",
        attributes={"member_key": _TEXT, "destinations": _NUMBER, "failed": _NUMBER},
    ),
    EventType(
        "communication.completed",
        "Communication complete",
        "A batch of the communication is complete: by its condition or by its deadline. Told once a batch.",
        reference="batch_id",
        attributes={"completed_by": _TEXT, **_COUNTS},
        parts=_OF_BATCH,
    ),
    EventType(
        "communication.disabled",
        "Communication disabled",
        "Nothing is called on behalf of the communication any more. Where what was to be told failed for good, and a "
        "policy disabled it for safety, the subscription is named.",
        reference="subscription_id",
        attributes={"reason": _TEXT},
        parts=frozenset({Part.COMMUNICATION}),
    ),
    EventType(
        "communication.enabled",
        "Communication enabled",
        "The communication is enabled again, and what was held back on its behalf is sent.",
        attributes={"reason": _TEXT},
        parts=frozenset({Part.COMMUNICATION}),
    ),
    EventType(
        "suppression.added",
        "Suppression added",
        "An address must not be contacted any more.",
        reference="suppression_id",
        attributes=_ROW,
        parts=frozenset(),
    ),
    EventType(
        "suppression.lifted",
        "Suppression lifted",
        "A reason not to contact an address is gone.",
        reference="suppression_id",
        attributes=_ROW,
        parts=frozenset(),
    ),
    EventType(
        "audit.digest",
        "Digest signed",
        "A digest of audit files was signed. Whoever keeps its hash can prove that nothing before it was changed.",
        attributes={"chain": _TEXT, "number": _NUMBER, "hash": _TEXT, "key": _TEXT},
        parts=frozenset(),
    ),
    EventType(
        "channel.silent",
        "Channel silent",
        "For five minutes nothing was heard of what was sent on a channel.",
        attributes={"unanswered_since_us": _NUMBER, "heard_at_us": _NUMBER},
        parts=frozenset({Part.CHANNEL}),
    ),
    EventType(
        "dead_letters.full",
        "Dead letters full",
        "As many dead letters are open as may be; further ones are only counted.",
        attributes={"most": _NUMBER},
        parts=frozenset({Part.CHANNEL}),
    ),
    EventType(
        "subscription.paused",
        "Subscription paused",
        "Backhaul paused a subscription, since its endpoint has failed for hours. Never told to that subscription.",
        reference="subscription_id",
        attributes={"reason": _TEXT},
        parts=frozenset(),
    ),
    EventType(
        "subscription.disabled",
        "Subscription disabled",
        "An endpoint answered that it wants no more. Never told to that subscription.",
        reference="subscription_id",
        attributes={"reason": _TEXT},
        parts=frozenset(),
    ),
)

TYPES: Final[Mapping[str, EventType]] = MappingProxyType({each.name: each for each in (*_OWN, *_VIEWS, *_NOTICES)})
"""Every type by its name, those of the kinds first."""

SWITCHES: Final[Mapping[str, bool]] = MappingProxyType({"communication.disabled": True, "communication.enabled": False})
"""The types of notices that say whether a communication is disabled from then on."""

OF_SUBSCRIPTIONS: Final = "subscription."
"""With this begin types of notices whose ``about.reference`` is a subscription that must not be told of itself."""
