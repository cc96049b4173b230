"""SendGrid's words and what they mean here. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backhaul_channels.adapter import EventKind

# https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
EVENTS: Final[Mapping[str, EventKind]] = {
    "processed": EventKind.QUEUED,
    "dropped": EventKind.REJECTED,
    "delivered": EventKind.DELIVERED,
    "deferred": EventKind.DEFERRED,
    "bounce": EventKind.BOUNCED,
    "open": EventKind.OPENED,
    "click": EventKind.CLICKED,
    "spamreport": EventKind.COMPLAINED,
    "unsubscribe": EventKind.UNSUBSCRIBED,
    "group_unsubscribe": EventKind.UNSUBSCRIBED,
    "group_resubscribe": EventKind.SUBSCRIBED,
}

# Why SendGrid did not even try, in the vocabulary that django-anymail uses: invalid, bounced, timed_out, blocked, spam,
# unsubscribed, other. https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event#dropped
REJECT_REASONS: Final[Mapping[str, str]] = {
    "invalid smtpapi header": "other",
    "spam content": "spam",
    "spam content (if spam checker app enabled)": "spam",
    "unsubscribed address": "unsubscribed",
    "bounced address": "bounced",
    "spam reporting address": "spam",
    "invalid": "invalid",
    "recipient list over package quota": "other",
}

# https://www.twilio.com/docs/sendgrid/ui/analytics-and-reporting/bounce-and-block-classifications
INVALID_ADDRESS_CLASSIFICATION = "invalid address"

# The events whose status, reason or response speak of something that went wrong.
ERROR_EVENTS = frozenset({"dropped", "bounce", "deferred"})

# What may differ between two events of one message, word and second; without sg_event_id nothing else tells them apart.
DISTINGUISHING: Final[Mapping[str, tuple[str, ...]]] = {
    "deferred": ("attempt",),
    "open": ("ip", "useragent"),
    "click": ("ip", "useragent"),
    "group_unsubscribe": ("asm_group_id",),
    "group_resubscribe": ("asm_group_id",),
}

# Every key that SendGrid itself sets, and the attribute that it becomes; "" for those that normalize.py reads by name,
# and those that say nothing worth keeping. All other keys are the sender's custom arguments, which SendGrid spreads
# over the event; where a custom argument has one of these names, SendGrid's own value wins.
RESERVED: Final[Mapping[str, str]] = {
    "email": "",
    "timestamp": "",
    "event": "",
    "sg_event_id": "",
    "reason": "",
    "status": "",
    "category": "",
    "type": "",
    "sg_machine_open": "",
    "url_offset": "",
    "pool": "",
    "newsletter": "",
    "sg_message_id": "",
    "smtp-id": "smtp_id",
    "response": "response",
    "attempt": "attempt",
    "tls": "tls",
    "cert_err": "cert_err",
    "ip": "ip",
    "useragent": "useragent",
    "url": "url",
    "asm_group_id": "asm_group_id",
    "bounce_classification": "bounce_classification",
    "sg_content_type": "content_type",
    "sg_template_id": "template_id",
    "sg_template_name": "template_name",
    "template_id": "marketing_template_id",
    "template_version_id": "marketing_template_version_id",
    "template_hash": "marketing_template_hash",
    "mc_stats": "mc_stats",
    "phase_id": "phase_id",
    "send_at": "send_at",
}
