"""The table of metrics: an entry each. What counts them is in ``metering``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of the catalogue. ``labels`` is the closed list of its dimensions. ``buckets`` are a histogram's, where
    those of its unit do not suit it."""

    name: str
    unit: str
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def catalogue() -> Mapping[str, Metric]:
    """Every metric by name."""
    return {value.name: value for value in globals().values() if isinstance(value, Metric)}


GRPC_CALLS = Metric(
    "backhaul_grpc_calls",
    "{call}",
    "Calls that a service has answered over gRPC, by how they ended (outcome: ok, cancelled, or the error's code).",
    ("method", "outcome"),
)
CERTIFICATE_EXPIRES = Metric(
    "backhaul_certificate_expires",
    "s",
    "When the certificate that is used expires, in Unix time: between services and towards servers (internal), and by "
    "the gateway towards its clients (https).",
    ("certificate",),
)
CERTIFICATE_REFUSED = Metric(
    "backhaul_certificate_refused",
    "{state}",
    "1 while the files hold a certificate that cannot be used, and the one before is; else 0.",
    ("certificate",),
)
CALLBACKS_ANSWERED = Metric(
    "backhaul_gateway_callbacks",
    "{callback}",
    "Callbacks by what the provider was answered (outcome: stored, held, handshake, or the reason of the refusal).",
    ("tenant", "channel", "outcome"),
)
CALLBACKS_UNVERIFIED = Metric(
    "backhaul_gateway_callbacks_unverified",
    "{callback}",
    "Callbacks whose signature was bad or missing, by mode (enforce refuses, observe accepts).",
    ("tenant", "channel", "mode", "reason"),
)
CALLBACKS_PLAIN = Metric(
    "backhaul_gateway_callbacks_plain",
    "{callback}",
    "Requests to post callbacks that came unencrypted while redirection is on.",
    ("tenant", "channel"),
)
INGEST_SECONDS = Metric(
    "backhaul_gateway_ingest_duration", "s", "From a callback's last byte to its answer; every sixteenth callback."
)
PUBLISH_SECONDS = Metric("backhaul_gateway_publish_duration", "s", "From a publish to JetStream's acknowledgement.")
PUBLISH_CALLBACKS = Metric("backhaul_gateway_publish_callbacks", "{callback}", "Callbacks stored by one publish.")
SENDS_STORED = Metric(
    "backhaul_gateway_sends",
    "{send}",
    "Sends that are stored, by what they tell of the message (status: sent, refused, not_generated).",
    ("tenant", "channel", "status"),
)
HTTP_REQUESTS = Metric("backhaul_gateway_requests", "{request}", "Requests other than ingest.", ("method", "status"))
RATE_LIMITED = Metric("backhaul_gateway_rate_limited", "{request}", "Requests over a tenant's limit.", ("tenant",))
QUEUED_BYTES = Metric("backhaul_gateway_queued_bytes", "By", "Bodies that are held until JetStream has them.")
TENANTS_DELETING = Metric(
    "backhaul_gateway_tenants_deleting", "{tenant}", "Tenants that are being deleted and not gone yet."
)
CONNECTIONS_OPEN = Metric("backhaul_gateway_connections", "{connection}", "Open connections of HTTP clients.")
CONNECTIONS_ENDED = Metric(
    "backhaul_gateway_connections_ended",
    "{connection}",
    "Connections that the gateway ended: the peer took too long (head, body, idle, read), there were too many (room, "
    "refused), or no TLS was agreed on (handshake).",
    ("reason",),
)
CALLBACK_LOG_FILL = Metric(
    "backhaul_gateway_callback_log_fill", "1", "The part of CALLBACKS that is taken; 0 when it has no limit."
)
CALLBACK_LOG_STORING = Metric(
    "backhaul_gateway_callback_log_storing",
    "{state}",
    "1 while CALLBACKS stores messages, as callbacks or a trial show; else 0.",
)
SPOOLED = Metric(
    "backhaul_gateway_spooled", "{callback}", "Callbacks that JetStream did not store, and that were kept on the disk."
)
SPOOL_DRAINED = Metric(
    "backhaul_gateway_spool_drained",
    "{callback}",
    "Callbacks that left the spool: stored by JetStream, or of a tenant that is deleted.",
    ("outcome",),
)
SPOOL_REFUSED = Metric(
    "backhaul_gateway_spool_refused",
    "{callback}",
    "Callbacks for which the spool, or their tenant's share, had no room.",
)
SPOOL_DAMAGED = Metric(
    "backhaul_gateway_spool_damaged", "{event}", "Damage found in the spool: rows, or the file as a whole.", ("what",)
)
SPOOL_CALLBACKS = Metric("backhaul_gateway_spool_callbacks", "{callback}", "Callbacks in the spool.")
SPOOL_FILL = Metric("backhaul_gateway_spool_fill", "1", "The part of the spool that is taken.")
SPOOL_AGE = Metric(
    "backhaul_gateway_spool_age", "s", "How long the oldest callback has been in the spool; 0 where none is."
)
HELD = Metric(
    "backhaul_gateway_held",
    "{callback}",
    "Callbacks over their tenant's rate or share, or of one that is suspended, that were kept on the disk.",
)
HELD_DRAINED = Metric(
    "backhaul_gateway_held_drained",
    "{callback}",
    "Callbacks that are held no more: stored by JetStream, or of a tenant that is deleted.",
    ("outcome",),
)
HELD_DAMAGED = Metric(
    "backhaul_gateway_held_damaged",
    "{event}",
    "Damage found in what is held: rows, or the file as a whole.",
    ("what",),
)
HELD_CALLBACKS = Metric("backhaul_gateway_held_callbacks", "{callback}", "Callbacks that are held.")
HELD_FILL = Metric("backhaul_gateway_held_fill", "1", "The part that is taken of the room for what is held.")
HELD_AGE = Metric("backhaul_gateway_held_age", "s", "How long the oldest callback has been held; 0 where none is.")
EVENT_STREAMS = Metric("backhaul_gateway_event_streams", "{stream}", "Open streams of events.")
STORE_REACHABLE = Metric("backhaul_gateway_store_reachable", "{state}", "1 while MongoDB's primary answers; else 0.")

CALLBACKS_NORMALIZED = Metric(
    "backhaul_normalizer_callbacks",
    "{callback}",
    "Callbacks taken from the stream and committed.",
    ("tenant", "channel"),
)
EVENTS_STORED = Metric("backhaul_normalizer_events", "{event}", "New events, by kind.", ("tenant", "channel", "kind"))
EVENTS_DUPLICATE = Metric(
    "backhaul_normalizer_events_duplicate", "{event}", "Events that were known already.", ("tenant", "channel")
)
EVENTS_LACKING = Metric(
    "backhaul_normalizer_events_lacking_parameters",
    "{event}",
    "New events without a parameter that their channel declares as required.",
    ("tenant", "channel"),
)
DEAD_LETTERS = Metric(
    "backhaul_normalizer_dead_letters",
    "{part}",
    "Callbacks, or parts of one, that could not be read.",
    ("tenant", "channel"),
)
PARTS_IGNORED = Metric(
    "backhaul_normalizer_parts_ignored",
    "{part}",
    "Parts of callbacks that tell nothing worth an event, such as that a person is typing, by the adapter's reason.",
    ("tenant", "channel", "reason"),
)
EXPIRED = Metric(
    "backhaul_normalizer_expired",
    "{document}",
    "What a tenant's retention has ended (what: events, members, messages, addresses, member_addresses).",
    ("tenant", "what"),
)
MEMBERS_TOLD = Metric(
    "backhaul_normalizer_members",
    "{member}",
    "Members that were told, by what became of them (outcome: added, changed, unchanged, refused).",
    ("tenant", "outcome"),
)
MESSAGES_LINKED = Metric(
    "backhaul_normalizer_links",
    "{message}",
    "Messages that became one of a member's, of another member's, or nobody's any more.",
)
BATCHES_COMPLETED = Metric(
    "backhaul_normalizer_batches_completed",
    "{batch}",
    "Batches of communications that this copy completed, by what completed them (by: condition, deadline).",
    ("tenant", "by"),
)
BATCHES_LINKED_LATE = Metric(
    "backhaul_normalizer_batches_linked_late",
    "{batch}",
    "Batches whose members this copy linked since whoever added some of them had died, or given up.",
    ("tenant",),
)
BATCH_SECONDS = Metric(
    "backhaul_normalizer_batch_duration", "s", "One batch: from decoding to the last acknowledgement."
)
BATCH_EVENTS = Metric("backhaul_normalizer_batch_events", "{event}", "Events in one batch.")
BATCH_RETRIES = Metric(
    "backhaul_normalizer_batch_retries", "{batch}", "Batches that were put back, by what was away.", ("reason",)
)
PARKED_MESSAGES = Metric(
    "backhaul_normalizer_parked", "{message}", "Messages whose tenants have no room for them in memory."
)
STREAM_FILL = Metric(
    "backhaul_normalizer_stream_fill",
    "1",
    "The part of EVENTS, and of NOTICES, that is taken; 0 where it has no limit.",
    ("stream",),
)
CALLBACKS_HELD = Metric(
    "backhaul_normalizer_callbacks_held",
    "{callback}",
    "Callbacks that were set aside, since their channel's are held.",
    ("tenant", "channel"),
)
CALLBACKS_RESUMED = Metric(
    "backhaul_normalizer_callbacks_resumed",
    "{callback}",
    "Callbacks that had been held and were given to be processed.",
    ("tenant", "channel"),
)
REPLAYED = Metric(
    "backhaul_normalizer_replayed",
    "{callback}",
    "Callbacks and dead letters that replays went through.",
    ("tenant",),
)
HELD_MESSAGES = Metric(
    "backhaul_normalizer_held", "{message}", "Messages of CALLBACKS that are held now, as every copy sees it."
)
MESSAGES_UNOWNED = Metric(
    "backhaul_normalizer_messages_unowned",
    "{message}",
    "Messages of CALLBACKS that were given up: nobody has their queue path, since its tenant was deleted.",
)
CALLBACK_LAG_SECONDS = Metric("backhaul_normalizer_lag", "s", "From a callback's arrival to its events being readable.")

SUPPRESSION_CHECKS = Metric(
    "backhaul_suppression_checks",
    "{address}",
    "Addresses that were asked about, by what was answered (verdict: allowed, suppressed, invalid).",
    ("tenant", "verdict"),
)
SUPPRESSIONS_ENFORCED = Metric(
    "backhaul_suppression_enforced",
    "{row}",
    "Rows that began to suppress by events and single calls, by kind, when every copy knew.",
    ("tenant", "kind"),
)
SUPPRESSIONS_LIFTED = Metric(
    "backhaul_suppression_lifted",
    "{row}",
    "Rows that were lifted by events and calls, by kind, when every copy knew.",
    ("tenant", "kind"),
)
_DAY_S = 86_400.0
SUPPRESSION_AGE_SECONDS = Metric(
    "backhaul_suppression_age_at_enforcement",
    "s",
    "From when it happened at its source to when every copy knew that a row suppresses.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 600, 3600, 6 * 3600, _DAY_S, 3 * _DAY_S, 7 * _DAY_S, 14 * _DAY_S),
)
SUPPRESSION_EVENTS = Metric(
    "backhaul_suppression_events",
    "{event}",
    "Events taken from EVENTS, by what they were (outcome: fact, nothing, gone, failed).",
    ("outcome",),
)
SUPPRESSION_BATCH_SECONDS = Metric(
    "backhaul_suppression_batch_duration", "s", "One batch of events: from decoding to the last acknowledgement."
)
SUPPRESSION_BATCH_RETRIES = Metric(
    "backhaul_suppression_batch_retries",
    "{batch}",
    "Batches of events that were put back, by what was away.",
    ("reason",),
)
SUPPRESSION_IMPORT_LINES = Metric(
    "backhaul_suppression_import_lines",
    "{line}",
    "Lines of imported lists, by what became of them (outcome: changed, unchanged, refused).",
    ("tenant", "outcome"),
)
SUPPRESSION_ADDRESSES = Metric(
    "backhaul_suppression_addresses", "{address}", "Addresses with rows that suppress, in the memory of this copy."
)
SUPPRESSION_CHANGES_APPLIED = Metric(
    "backhaul_suppression_changes_applied", "{change}", "Changes of rows that this copy took over, but for loading."
)
SUPPRESSION_LEASE_HELD = Metric(
    "backhaul_suppression_lease_held", "1", "1 while this copy may answer from memory; else 0."
)
SUPPRESSION_LEASE_LAPSES = Metric(
    "backhaul_suppression_lease_lapses", "{lapse}", "How often this copy's lease ran out before it was renewed."
)

AUDIT_EVENTS_FILED = Metric(
    "backhaul_audit_events", "{event}", "Events that lie in sealed audit files.", ("tenant", "channel")
)
AUDIT_EVENTS_REPEATED = Metric(
    "backhaul_audit_events_repeated",
    "{event}",
    "Events that EVENTS held again, and that were left out since they lie in a file already.",
    ("tenant", "channel"),
)
AUDIT_FILES_SEALED = Metric("backhaul_audit_files", "{file}", "Audit files that were sealed.", ("tenant", "channel"))
AUDIT_FILES_LOST = Metric(
    "backhaul_audit_files_lost",
    "{file}",
    "Audit files that cannot be made any more, since EVENTS no longer has their events.",
    ("tenant", "channel"),
)
AUDIT_BYTES_STORED = Metric(
    "backhaul_audit_bytes", "By", "Bytes of sealed audit files, as they are stored.", ("tenant", "channel")
)
AUDIT_UPLOADS_FAILED = Metric(
    "backhaul_audit_uploads_failed", "{upload}", "Uploads of audit files that failed, by the reason.", ("reason",)
)
AUDIT_WAITING_SECONDS = Metric(
    "backhaul_audit_waiting",
    "s",
    "For how long the oldest message of EVENTS waits that this copy has read and of which no sealed file is.",
)
AUDIT_HELD_BYTES = Metric(
    "backhaul_audit_held_bytes", "By", "What events take in this copy's memory that lie in no sealed file."
)
AUDIT_PILES_LAPSED = Metric(
    "backhaul_audit_piles_lapsed",
    "{channel}",
    "Channels whose own bucket is away for longer than memory lasts: their events are read again when it is back.",
)
AUDIT_BACKLOG = Metric("backhaul_audit_backlog", "{message}", "Messages of EVENTS behind what this copy has read.")
AUDIT_DIGESTS_SIGNED = Metric(
    "backhaul_audit_digests", "{digest}", "Digests that this copy has signed.", ("tenant", "chain")
)
AUDIT_DIGESTS_WAITING = Metric(
    "backhaul_audit_digests_waiting",
    "{digest}",
    "Digests that are signed, and not yet in the bucket: a hundred stands for more.",
)
AUDIT_FILES_DELETED = Metric(
    "backhaul_audit_files_deleted", "{file}", "Audit files deleted since their time is over.", ("tenant",)
)

RECONCILER_RECORDS = Metric(
    "backhaul_reconciler_records",
    "{record}",
    "Records of providers' APIs, by how they stood to what callbacks had told (outcome: known, missing, better, "
    "unreadable). Missing of all is the rate at which callbacks are lost.",
    ("tenant", "channel", "outcome"),
)
RECONCILER_CALLBACK_DELAY_SECONDS = Metric(
    "backhaul_reconciler_callback_delay",
    "s",
    "From when something happened, as the provider's API tells it, to when a callback told it; of days that are over.",
    buckets=(1, 2, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400),
)
RECONCILER_REQUESTS = Metric(
    "backhaul_reconciler_requests",
    "{request}",
    "Requests to providers' APIs, by how they ended (outcome: 2xx and so on, too_often, slow, unreadable, failed).",
    ("provider", "outcome"),
)
RECONCILER_CHANNELS = Metric(
    "backhaul_reconciler_channels",
    "{channel}",
    "Channels with credentials for their providers' APIs, by how it stands with asking them, as every copy sees it.",
    ("standing",),
)
RECONCILER_ACCOUNTS = Metric("backhaul_reconciler_accounts", "{account}", "Accounts that this copy is asking now.")
RECONCILER_LATE_SECONDS = Metric(
    "backhaul_reconciler_late",
    "s",
    "For how long the channel has been due that has waited longest, as every copy sees it.",
)

NOTIFIER_ENQUEUED = Metric(
    "backhaul_notifier_enqueued",
    "{delivery}",
    "Deliveries that began to wait: one for each event or notice and each subscription that it is told to, by type.",
    ("tenant", "type"),
)
NOTIFIER_LAG_SECONDS = Metric(
    "backhaul_notifier_lag",
    "s",
    "From when EVENTS or NOTICES stored a message to when its deliveries wait; the latest message of each transaction.",
)
NOTIFIER_BACKLOG = Metric(
    "backhaul_notifier_backlog",
    "{message}",
    "Messages of a stream behind what the copy has read that tells it; 0 at the other copies.",
    ("stream",),
)
NOTIFIER_PARKED = Metric(
    "backhaul_notifier_parked",
    "{tenant}",
    "Tenants who had more than their share of a stream while others waited, and are told apart until they have reached "
    "the others; 0 at the copies that do not tell it.",
    ("stream",),
)
NOTIFIER_MESSAGES_GIVEN_UP = Metric(
    "backhaul_notifier_messages_given_up",
    "{message}",
    "Messages of a stream that failed too often: nobody is told of what they bring.",
    ("stream",),
)
NOTIFIER_ATTEMPTS = Metric(
    "backhaul_notifier_attempts",
    "{attempt}",
    "Attempts to tell somebody, by where that goes (destination: http, mail) and by what became of it (outcome: 2xx "
    "and so on, ours, or a word for what went wrong, such as timeout).",
    ("tenant", "destination", "outcome"),
)
NOTIFIER_ATTEMPT_SECONDS = Metric(
    "backhaul_notifier_attempt_duration",
    "s",
    "How long an attempt took, whatever became of it.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120),
)
NOTIFIER_DELAY_SECONDS = Metric(
    "backhaul_notifier_delay",
    "s",
    "From when a delivery fell due to when it was sent; of several in one call the first.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400),
)
NOTIFIER_ENDED = Metric(
    "backhaul_notifier_deliveries_ended",
    "{delivery}",
    "Deliveries that are over, by how they ended (outcome: delivered, failed).",
    ("tenant", "outcome"),
)
NOTIFIER_WAITING = Metric(
    "backhaul_notifier_waiting",
    "{delivery}",
    "Deliveries that wait, as every copy sees it, those of paused endpoints included; 100,000 stands for more.",
)
NOTIFIER_ENDPOINTS = Metric(
    "backhaul_notifier_endpoints",
    "{endpoint}",
    "Endpoints, as every copy sees it, by how it stands with them (standing: good, failing, resting, and stopped: "
    "paused or disabled).",
    ("standing",),
)
NOTIFIER_ENDPOINTS_HELD = Metric(
    "backhaul_notifier_endpoints_held",
    "{endpoint}",
    "Endpoints that this copy works, by what they do (doing: working, hanging: it waits for its calls, resting).",
    ("doing",),
)
NOTIFIER_CALLS = Metric(
    "backhaul_notifier_calls",
    "{call}",
    "Calls of endpoints that are under way, each over one of the copy's connections.",
)
NOTIFIER_LATE_SECONDS = Metric(
    "backhaul_notifier_late",
    "s",
    "For how long the endpoint has had something due that no copy works and has waited longest, as every copy sees it.",
)
