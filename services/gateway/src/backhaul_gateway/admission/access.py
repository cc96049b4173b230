"""What opens which route: the one table of the gateway.

**Who adds a route adds a row to ``ROUTES``**, under its method and path as OpenAPI shows them; where it is not GET, a
second one to a table of ``logged.py``. A route that has none is closed to everybody. Its value is one of the rules
below: for tenants the scopes of an API key, all of which it needs; for the platform team the roles of an admin token,
one of which is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from backhaul_common.errors import BackhaulError, Code

from backhaul_gateway.admission.principal import ROLE_BITS, SCOPE_BITS, Principal, names_of


@dataclass(frozen=True, slots=True)
class Rule:
    """What opens a route: ``nothing`` needs to be shown; the ingest ``token`` in its path, which the route looks at
    itself; a ``key`` with all scopes of ``bits``; an ``admin`` token with a role of ``bits``."""

    by: Literal["nothing", "token", "key", "admin"]
    bits: int = 0

    def check(self, principal: Principal) -> None:
        """FORBIDDEN, which names the scope that is missing, or the roles that would do. ``principal`` has shown the
        kind of credential that the rule is about."""
        if self.by == "admin":
            if not principal.bits & self.bits:
                roles = " or ".join(role for role, bit in ROLE_BITS.items() if bit & self.bits)
                raise BackhaulError(
                    Code.FORBIDDEN,
                    f"The admin token {principal.name!r} has the role {principal.role}; this needs {roles}.",
                    field="Authorization",
                    fix=f"Use a token that has the role {roles}.",
                )
        elif missing := self.bits & ~principal.bits:
            raise lacking(missing)

    @property
    def words(self) -> str:
        """The rule in a sentence for the API's documentation; empty where nothing is needed."""
        if self.by == "key" and self.bits:
            names = [f"`{name}`" for name in names_of(self.bits)]
            return f"Needs the scope{'s' if len(names) > 1 else ''} {' and '.join(names)}."
        if self.by == "key":
            return "Any API key of the tenant's opens it."
        if self.by == "admin":
            roles = [f"`{role}`" for role, bit in ROLE_BITS.items() if bit & self.bits]
            return f"Needs the role {' or '.join(roles)}."
        return ""


def lacking(missing: int, why: str = "") -> BackhaulError:
    """The refusal of an API key that is valid, but lacks the scopes of these bits."""
    names = " and ".join(names_of(missing))
    return BackhaulError(
        Code.FORBIDDEN,
        f"{why}{': it' if why else 'The API key'} lacks the scope {names}.",
        field="Authorization",
        fix=f"Use a key of the tenant's that has the scope {names}.",
    )


def _key(*scopes: str) -> Rule:
    return Rule("key", sum(SCOPE_BITS[scope] for scope in scopes))


def _admin(*roles: str) -> Rule:
    return Rule("admin", sum(ROLE_BITS[role] for role in roles))


OPEN = Rule("nothing")
BY_TOKEN = Rule("token")

ANY_KEY = _key()
INGEST = _key("ingest")
READ = _key("read")
MANAGE = _key("manage")
SEND = _key("send")
CHECK = _key("check")
# What a subscription is told, its maker reads.
MANAGE_AND_READ = _key("manage", "read")

OPERATOR = _admin("operator")
SUPPORT = _admin("operator", "support")
# Who has access to what, and what was changed by whom; no person's address.
ANY_ADMIN = _admin("operator", "support", "auditor")

POST_EVENTS = "POST /api/postevents"

ROUTES: Mapping[str, Rule] = MappingProxyType(
    {
        # Machines, and whoever reads the documentation.
        "GET /healthz": OPEN,
        "GET /readyz": OPEN,
        "GET /metrics": OPEN,
        "GET /openapi.json": OPEN,
        "GET /docs": OPEN,
        "GET /docs/page.css": OPEN,
        "GET /docs/page.js": OPEN,
        "GET /api/test": OPEN,
        "GET /.well-known/backhaul-audit-keys": OPEN,
        # Providers.
        POST_EVENTS: INGEST,
        "POST /in/{token}/api/postevents": BY_TOKEN,
        "POST /in/{token}/oauth/token": BY_TOKEN,
        # Tenants: what was brought back.
        "GET /v1/whoami": ANY_KEY,
        "GET /api/status": READ,
        "GET /v1/overview": READ,
        "GET /v1/messages": READ,
        "GET /v1/messages/{channel}/{message_id}": READ,
        "GET /v1/events": READ,
        "GET /v1/events/stream": READ,
        "GET /v1/errors": READ,
        "GET /v1/stats": READ,
        "GET /v1/replies": READ,
        "POST /v1/replies/{reply_id}/accept": MANAGE,
        "POST /v1/replies/{reply_id}/dismiss": MANAGE,
        "GET /v1/dead-letters": READ,
        "GET /v1/dead-letters/{dead_letter_id}": READ,
        "POST /v1/dead-letters/{dead_letter_id}/replay": MANAGE,
        "POST /v1/dead-letters/{dead_letter_id}/discard": MANAGE,
        "POST /v1/dead-letters/replay": MANAGE,
        "POST /v1/dead-letters/discard": MANAGE,
        "GET /v1/replays": READ,
        "GET /v1/replays/{replay_id}": READ,
        "POST /v1/replays": MANAGE,
        "POST /v1/replays/{replay_id}/cancel": MANAGE,
        "POST /v1/channels/{label}/preview": READ,
        # Tenants: what they manage of their own.
        "GET /v1/keys": MANAGE,
        "POST /v1/keys": MANAGE,
        "DELETE /v1/keys/{key_id}": MANAGE,
        "GET /v1/channels": READ,
        "GET /v1/channels/{label}": READ,
        "PUT /v1/channels/{label}": MANAGE,
        "DELETE /v1/channels/{label}": MANAGE,
        # It names keys, and people of the platform team.
        "GET /v1/changes": MANAGE,
        # Tenants: what they send.
        "POST /v1/sends": SEND,
        "GET /v1/communications": READ,
        "GET /v1/communications/{communication_id}": READ,
        "PUT /v1/communications/{communication_id}": SEND,
        "POST /v1/communications/{communication_id}/disable": SEND,
        "POST /v1/communications/{communication_id}/enable": SEND,
        "PUT /v1/communications/{communication_id}/batches/{batch_id}": SEND,
        "GET /v1/batches": READ,
        "GET /v1/batches/{batch_id}": READ,
        "POST /v1/batches/{batch_id}/members": SEND,
        "POST /v1/batches/{batch_id}/close": SEND,
        # Tenants: who must not be contacted.
        "POST /v1/suppressions/check": CHECK,
        "POST /v1/suppressions/check-batch": CHECK,
        "GET /v1/suppressions": READ,
        "GET /v1/suppressions/address": READ,
        "GET /v1/suppressions/changes": READ,
        "GET /v1/suppressions/export": READ,
        "POST /v1/suppressions": MANAGE,
        "POST /v1/suppressions/lift": MANAGE,
        "POST /v1/suppressions/reactivate": MANAGE,
        "POST /v1/suppressions/import": MANAGE,
        # Tenants: what was filed.
        "GET /v1/audits": READ,
        "GET /v1/audits/head": READ,
        "GET /v1/audits/proof": READ,
        "GET /v1/audits/verify": READ,
        "GET /v1/audits/recount": READ,
        "GET /v1/audits/digests": READ,
        "GET /v1/audits/digests/{chain}/{number}": READ,
        "GET /v1/audits/{file_id}": READ,
        "GET /v1/audits/{file_id}/content": READ,
        "POST /v1/audits/{file_id}/link": READ,
        "POST /v1/audits/erasures": MANAGE,
        "DELETE /v1/recipients/{address}": MANAGE,
        # Tenants: what providers were asked.
        "GET /v1/reconciliation/channels": READ,
        "GET /v1/reconciliation/reports": READ,
        "GET /v1/reconciliation/reports/{report_id}": READ,
        "GET /v1/reconciliation/differences": READ,
        "GET /v1/reconciliation/days/{day}": READ,
        "POST /v1/reconciliation/runs": MANAGE,
        # Tenants: what their applications are told.
        "GET /v1/event-types": READ,
        "GET /v1/subscriptions": READ,
        "GET /v1/subscriptions/{subscription_id}": READ,
        "POST /v1/subscriptions": MANAGE_AND_READ,
        "PUT /v1/subscriptions/{subscription_id}": MANAGE_AND_READ,
        "DELETE /v1/subscriptions/{subscription_id}": MANAGE,
        "POST /v1/subscriptions/{subscription_id}/pause": MANAGE,
        "POST /v1/subscriptions/{subscription_id}/resume": MANAGE,
        "POST /v1/subscriptions/{subscription_id}/rotate-secret": MANAGE,
        "POST /v1/subscriptions/{subscription_id}/test": MANAGE,
        "POST /v1/subscriptions/{subscription_id}/redeliver": MANAGE,
        "GET /v1/deliveries": READ,
        "GET /v1/deliveries/{delivery_id}": READ,
        "POST /v1/deliveries/{delivery_id}/redeliver": MANAGE,
        # The platform team.
        "GET /admin/v1/whoami": ANY_ADMIN,
        "GET /admin/v1/overview": SUPPORT,
        "GET /admin/v1/changes": ANY_ADMIN,
        "GET /admin/v1/tenants": ANY_ADMIN,
        "POST /admin/v1/tenants": OPERATOR,
        "GET /admin/v1/tenants/{tenant_id}": ANY_ADMIN,
        "PATCH /admin/v1/tenants/{tenant_id}": OPERATOR,
        "DELETE /admin/v1/tenants/{tenant_id}": OPERATOR,
        "POST /admin/v1/tenants/{tenant_id}/keys": OPERATOR,
        "DELETE /admin/v1/tenants/{tenant_id}/keys/{key_id}": OPERATOR,
        "GET /admin/v1/tenants/{tenant_id}/channels": ANY_ADMIN,
        "GET /admin/v1/tenants/{tenant_id}/channels/{label}": ANY_ADMIN,
        "PUT /admin/v1/tenants/{tenant_id}/channels/{label}": OPERATOR,
        "DELETE /admin/v1/tenants/{tenant_id}/channels/{label}": OPERATOR,
        "GET /admin/v1/tenants/{tenant_id}/suppressions": SUPPORT,
        "POST /admin/v1/tenants/{tenant_id}/suppressions": OPERATOR,
        "POST /admin/v1/tenants/{tenant_id}/suppressions/lift": OPERATOR,
        "POST /admin/v1/tenants/{tenant_id}/dead-letters/replay": OPERATOR,
        "POST /admin/v1/tenants/{tenant_id}/dead-letters/discard": OPERATOR,
        "GET /admin/v1/tenants/{tenant_id}/replays/{replay_id}": OPERATOR,
        "POST /admin/v1/tenants/{tenant_id}/replays/{replay_id}/cancel": OPERATOR,
        "GET /admin/v1/services": ANY_ADMIN,
        "POST /admin/v1/services": OPERATOR,
        "GET /admin/v1/services/{service_id}": ANY_ADMIN,
        "PATCH /admin/v1/services/{service_id}": OPERATOR,
        "DELETE /admin/v1/services/{service_id}": OPERATOR,
        "POST /admin/v1/services/{service_id}/tokens": OPERATOR,
        "DELETE /admin/v1/services/{service_id}/tokens/{token_id}": OPERATOR,
        "POST /admin/v1/audit-keys/rotate": OPERATOR,
        "GET /admin/v1/export": SUPPORT,
        "POST /admin/v1/apply": OPERATOR,
        "GET /admin/v1/secret-keys": SUPPORT,
        "POST /admin/v1/secret-keys/rotate": OPERATOR,
    }
)
"""What opens each route, by method and path."""
