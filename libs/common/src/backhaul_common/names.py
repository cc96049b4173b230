"""The only place where subjects, streams, collections and channel keys are named."""

from __future__ import annotations

import re
from collections.abc import Mapping

from backhaul_common.errors import BackhaulError, Code

CALLBACKS_STREAM = "CALLBACKS"
EVENTS_STREAM = "EVENTS"
NOTICES_STREAM = "NOTICES"
STREAMS = (CALLBACKS_STREAM, EVENTS_STREAM, NOTICES_STREAM)

TENANT_CHANGED_SUBJECT = "backhaul.tenants.changed"
"""Core NATS; the payload is the id of the tenant that was written or deleted."""

SERVICE_CHANGED_SUBJECT = "backhaul.services.changed"
"""Core NATS; the payload is the id of the service account that was written or deleted."""

AGAIN_HEADER = "Backhaul-Again"
"""Stands, with 1, on a message of EVENTS whose events may have been published before."""

ANEW_METADATA = "backhaul-anew"
"""Of a durable consumer: the last position that its stream had when the consumer was made."""

NORMALIZER_CONSUMER = "normalizer"
"""The durable consumer on CALLBACKS; all copies of the normalizer share it."""

CALLBACKS_SUBJECTS = "callbacks.>"
"""Everything in CALLBACKS, as a filter."""

CANARY_SUBJECT = "callbacks.$canary"
"""Under it a gateway stores, and deletes at once, what proves that CALLBACKS takes messages. No queue path has a $."""

HELD_SUFFIX = ".$held"
"""Ends the subject of callbacks that are held: they lie in CALLBACKS as long as it takes, and nobody processes them or
deletes them to make room. No channel's key has a $."""

HELD_SUBJECTS = f"callbacks.*.*{HELD_SUFFIX}"
"""All that is held, as a filter."""

NOT_HELD_SUBJECTS = "callbacks.*.*"
"""All callbacks that are not held, as a filter: those that are processed, or will be as they come."""

CODED_KINDS = frozenset({
    "unknown", "undelivered", "failed", "rejected", "bounced", "deferred", "canceled", "expired",
    "blocked_credit", "duplicate_blocked", "busy", "no_answer",
})  # fmt: skip
"""Kinds of events that can carry a provider's error code. Their subjects end in it, so that one code can be consumed
alone: JetStream filters by subject, and one message holds many events."""

NO_CODE = "none"
"""In place of the code of an event that has none."""

OTHER_CODE = "other"
"""In place of a code that has no subject of its own."""

MAX_CODE = 32
"""Characters of a code in a subject. Providers' are 3 to 12 long."""

TENANTS_COLLECTION = "tenants"
EVENTS_COLLECTION = "events"
"""Buckets of events."""

ENTRIES_COLLECTION = "event_entries"
"""What is stored of an event besides its place in a bucket, where more than its message leads to it."""

MESSAGES_COLLECTION = "messages"
JOINS_COLLECTION = "joins"
COUNTS_COLLECTION = "counts"
"""How many events, messages and replies there were, by communication, channel and day."""

COMMUNICATIONS_COLLECTION = "communications"
BATCHES_COLLECTION = "batches"
BATCH_COUNTS_COLLECTION = "batch_counts"
"""How many destinations of a batch are in which state."""

MEMBERS_COLLECTION = "members"
DEAD_LETTERS_COLLECTION = "dead_letters"
QUOTAS_COLLECTION = "quotas"
"""Which of a tenant's quotas are reached, so that it is said once."""

RETENTION_COLLECTION = "retention"
"""How far the end of what tenants keep has come."""

CHANNEL_ACTIVITY_COLLECTION = "channel_activity"
"""When something was last sent, and last heard, on each channel."""

NORMALIZER_ERASURES_COLLECTION = "normalizer_erasures"
"""Who is erased, by hashes, as long as the streams may bring them again. Each service that erases has its own."""

NOTIFIER_ERASURES_COLLECTION = "notifier_erasures"

REPLAYS_COLLECTION = "replays"
"""Replays that are asked for: how far each is, and which copy of the normalizer works it."""

NORMALIZER_OUTBOX = "normalizer_outbox"
"""What the normalizer has still to publish beside events. Every service with an outbox has a collection of its own."""

SUPPRESSIONS_COLLECTION = "suppressions"
SUPPRESSION_FACTS_COLLECTION = "suppression_facts"
SUPPRESSION_CHANGES_COLLECTION = "suppression_changes"
SUPPRESSION_COUNTERS_COLLECTION = "suppression_counters"
SUPPRESSION_COPIES_COLLECTION = "suppression_copies"
"""The copies of suppression that may answer from memory, and how far each of them is."""

SUPPRESSION_OUTBOX = "suppression_outbox"

SUPPRESSION_CONSUMER = "suppression"
"""The durable consumer on EVENTS; all copies of suppression share it."""

SUPPRESSION_CHANGED_SUBJECT = "backhaul.suppression.changed"
"""Core NATS: rows of suppression were changed, and whoever holds them in memory looks at once."""

SUPPRESSION_APPLIED_SUBJECT = "backhaul.suppression.applied"
"""Core NATS: a copy of suppression has taken changes over."""

AUDIT_POSITION_COLLECTION = "audit_position"
"""How far EVENTS lies in sealed files, who is filing it, and how it stands with what is in none yet."""

AUDIT_FILES_COLLECTION = "audit_files"
"""Files: planned, sealed, and deleted."""

AUDIT_CONTENTS_COLLECTION = "audit_contents"
"""Which events lie in which file."""

AUDIT_CHAINS_COLLECTION = "audit_chains"
"""How far each chain of files is, and each of its piles."""

AUDIT_DIGESTS_COLLECTION = "audit_digests"
AUDIT_KEYS_COLLECTION = "audit_keys"
AUDIT_AGAIN_COLLECTION = "audit_again"
"""Events that EVENTS may hold twice, for an hour: see docs/decisions/0025."""

AUDIT_PEOPLE_COLLECTION = "audit_people"
"""Keys of people, with which what is personal is encrypted in files."""

AUDIT_OUTBOX = "audit_outbox"

RECONCILED_CHANNELS_COLLECTION = "reconciled_channels"
"""Channels whose providers have an API: when each is due, and how far it has been asked."""

RECONCILED_ACCOUNTS_COLLECTION = "reconciled_accounts"
"""Accounts at providers, and which copy of the reconciler is asking each."""

RECONCILED_RUNS_COLLECTION = "reconciled_runs"
RECONCILED_DIFFERENCES_COLLECTION = "reconciled_differences"
RECONCILED_DAYS_COLLECTION = "reconciled_days"
RECONCILED_SEEN_COLLECTION = "reconciled_seen"
"""Which messages the provider lists of days that are being compared."""

SUBSCRIPTIONS_COLLECTION = "subscriptions"
ENDPOINTS_COLLECTION = "endpoints"
"""Where the deliveries of subscriptions go, and which copy of the notifier works each."""

DELIVERIES_COLLECTION = "deliveries"
NOTIFIER_POSITIONS_COLLECTION = "notifier_positions"
"""How far EVENTS and NOTICES are told, and the version of all subscriptions."""

NOTIFIER_OUTBOX = "notifier_outbox"

SWITCHED_COLLECTION = "switched_communications"
"""Communications that are disabled, or were, and what the notifier holds back on behalf of them."""

NOTICES_WANTED_COLLECTION = "notices_wanted"
"""Which notices a tenant's subscriptions want, of those that are written only then."""

SUBSCRIPTION_CHANGED_SUBJECT = "backhaul.subscriptions.changed"
"""Core NATS: the id of a subscription that was written or deleted."""

DELIVERIES_DUE_SUBJECT = "backhaul.deliveries.due"
"""Core NATS: ids of subscriptions, joined by blanks, for which something was added to what waits. With
``LOOK_MARK`` behind it, one whose endpoint was changed otherwise: what is to be sent again, or at which rate."""

LOOK_MARK = "!"
"""Behind an id in DELIVERIES_DUE_SUBJECT: whoever holds the endpoint is to look at its document."""

COMMUNICATION_SWITCHED_SUBJECT = "backhaul.communications.switched"
"""Core NATS: the id of a document of SWITCHED_COLLECTION that was written or deleted."""

SERVICES_COLLECTION = "services"
"""Service accounts: who may call services over gRPC, and what for."""

CHANGES_COLLECTION = "changes"
"""Who changed what through the gateway."""

CONSOLE_SESSIONS_COLLECTION = "console_sessions"
"""Who is signed in to the gateway's console."""

META_COLLECTION = "meta"
"""What is stored about the database itself: the number of its format."""

STORE_COLLECTIONS = frozenset({
    TENANTS_COLLECTION,
    SERVICES_COLLECTION,
    CHANGES_COLLECTION,
    CONSOLE_SESSIONS_COLLECTION,
    EVENTS_COLLECTION,
    ENTRIES_COLLECTION,
    MESSAGES_COLLECTION,
    JOINS_COLLECTION,
    COUNTS_COLLECTION,
    COMMUNICATIONS_COLLECTION,
    BATCHES_COLLECTION,
    BATCH_COUNTS_COLLECTION,
    MEMBERS_COLLECTION,
    DEAD_LETTERS_COLLECTION,
    QUOTAS_COLLECTION,
    RETENTION_COLLECTION,
    CHANNEL_ACTIVITY_COLLECTION,
    NORMALIZER_ERASURES_COLLECTION,
    NOTIFIER_ERASURES_COLLECTION,
    REPLAYS_COLLECTION,
    NORMALIZER_OUTBOX,
    SUPPRESSIONS_COLLECTION,
    SUPPRESSION_FACTS_COLLECTION,
    SUPPRESSION_CHANGES_COLLECTION,
    SUPPRESSION_COUNTERS_COLLECTION,
    SUPPRESSION_COPIES_COLLECTION,
    SUPPRESSION_OUTBOX,
    AUDIT_POSITION_COLLECTION,
    AUDIT_FILES_COLLECTION,
    AUDIT_CONTENTS_COLLECTION,
    AUDIT_CHAINS_COLLECTION,
    AUDIT_DIGESTS_COLLECTION,
    AUDIT_KEYS_COLLECTION,
    AUDIT_AGAIN_COLLECTION,
    AUDIT_PEOPLE_COLLECTION,
    AUDIT_OUTBOX,
    RECONCILED_CHANNELS_COLLECTION,
    RECONCILED_ACCOUNTS_COLLECTION,
    RECONCILED_RUNS_COLLECTION,
    RECONCILED_DIFFERENCES_COLLECTION,
    RECONCILED_DAYS_COLLECTION,
    RECONCILED_SEEN_COLLECTION,
    SUBSCRIPTIONS_COLLECTION,
    ENDPOINTS_COLLECTION,
    DELIVERIES_COLLECTION,
    NOTIFIER_POSITIONS_COLLECTION,
    NOTIFIER_OUTBOX,
    SWITCHED_COLLECTION,
    NOTICES_WANTED_COLLECTION,
})  # fmt: skip
"""All that Backhaul keeps in its database; a database with any of them has a format number."""

TENANT_ID_PATTERN = "[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?"
QUEUE_PATH_PATTERN = "[A-Za-z0-9_-]{1,64}"
_NOTICE_TYPE = re.compile(r"[a-z_]{1,32}\.[a-z_]{1,32}")
_NOT_IN_CODES = re.compile(r"[^A-Za-z0-9_-]")
_KEY = re.compile(r"[a-z0-9_-]{1,64}")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 _-]{0,62}[A-Za-z0-9])?")


def check_tenant_id(value: str, *, field: str = "id") -> str:
    """``value`` if it can be a tenant's id; otherwise INVALID_ARGUMENT."""
    if not re.fullmatch(TENANT_ID_PATTERN, value):
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "A tenant id is 1 to 64 lower-case letters, digits, dashes and underscores, and starts and ends with a "
            "letter or digit.",
            field=field,
            fix="Choose another id.",
        )
    return value


def check_queue_path(value: str, *, field: str = "queue_path") -> str:
    """``value`` if it can be a queue path (one subject token); otherwise INVALID_ARGUMENT."""
    if not re.fullmatch(QUEUE_PATH_PATTERN, value):
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "A queue path is 1 to 64 letters, digits, dashes and underscores.",
            field=field,
            fix="Choose another queue path; dots, blanks and wildcards cannot be part of it.",
        )
    return value


def check_label(value: str, *, field: str = "label") -> str:
    """``value`` if it can be a channel's label; otherwise INVALID_ARGUMENT."""
    if not _LABEL.fullmatch(value):
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "A channel label is 1 to 64 letters, digits, blanks, dashes and underscores, and starts and ends with a "
            "letter or digit.",
            field=field,
            fix="Choose another label, for example Twilio or Outbound Delivery.",
        )
    return value


def channel_key(label: str) -> str:
    """The canonical key of a channel's label: labels that differ in case or in blank against dash are one channel."""
    return label.lower().replace(" ", "-")


def queue_path_key(queue_path: str) -> str:
    """What must be unique across tenants: queue paths that differ only in case are one."""
    return queue_path.lower()


def callbacks_subject(queue_path: str, channel: str) -> str:
    """Where callbacks of a tenant's channel are stored. ``channel`` is a key."""
    return f"callbacks.{queue_path_key(queue_path)}.{channel}"


def callbacks_of(queue_path: str) -> str:
    """All callbacks of a tenant, as a filter."""
    return f"callbacks.{queue_path_key(queue_path)}.>"


def callbacks_not_held_of(queue_path: str) -> str:
    """Those of a tenant's callbacks that are not held, as a filter."""
    return f"callbacks.{queue_path_key(queue_path)}.*"


def held_subject(queue_path: str, channel: str) -> str:
    """Where held callbacks of a tenant's channel lie. ``channel`` is a key."""
    return callbacks_subject(queue_path, channel) + HELD_SUFFIX


def code_token(code: str) -> str:
    """A provider's error code as one token of a subject: ``5.1.1`` is ``5-1-1``, none at all is ``none``.

    What is not a letter, digit, dash or underscore becomes an underscore. What is longer than MAX_CODE is ``other``.
    """
    if len(code) > MAX_CODE:
        return OTHER_CODE
    return _NOT_IN_CODES.sub("_", code.replace(".", "-")) or NO_CODE


def events_subject(queue_path: str, channel: str, kind: str, code: str = "") -> str:
    """Where events of a tenant's channel are published. ``channel`` is a key; ``code`` counts for CODED_KINDS only."""
    subject = f"events.{queue_path_key(queue_path)}.{channel}.{kind}"
    return f"{subject}.{code_token(code)}" if kind in CODED_KINDS else subject


def events_of(queue_path: str, channel: str = "", kind: str = "") -> str:
    """All events of a tenant, as a filter; those of one ``channel``, and of one ``kind``, where they are given.

    ``channel`` is a key. What cannot be one leaves the filter as wide as none: it could be anything in a subject.
    """
    of_channel = channel if _KEY.fullmatch(channel) else "*"
    if kind:
        return f"events.{queue_path_key(queue_path)}.{of_channel}.{kind}{'.*' if kind in CODED_KINDS else ''}"
    return f"events.{queue_path_key(queue_path)}.{'>' if of_channel == '*' else f'{of_channel}.>'}"


def notices_subject(queue_path: str, notice_type: str) -> str:
    """Where notices of a tenant are published. A type's two words are two tokens. ValueError where it is no type."""
    if not _NOTICE_TYPE.fullmatch(notice_type):
        raise ValueError(f"A notice's type is two words of lower-case letters and underscores, not {notice_type!r}.")
    return f"notices.{queue_path_key(queue_path)}.{notice_type}"


def notices_of(queue_path: str) -> str:
    """All notices of a tenant, as a filter."""
    return f"notices.{queue_path_key(queue_path)}.>"


def streams_of(queue_path: str) -> Mapping[str, str]:
    """All that the streams hold of a tenant: a filter for each stream, by its name."""
    return {
        CALLBACKS_STREAM: callbacks_of(queue_path),
        EVENTS_STREAM: events_of(queue_path),
        NOTICES_STREAM: notices_of(queue_path),
    }
