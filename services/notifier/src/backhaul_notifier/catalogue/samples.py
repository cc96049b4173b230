"""An example of each type: it is shown beside its schema, and sent by the test call."""

from __future__ import annotations

from typing import Final

from backhaul_common.ids import derived_id
from backhaul_proto.callback.v1.callback_pb2 import Source, Verification
from backhaul_proto.event.v1 import event_pb2 as pb
from backhaul_proto.event.v1.event_pb2 import Attribute, Event
from backhaul_proto.notice.v1.notice_pb2 import About, Notice

from backhaul_notifier.catalogue.types import KINDS, OF_SUBSCRIPTIONS, EventType

_AT_US: Final = 1_795_700_000_000_000
_CODES = {
    "undelivered": ("30006", "Landline or unreachable carrier.", pb.ErrorClass.ERROR_CLASS_HARD),
    "failed": ("30008", "Unknown error.", pb.ErrorClass.ERROR_CLASS_CARRIER),
    "rejected": ("21610", "The recipient has unsubscribed.", pb.ErrorClass.ERROR_CLASS_SUPPRESS),
    "bounced": ("5.1.1", "The mailbox does not exist.", pb.ErrorClass.ERROR_CLASS_HARD),
}
_MAIL = {"bounced", "deferred", "opened", "clicked", "complained", "unsubscribed", "subscribed"}
_CALL = {"initiated", "ringing", "answered", "completed", "busy", "no_answer"}
_CONSENT = {
    "consent.opt_out": (pb.ConsentAction.CONSENT_ACTION_OPT_OUT, "STOP"),
    "consent.opt_in": (pb.ConsentAction.CONSENT_ACTION_OPT_IN, "START"),
    "consent.help": (pb.ConsentAction.CONSENT_ACTION_HELP, "HELP"),
}
_TEXTS = {"batch_id": "spring-1", "subscription_id": "sub_5f2c7d1e8a9b0c3d4e5f6a7b", "reference": "digests/events/17"}
_ATTRIBUTES = {
    "completed_by": "condition",
    "member_key": "anna",
    "reason": "The endpoint has failed for six hours.",
    "kind": "stop",
    "scope_kind": "all",
    "family": "phone",
    "chain": "events",
    "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "key": "digests/events/17",
    "unanswered_since_us": str(_AT_US - 300_000_000),
    "heard_at_us": str(_AT_US - 900_000_000),
    **dict.fromkeys(("members", "destinations", "Delivered"), "3"),
    "most": "1000",
    "number": "17",
    "position": "42",
}


def sample_of(each: EventType, tenant_id: str = "acme") -> Event | Notice:
    """An example of this type, as it would be on its stream; the same each time."""
    return _event(each, tenant_id) if each.of_events else _notice(each, tenant_id)


def _event(each: EventType, tenant_id: str) -> Event:
    kind = _kind_of(each)
    mail = kind in _MAIL
    event = Event(
        id=derived_id("sample", each.name),
        tenant_id=tenant_id,
        registration=f"{tenant_id}.5c0e9d1f2a3b4c5d",
        channel="sendgrid" if mail else "twilio",
        provider="sendgrid" if mail else "twilio",
        kind=KINDS.number(kind),
        provider_status=kind,
        message_id="SM0001",
        recipient="anna@example.com" if mail else "+15005550010",
        sender="news@example.com" if mail else "+15005550006",
        recipient_family=_family(kind),
        communication_id="spring-sale",
        batch_id="spring-1",
        member_key="anna",
        occurred_at_us=_AT_US,
        occurred_at_basis=pb.TimeBasis.TIME_BASIS_PROVIDER,
        received_at_us=_AT_US + 250_000,
        source=Source.SOURCE_CALLBACK,
        verification=Verification.VERIFICATION_VERIFIED,
        vars=[Attribute(name="communicationId", value="spring-sale")],
        callback_id="01a2030fc73d1629ecaf29eb4eed1d23",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        raw=b"MessageSid=SM0001",
    )
    if kind in _CODES:
        event.error_code, event.error_text, event.error_class = _CODES[kind]
    if kind == "inbound":
        _write_back(event, each)
    return event


def _kind_of(each: EventType) -> str:
    """The first kind of the type; of those that are of any, that of a reply."""
    if each.name in _CONSENT:
        return "inbound"
    return (
        KINDS.word(min(each.kinds)) if len(each.kinds) == 1 else ("failed" if "problem" in each.name else "delivered")
    )


def _family(kind: str) -> pb.AddressFamily.ValueType:
    if kind in _MAIL:
        return pb.AddressFamily.ADDRESS_FAMILY_EMAIL
    return pb.AddressFamily.ADDRESS_FAMILY_VOICE if kind in _CALL else pb.AddressFamily.ADDRESS_FAMILY_PHONE


def _write_back(event: Event, each: EventType) -> None:
    event.message_id = "SM0002"
    event.ClearField("batch_id")
    event.ClearField("member_key")
    event.answered.CopyFrom(pb.Answered(channel="twilio", message_id="SM0001", by=pb.AnsweredBy.ANSWERED_BY_ADDRESSES))
    if each.name == "reply.flagged":
        event.text, event.review = "please stop", pb.Review.REVIEW_FLAGGED
        event.classification.confidence = pb.Confidence.CONFIDENCE_LIKELY
        event.classification.action, event.classification.word = pb.ConsentAction.CONSENT_ACTION_OPT_OUT, "STOP"
    elif each.name in _CONSENT:
        action, event.text = _CONSENT[each.name]
        event.consent.action, event.consent.word = action, event.text
        event.consent.by = pb.ConsentBy.CONSENT_BY_KEYWORD
        event.classification.confidence = pb.Confidence.CONFIDENCE_EXACT
        event.classification.action, event.classification.word = action, event.text
    else:
        event.text = "Thank you!"


def _notice(each: EventType, tenant_id: str) -> Notice:
    about = About(
        channel="twilio" if "channel" in each.parts else "",
        communication_id="spring-sale" if "communication" in each.parts else "",
        message_id="SM0001" if "message" in each.parts else "",
        recipient="+15005550010" if each.name.startswith("suppression.") or "member" in each.parts else "",
        reference=_TEXTS.get(each.reference, derived_id("sample", each.name)),
    )
    if each.name in {"channel.silent", "dead_letters.full"}:
        about.ClearField("reference")
    return Notice(
        id=derived_id("sample", each.name),
        tenant_id=tenant_id,
        registration=f"{tenant_id}.5c0e9d1f2a3b4c5d",
        type=each.name,
        occurred_at_us=_AT_US,
        about=about,
        text=each.description,
        attributes=[
            Attribute(name=name, value=_ATTRIBUTES.get(name, "0" if number else ""))
            for name, number in each.attributes.items()
        ],
        traceparent=""
        if each.name.startswith(OF_SUBSCRIPTIONS)
        else "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
