"""What each service may do in MongoDB and NATS, and nothing else: one row a service.

``tests/test_tls.py`` runs every service under these rights, and ``tests/test_rights.py`` holds the rows to what their
code names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backhaul_common import names

SERVICES = ("gateway", "normalizer", "suppression", "audit", "reconciler", "notifier")

COMMON_READS = (names.TENANTS_COLLECTION, names.SERVICES_COLLECTION, names.NOTICES_WANTED_COLLECTION)
"""Collections of one service that others read as well."""

COMMON_HEARS = (names.TENANT_CHANGED_SUBJECT, names.SERVICE_CHANGED_SUBJECT)

_READ = ("find", "listIndexes", "collStats", "killCursors")
_WRITE = ("insert", "update", "remove", "createCollection", "createIndex", "dropIndex")


@dataclass(frozen=True, kw_only=True)
class Rights:
    """collections: that it writes. logs: whether it adds what service accounts change to the log of changes, which is
    the gateway's. publishes, hears: subjects. consumes: streams that it reads. purges: whether it deletes messages from
    streams."""

    collections: tuple[str, ...]
    publishes: tuple[str, ...]
    hears: tuple[str, ...] = ()
    consumes: tuple[str, ...] = ()
    purges: bool = False
    logs: bool = False


_CALLBACKS, _EVENTS, _NOTICES = (f"{stream.lower()}.>" for stream in names.STREAMS)

RIGHTS: Mapping[str, Rights] = {
    "gateway": Rights(
        collections=(
            names.TENANTS_COLLECTION,
            names.SERVICES_COLLECTION,
            names.CHANGES_COLLECTION,
            names.CONSOLE_SESSIONS_COLLECTION,
        ),
        publishes=(_CALLBACKS, names.TENANT_CHANGED_SUBJECT, names.SERVICE_CHANGED_SUBJECT),
        consumes=names.STREAMS,
        purges=True,
    ),
    "normalizer": Rights(
        collections=(
            names.EVENTS_COLLECTION,
            names.ENTRIES_COLLECTION,
            names.MESSAGES_COLLECTION,
            names.JOINS_COLLECTION,
            names.COUNTS_COLLECTION,
            names.COMMUNICATIONS_COLLECTION,
            names.BATCHES_COLLECTION,
            names.BATCH_COUNTS_COLLECTION,
            names.MEMBERS_COLLECTION,
            names.DEAD_LETTERS_COLLECTION,
            names.QUOTAS_COLLECTION,
            names.RETENTION_COLLECTION,
            names.CHANNEL_ACTIVITY_COLLECTION,
            names.NORMALIZER_ERASURES_COLLECTION,
            names.NORMALIZER_OUTBOX,
            names.REPLAYS_COLLECTION,
        ),
        publishes=(_CALLBACKS, _EVENTS, _NOTICES),
        consumes=(names.CALLBACKS_STREAM,),
        purges=True,
    ),
    "suppression": Rights(
        collections=(
            names.SUPPRESSIONS_COLLECTION,
            names.SUPPRESSION_FACTS_COLLECTION,
            names.SUPPRESSION_CHANGES_COLLECTION,
            names.SUPPRESSION_COUNTERS_COLLECTION,
            names.SUPPRESSION_COPIES_COLLECTION,
            names.SUPPRESSION_OUTBOX,
        ),
        publishes=(_NOTICES, names.SUPPRESSION_CHANGED_SUBJECT, names.SUPPRESSION_APPLIED_SUBJECT),
        hears=(names.SUPPRESSION_CHANGED_SUBJECT, names.SUPPRESSION_APPLIED_SUBJECT),
        consumes=(names.EVENTS_STREAM,),
        logs=True,
    ),
    "audit": Rights(
        collections=(
            names.AUDIT_POSITION_COLLECTION,
            names.AUDIT_FILES_COLLECTION,
            names.AUDIT_CONTENTS_COLLECTION,
            names.AUDIT_CHAINS_COLLECTION,
            names.AUDIT_DIGESTS_COLLECTION,
            names.AUDIT_KEYS_COLLECTION,
            names.AUDIT_AGAIN_COLLECTION,
            names.AUDIT_PEOPLE_COLLECTION,
            names.AUDIT_OUTBOX,
        ),
        publishes=(_NOTICES,),
        consumes=(names.EVENTS_STREAM,),
        logs=True,
    ),
    "reconciler": Rights(
        collections=(
            names.RECONCILED_CHANNELS_COLLECTION,
            names.RECONCILED_ACCOUNTS_COLLECTION,
            names.RECONCILED_RUNS_COLLECTION,
            names.RECONCILED_DIFFERENCES_COLLECTION,
            names.RECONCILED_DAYS_COLLECTION,
            names.RECONCILED_SEEN_COLLECTION,
        ),
        publishes=(_CALLBACKS,),
        logs=True,
    ),
    "notifier": Rights(
        collections=(
            names.SUBSCRIPTIONS_COLLECTION,
            names.ENDPOINTS_COLLECTION,
            names.DELIVERIES_COLLECTION,
            names.NOTIFIER_POSITIONS_COLLECTION,
            names.NOTIFIER_OUTBOX,
            names.NOTIFIER_ERASURES_COLLECTION,
            names.SWITCHED_COLLECTION,
            names.NOTICES_WANTED_COLLECTION,
        ),
        publishes=(
            _NOTICES,
            names.SUBSCRIPTION_CHANGED_SUBJECT,
            names.DELIVERIES_DUE_SUBJECT,
            names.COMMUNICATION_SWITCHED_SUBJECT,
        ),
        hears=(
            names.SUBSCRIPTION_CHANGED_SUBJECT,
            names.DELIVERIES_DUE_SUBJECT,
            names.COMMUNICATION_SWITCHED_SUBJECT,
        ),
        consumes=(names.EVENTS_STREAM, names.NOTICES_STREAM),
        logs=True,
    ),
}


def privileges(rights: Rights, database: str) -> list[dict[str, Any]]:
    """Of a MongoDB role, as ``createRole`` takes them."""

    def on(collection: str, *actions: str) -> dict[str, Any]:
        return {"resource": {"db": database, "collection": collection}, "actions": list(actions)}

    return [
        # Which collections there are tells whether the database has a format; how long transactions live, when a
        # deleted tenant's are over.
        on("", "listCollections"),
        {"resource": {"cluster": True}, "actions": ["getParameter"]},
        on(names.META_COLLECTION, *_READ, "insert", "createCollection"),
        *(on(one, *_READ) for one in COMMON_READS if one not in rights.collections),
        *(on(one, *_READ, *_WRITE) for one in rights.collections),
        *([on(names.CHANGES_COLLECTION, "insert", "update")] if rights.logs else []),
    ]


def permissions(rights: Rights) -> dict[str, Any]:
    """Of a NATS user. Every service makes the streams and keeps them in line; none deletes one."""
    api = "$JS.API"
    publish = [
        *rights.publishes,
        f"{api}.INFO",
        f"{api}.STREAM.NAMES",
        *(f"{api}.STREAM.{verb}.{stream}" for stream in names.STREAMS for verb in ("INFO", "CREATE", "UPDATE")),
    ]
    for stream in rights.consumes:
        publish += [
            *(
                f"{api}.CONSUMER.{verb}.{stream}.>"
                for verb in ("CREATE", "DURABLE.CREATE", "INFO", "DELETE", "MSG.NEXT")
            ),
            f"{api}.CONSUMER.CREATE.{stream}",
            f"{api}.CONSUMER.NAMES.{stream}",
            f"{api}.CONSUMER.LIST.{stream}",
            f"{api}.STREAM.MSG.GET.{stream}",
            f"{api}.DIRECT.GET.{stream}",
            f"{api}.DIRECT.GET.{stream}.>",
            f"$JS.ACK.{stream}.>",
            f"$JS.FC.{stream}.>",
        ]
        if rights.purges:
            publish += [f"{api}.STREAM.PURGE.{stream}", f"{api}.STREAM.MSG.DELETE.{stream}"]
    return {"publish": publish, "subscribe": ["_INBOX.>", *COMMON_HEARS, *rights.hears]}


def nats_config(
    passwords: Mapping[str, str], *, listen: str, store: str, monitor: str = "", tls: Mapping[str, Any] | None = None
) -> str:
    """nats-server's configuration; JSON is valid in its format. ``passwords`` are by user. With ``tls``, its setting of
    that name, a client is who its certificate says, and what it may do follows from that."""
    users = [
        {"user": name, "password": passwords[name], "permissions": permissions(rights)}
        for name, rights in RIGHTS.items()
    ]
    config = {
        "listen": listen,
        "server_name": "backhaul",
        # Larger than the largest callback that a tenant may be allowed.
        "max_payload": 8 << 20,
        "authorization": {"users": users},
        "jetstream": {"store_dir": store, "max_file_store": 10 << 30, "sync_interval": "always"},
        **({"http": monitor} if monitor else {}),
        **({"tls": tls} if tls else {}),
    }
    return json.dumps(config, indent=1) + "\n"
