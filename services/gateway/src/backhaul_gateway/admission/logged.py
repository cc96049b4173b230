"""Which changes are logged: the second table of the gateway's routes.

**Who adds a route that is not GET adds it here**, beside its row in ``ROUTES``: to ``LOGGED``, or to ``UNLOGGED`` with
the reason. One that is in neither is closed to everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from backhaul_common import changelog

from backhaul_gateway.admission.access import POST_EVENTS

Stored = Literal["tenant", "service", ""]


@dataclass(frozen=True, slots=True)
class Logged(changelog.Logged):
    """What an entry says of a change by one route.

    Of what the gateway keeps itself (``stored``: in tenants, or in service accounts) an entry has the state before and
    after, and that a secret was sent. Of all else it has the request's body.
    """

    stored: Stored = ""


def _of(kind: str, shows: str = "", hides: str = "", *, stored: Stored = "") -> Logged:
    return Logged(kind, frozenset(shows.split()), frozenset(hides.split()), stored=stored)


_TENANT = _of("tenant", stored="tenant")
_KEY = _of("key", stored="tenant")
_CHANNEL = _of("channel", hides="secrets pull_credentials audit_credentials", stored="tenant")
_SERVICE = _of("service", stored="service")
_TOKEN = _of("token", stored="service")

_SAID = "kind family scope source effective_at evidence.source evidence.at"
# A note, and what somebody is quoted with, may hold anything.
_PERSON = "address note evidence.reference evidence.text"
_SUPPRESSED = _of("suppression", _SAID, _PERSON)
_PERSON_ERASED = _of("recipient", hides="address")
_DEFINED = (
    "name types filter.channels filter.communication_ids filter.error_codes filter.kinds http.method http.url payload "
    "policy ordering rate_per_s concurrency mail.every_minutes revision"
)
_PRIVATE = "filter.attributes http.headers http.credentials mail.addresses alert_addresses secret"
_SUBSCRIPTION = _of("subscription", _DEFINED, _PRIVATE)
_COMMUNICATION = _of("communication", "name mode channel deadline_hours completes_on", "notify environments")
_SWITCHED = _of("communication", "", "reason author")
_REDELIVERED = "which from to types channel message_id communication event_id rate_per_s dry_run"

LOGGED: Mapping[str, Logged] = MappingProxyType(
    {
        # Tenants: what was brought back.
        "POST /v1/replies/{reply_id}/accept": _of("reply"),
        "POST /v1/replies/{reply_id}/dismiss": _of("reply"),
        "POST /v1/dead-letters/{dead_letter_id}/replay": _of("dead_letter"),
        "POST /v1/dead-letters/{dead_letter_id}/discard": _of("dead_letter"),
        "POST /v1/dead-letters/replay": _of("replay", "channel from to dry_run", "reason"),
        "POST /v1/dead-letters/discard": _of("replay", "channel from to dry_run", "reason"),
        "POST /v1/replays": _of("replay", "channel from to dry_run rate_per_s"),
        "POST /v1/replays/{replay_id}/cancel": _of("replay"),
        # Tenants: what they manage of their own.
        "POST /v1/keys": _KEY,
        "DELETE /v1/keys/{key_id}": _KEY,
        "PUT /v1/channels/{label}": _CHANNEL,
        "DELETE /v1/channels/{label}": _CHANNEL,
        # Tenants: what they send.
        "PUT /v1/communications/{communication_id}": _COMMUNICATION,
        "POST /v1/communications/{communication_id}/disable": _SWITCHED,
        "POST /v1/communications/{communication_id}/enable": _SWITCHED,
        "PUT /v1/communications/{communication_id}/batches/{batch_id}": _of("batch", "label expected_members deadline"),
        "POST /v1/batches/{batch_id}/close": _of("batch"),
        # Tenants: who must not be contacted.
        "POST /v1/suppressions": _SUPPRESSED,
        "POST /v1/suppressions/lift": _SUPPRESSED,
        "POST /v1/suppressions/reactivate": _SUPPRESSED,
        "POST /v1/suppressions/import": Logged("suppression_list", file=True),
        # Tenants: what was filed.
        "POST /v1/audits/erasures": _PERSON_ERASED,
        "DELETE /v1/recipients/{address}": _PERSON_ERASED,
        # Tenants: what providers were asked.
        "POST /v1/reconciliation/runs": _of("reconciliation", "channel from to dry_run"),
        # Tenants: what their applications are told.
        "POST /v1/subscriptions": _SUBSCRIPTION,
        "PUT /v1/subscriptions/{subscription_id}": _SUBSCRIPTION,
        "DELETE /v1/subscriptions/{subscription_id}": _of("subscription"),
        "POST /v1/subscriptions/{subscription_id}/pause": _of("subscription"),
        "POST /v1/subscriptions/{subscription_id}/resume": _of("subscription", "rate_per_s"),
        "POST /v1/subscriptions/{subscription_id}/rotate-secret": _of("subscription", "kind grace_s", "secret"),
        "POST /v1/subscriptions/{subscription_id}/redeliver": _of("delivery", _REDELIVERED),
        "POST /v1/deliveries/{delivery_id}/redeliver": _of("delivery"),
        # The platform team.
        "POST /admin/v1/tenants": _TENANT,
        "PATCH /admin/v1/tenants/{tenant_id}": _TENANT,
        "DELETE /admin/v1/tenants/{tenant_id}": _TENANT,
        "POST /admin/v1/tenants/{tenant_id}/keys": _KEY,
        "DELETE /admin/v1/tenants/{tenant_id}/keys/{key_id}": _KEY,
        "PUT /admin/v1/tenants/{tenant_id}/channels/{label}": _CHANNEL,
        "DELETE /admin/v1/tenants/{tenant_id}/channels/{label}": _CHANNEL,
        "POST /admin/v1/tenants/{tenant_id}/suppressions": _SUPPRESSED,
        "POST /admin/v1/tenants/{tenant_id}/suppressions/lift": _SUPPRESSED,
        "POST /admin/v1/tenants/{tenant_id}/dead-letters/replay": _of("replay", "channel from to dry_run", "reason"),
        "POST /admin/v1/tenants/{tenant_id}/dead-letters/discard": _of("replay", "channel from to dry_run", "reason"),
        "POST /admin/v1/tenants/{tenant_id}/replays/{replay_id}/cancel": _of("replay"),
        "POST /admin/v1/services": _SERVICE,
        "PATCH /admin/v1/services/{service_id}": _SERVICE,
        "DELETE /admin/v1/services/{service_id}": _SERVICE,
        "POST /admin/v1/services/{service_id}/tokens": _TOKEN,
        "DELETE /admin/v1/services/{service_id}/tokens/{token_id}": _TOKEN,
        "POST /admin/v1/audit-keys/rotate": _of("audit_key"),
        "POST /admin/v1/secret-keys/rotate": _of("secret_keys"),
        # A document is as large as what it describes: what it changes has entries of its own, as ``PARTS`` says.
        "POST /admin/v1/apply": _of("configuration", "version next_cursor", "tenants secrets"),
    }
)
"""What is logged of each route by which somebody changes something, by method and path."""

PARTS: Mapping[str, Logged] = MappingProxyType({"tenant": _TENANT, "channel": _CHANNEL, "subscription": _SUBSCRIPTION})
"""What is logged of each of many things that one request changes, by its kind."""

_DATA = "It brings data, at the rate of messages: what it brought is read by its own routes, and names its callback."
_ASKS = "It changes nothing: it is POST for its body alone."

UNLOGGED: Mapping[str, str] = MappingProxyType(
    {
        POST_EVENTS: _DATA,
        "POST /in/{token}/api/postevents": _DATA,
        "POST /in/{token}/oauth/token": _ASKS,
        "POST /v1/channels/{label}/preview": _ASKS,
        "POST /v1/sends": _DATA,
        "POST /v1/batches/{batch_id}/members": _DATA,
        "POST /v1/suppressions/check": _ASKS,
        "POST /v1/suppressions/check-batch": _ASKS,
        "POST /v1/audits/{file_id}/link": _ASKS,
        "POST /v1/subscriptions/{subscription_id}/test": "It changes nothing: a sample is sent once.",
    }
)
"""Why nothing is logged of each other route that is not GET."""
