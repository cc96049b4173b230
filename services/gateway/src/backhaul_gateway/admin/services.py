"""The platform team's use cases about service accounts and their tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backhaul_common.accounts import ALL_TENANTS, ServiceAccount, ServiceLimits, ServiceToken
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.ids import new_registration
from backhaul_common.secrets import new_credential
from backhaul_common.tenants import Tenant

from backhaul_gateway.admin.updates import Updates, in_milliseconds
from backhaul_gateway.ports import ServiceAnnouncer, ServiceStore, TenantStore

MAX_TOKENS = 10
MAX_TENANTS_OF_A_SERVICE = 500
MAX_CERTIFICATES = 20
MAX_SERVICES_A_PAGE = 500

_TRIES = 10
"""How often a deletion is tried while others write the account first."""

_LATER = "Send a time that is still to come, or leave it out for a token that does not expire."


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token with its text. The text is in one answer, and is never stored."""

    token: ServiceToken
    text: str


class ServiceRegistry:
    """Creates, changes and removes service accounts."""

    def __init__(
        self,
        store: ServiceStore,
        announcer: ServiceAnnouncer,
        tenants: TenantStore,
        known: Mapping[str, Tenant],
    ) -> None:
        """``known`` are tenants by id, as they are now and later; ``tenants`` is asked for the others."""
        self._store = store
        self._updates = Updates("service", store, announcer.service_changed)
        self._announcer = announcer
        self._tenants = tenants
        self._known = known

    async def create(
        self, service_id: str, *, limits: Mapping[str, Any], expires_at: datetime | None, **values: Any
    ) -> tuple[ServiceAccount, IssuedToken]:
        """The new account and its first token. CONFLICT names ``id`` or ``certificates``; INVALID_ARGUMENT.

        ``values`` are fields of the account, by their names.
        """
        now = self._updates.now()
        issued = _issue(now, expires_at, "token_expires_at")
        await self._require_tenants(values["tenants"])
        account = ServiceAccount(
            id=service_id,
            registration=new_registration(service_id),
            tokens=(issued.token,),
            limits=_limits(ServiceLimits(), limits),
            created_at=now,
            updated_at=now,
            **values,
        )
        await self._store.insert(account)
        await self._announcer.service_changed(service_id)
        return account, issued

    async def get(self, service_id: str) -> ServiceAccount:
        """The account; NOT_FOUND."""
        return await self._updates.find(service_id)

    async def page(self, after: str, limit: int) -> list[ServiceAccount]:
        """Accounts by id, those after ``after``."""
        return await self._store.page(after, limit)

    async def change(self, service_id: str, *, limits: Mapping[str, Any], **values: Any) -> ServiceAccount:
        """Change what is given. ``values`` are fields of the account, by their names; a limit that is missing stays.

        NOT_FOUND; INVALID_ARGUMENT; CONFLICT names ``certificates``.
        """
        if "tenants" in values:
            # One that has been deleted since is no reason to refuse what else is changed.
            present = (await self.get(service_id)).tenants
            await self._require_tenants(values["tenants"], but=present)

        def apply(account: ServiceAccount, _: datetime) -> ServiceAccount:
            return account.model_copy(update={**values, "limits": _limits(account.limits, limits)})

        return await self._updates.apply(service_id, apply)

    async def add_token(
        self, service_id: str, *, expires_at: datetime | None, others_expire_at: datetime | None
    ) -> IssuedToken:
        """One more token. Where ``others_expire_at`` is given, the present ones are valid until then and no longer.

        NOT_FOUND; INVALID_ARGUMENT; FAILED_PRECONDITION when there are too many.
        """
        now = self._updates.now()
        issued = _issue(now, expires_at, "expires_at")
        end = in_milliseconds(others_expire_at) if others_expire_at is not None else None

        def apply(account: ServiceAccount, now: datetime) -> ServiceAccount:
            # Those that have expired open nothing, and are only in the way.
            left = [token for token in account.tokens if token.expires_at is None or token.expires_at > now]
            if len(left) >= MAX_TOKENS:
                raise BackhaulError(
                    Code.FAILED_PRECONDITION,
                    f"The service has {MAX_TOKENS} tokens already.",
                    fix="Delete those that are no longer used.",
                )
            if end is not None:
                left = [token.model_copy(update={"expires_at": min(token.expires_at or end, end)}) for token in left]
            return account.model_copy(update={"tokens": (*left, issued.token)})

        await self._updates.apply(service_id, apply)
        return issued

    async def remove_token(self, service_id: str, token_id: str) -> None:
        """Revoke a token: it is refused from now on, and what it opened ends. NOT_FOUND."""

        def apply(account: ServiceAccount, _: datetime) -> ServiceAccount:
            left = tuple(token for token in account.tokens if token.id != token_id)
            if len(left) == len(account.tokens):
                raise BackhaulError(
                    Code.NOT_FOUND,
                    f"The service has no token {token_id[:64]!r}.",
                    field="token_id",
                    fix="GET the service lists the ids of its tokens.",
                )
            return account.model_copy(update={"tokens": left})

        await self._updates.apply(service_id, apply)

    async def delete(self, service_id: str) -> None:
        """Forget the account: whatever it shows is refused from now on. NOT_FOUND; UNAVAILABLE when others keep writing
        it."""
        account = await self.get(service_id)
        for _ in range(_TRIES):
            if await self._store.delete(account):
                await self._announcer.service_changed(service_id)
                return
            found = await self.get(service_id)
            if found.registration != account.registration:
                return  # It is gone, and somebody else has the id.
            account = found
        raise BackhaulError(
            Code.UNAVAILABLE,
            "The service is being changed by others at the same time.",
            fix="Repeat the request.",
            retry_after_s=1,
        )

    async def forget(self, tenant_id: str) -> None:
        """See ``TenantGrants``: who registers the id next is somebody else."""

        def apply(account: ServiceAccount, _: datetime) -> ServiceAccount:
            return account.model_copy(update={"tenants": tuple(one for one in account.tenants if one != tenant_id)})

        for service_id in await self._store.of_tenant(tenant_id):
            try:
                await self._updates.apply(service_id, apply)
            except BackhaulError as exc:
                if exc.code is not Code.NOT_FOUND:
                    raise

    async def _require_tenants(self, tenants: Sequence[str], but: Collection[str] = ()) -> None:
        """INVALID_ARGUMENT for each that there is not: a misspelt one would open nothing, or what is somebody else's
        one day."""
        asked = {
            one: self._known.get(one) or await self._tenants.find(one)
            for one in tenants
            if one != ALL_TENANTS and one not in but
        }
        unknown = [
            Violation(
                f"tenants[{number}]",
                f"There is no tenant {tenant_id!r}.",
                "Check the id, or register the tenant first.",
            )
            for number, tenant_id in enumerate(tenants)
            if tenant_id in asked
            if (tenant := asked[tenant_id]) is None or tenant.status == "deleting"
        ]
        if unknown:
            raise BackhaulError(Code.INVALID_ARGUMENT, unknown[0].message, violations=unknown)


def _issue(now: datetime, expires_at: datetime | None, field: str) -> IssuedToken:
    if expires_at is not None and expires_at <= now:
        raise BackhaulError(Code.INVALID_ARGUMENT, "That is over already.", field=field, fix=_LATER)
    token_id, text, digest = new_credential("service")
    end = in_milliseconds(expires_at) if expires_at is not None else None
    return IssuedToken(ServiceToken(id=token_id, digest=digest, created_at=now, expires_at=end), text)


def _limits(present: ServiceLimits, changes: Mapping[str, Any]) -> ServiceLimits:
    """``changes`` have been looked at by whoever took the request."""
    return present.model_copy(update=dict(changes))
