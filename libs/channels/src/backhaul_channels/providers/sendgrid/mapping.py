"""SendGrid's words and what they mean here. Data only.

Unless another page is named, all of it is the Event Webhook Reference, read in November 2026:
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backhaul_channels.event import ConsentAction, ErrorClass, EventKind

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

# What a person did about being written to; a group's events are of that unsubscribe group alone.
CONSENTS: Final[Mapping[str, ConsentAction]] = {
    "unsubscribe": ConsentAction.OPT_OUT,
    "group_unsubscribe": ConsentAction.OPT_OUT,
    "group_resubscribe": ConsentAction.OPT_IN,
}

# Why SendGrid did not even try: in the vocabulary that django-anymail uses (invalid, bounced, timed_out, blocked, spam,
# unsubscribed, other), and as an error code of ours, which errors.py explains. Words are compared in lower case and
# without punctuation, up to a remark in brackets. "Invalid" is how older versions of the page write "Invalid Address";
# the last three come from django-anymail, which has seen them as the reason or as the type of a drop.
REJECT_REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "invalid smtpapi header": ("other", "invalid_smtpapi_header"),
    "spam content": ("spam", "spam_content"),
    "unsubscribed address": ("unsubscribed", "unsubscribed_address"),
    "bounced address": ("bounced", "bounced_address"),
    "spam reporting address": ("spam", "spam_reporting_address"),
    "invalid": ("invalid", "invalid_address"),
    "invalid address": ("invalid", "invalid_address"),
    "recipient list over package quota": ("other", "over_package_quota"),
    "bounce": ("bounced", "bounced_address"),
    "blocked": ("blocked", "blocked"),
    "expired": ("timed_out", "expired"),
}

# What SendGrid writes into the type of a bounce or a drop. Any other type there is a custom argument of that name, as
# neither event always has a type of its own.
TYPES: Final = frozenset({"bounce", "blocked", "expired"})

# Types of a failure that says nothing final: SendGrid goes on sending to the address.
NOT_FINAL: Final = frozenset({"blocked", "expired"})

# What SendGrid makes of a server's answer; "Unclassified" says nothing. Two of them have another name in places.
# https://www.twilio.com/docs/sendgrid/ui/analytics-and-reporting/bounce-and-block-classifications
INVALID_ADDRESS_CLASSIFICATION = "invalid address"
CLASSIFICATIONS: Final[Mapping[str, ErrorClass]] = {
    "invalid address": ErrorClass.HARD,
    "mailbox unavailable": ErrorClass.TRANSIENT,
    "technical": ErrorClass.CARRIER,
    "technical failure": ErrorClass.CARRIER,
    "content": ErrorClass.CONTENT,
    "reputation": ErrorClass.ACCOUNT,
    "frequency volume": ErrorClass.TRANSIENT,
    "frequency or volume too high": ErrorClass.TRANSIENT,
}

# What SendGrid says of the account itself, as an error code; "reactivate" is none.
ACCOUNT_ERRORS: Final = frozenset({"compliance_suspend", "compliance_deactivate", "compliance_ban"})

# The events whose status, reason or response speak of something that went wrong, and where the text of it is looked
# for, in this order. The table gives a deferral a reason, the examples and real deferrals have a response.
ERROR_TEXTS: Final[Mapping[str, tuple[str, ...]]] = {
    "dropped": ("reason",),
    "bounce": ("reason",),
    "deferred": ("response", "reason"),
}

# What tells two events of one message, word and second apart where there is no sg_event_id: of the fields that are the
# event's own, those that every event is asked for, and those of a few.
IDENTITY: Final = ("email", "timestamp", "url", "reason")
DISTINGUISHING: Final[Mapping[str, tuple[str, ...]]] = {
    "deferred": ("attempt",),
    "open": ("ip", "useragent"),
    "click": ("ip", "useragent"),
    "group_unsubscribe": ("asm_group_id",),
    "group_resubscribe": ("asm_group_id",),
}

# SendGrid spreads the sender's custom arguments over the event, beside its own fields. Where both have one name
# SendGrid's value wins, so a field is SendGrid's exactly where the event is one that has it: FIELDS says which has
# which. Each field has the attribute that it becomes; "" for those that normalize.py reads by name, and for those that
# say nothing worth keeping. All other names are the sender's.
# Parts of the table, in small letters since each of their entries counts where it is used.
_always: Final[Mapping[str, str]] = {
    "email": "",
    "timestamp": "",
    "event": "",
    "sg_event_id": "",
    "sg_message_id": "",
    "smtp-id": "smtp_id",
    "category": "",
    "unique_args": "",
    "custom_args": "",
    # Marketing Campaigns and accounts; the table leaves them out, the page's examples and real events have them.
    "mc_stats": "mc_stats",
    "sg_content_type": "content_type",
    "sg_template_id": "template_id",
    "sg_template_name": "template_name",
    "sg_user_id": "sg_user_id",
    "post_type": "post_type",
    "reseller_id": "reseller_id",
}
_group: Final[Mapping[str, str]] = {"asm_group_id": "asm_group_id"}
# The talk with the recipient's server. The table has ip and tls for fewer events than real payloads do.
_server: Final[Mapping[str, str]] = {"ip": "ip", "tls": "tls", "cert_err": "cert_err"}
_reader: Final[Mapping[str, str]] = {"ip": "ip", "useragent": "useragent"}

FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "processed": {**_always, **_group, "pool": ""},
    "dropped": {**_always, **_group, "reason": "", "status": "", "type": "drop_type"},
    "delivered": {**_always, **_group, **_server, "response": "response"},
    "deferred": {
        **_always,
        **_group,
        **_server,
        "response": "response",
        "reason": "",
        "attempt": "attempt",
        "domain": "domain",
        "from": "",
    },
    "bounce": {
        **_always,
        **_group,
        **_server,
        "reason": "",
        "status": "",
        "type": "",
        "bounce_classification": "bounce_classification",
    },
    "open": {**_always, **_group, **_reader, "sg_machine_open": "machine_open"},
    "click": {**_always, **_group, **_reader, "url": "url", "url_offset": "", "newsletter": ""},
    "spamreport": _always,
    "unsubscribe": {**_always, "newsletter": ""},
    "group_unsubscribe": {**_always, **_group, **_reader, "url": "url"},
    "group_resubscribe": {**_always, **_group, **_reader, "url": "url"},
    "account_status_change": {**_always, "type": "type"},
}

OTHERS_ARE_PARAMETERS = True

# Of an event that nothing here knows, whatever is SendGrid's anywhere is taken for SendGrid's, and only kept.
UNKNOWN_FIELDS: Final[Mapping[str, str]] = {
    **{name: attribute for fields in FIELDS.values() for name, attribute in fields.items()},
    "status": "status",
    "reason": "reason",
    "type": "type",
    "from": "from",
}

# SendGrid's as well in the events of a Single Send, which mc_stats marks.
SINGLE_SEND: Final[Mapping[str, str]] = {
    "template_id": "marketing_template_id",
    "template_version_id": "marketing_template_version_id",
    "template_hash": "marketing_template_hash",
    "phase_id": "phase_id",
    "send_at": "send_at",
}

# What the API calls an event that happens to a mail once, and the webhook's word for it. Its other events (opened,
# clicked, deferred, and those of subscriptions) have no id there, so that each would count beside its callback.
# https://www.twilio.com/docs/sendgrid/api-reference/email-activity/filter-messages-by-message-id
MAIL_EVENTS: Final[Mapping[str, str]] = {
    "processed": "processed",
    "dropped": "dropped",
    "delivered": "delivered",
    "bounced": "bounce",
    "spam_report": "spamreport",
}

# How a listed mail stands, and the event that follows from it. What was not delivered was bounced or dropped:
# activity.py tells the dropped ones apart. Why another bounced only the mail itself tells; here, that it was processed.
MAIL_STATUSES: Final[Mapping[str, str]] = {
    "processed": "processed",
    "delivered": "delivered",
    "not_delivered": "processed",
}

# The bounce_type of the API's events that is final: the webhook's type is "bounce" then, and else "blocked".
HARD_BOUNCE = "hard"

# The lists of suppressed addresses, by the last part of their addresses, and the event that puts an address there.
# https://www.twilio.com/docs/sendgrid/api-reference/bounces-api and its neighbours.
SUPPRESSIONS: Final[Mapping[str, str]] = {
    "bounces": "bounce",
    "blocks": "bounce",
    "invalid_emails": "dropped",
    "spam_reports": "spamreport",
    "unsubscribes": "unsubscribe",
    "group_unsubscribes": "group_unsubscribe",
}

# What the webhook's event says beyond the row: the type of a bounce, the reason of a drop.
SUPPRESSION_FIELDS: Final[Mapping[str, tuple[str, str]]] = {
    "bounces": ("type", "bounce"),
    "blocks": ("type", "blocked"),
    "invalid_emails": ("reason", "Invalid Address"),
}

# What the console's test button posts, and all examples of the page have: the first part of these mails' ids.
TEST_MESSAGE = "14c5d75ce93.dfd.64b469"
