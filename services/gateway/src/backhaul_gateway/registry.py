"""Tenants and their credentials: the platform team's use cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import new_registration
from backhaul_common.names import check_queue_path, check_tenant_id
from backhaul_common.secrets import CredentialKind, new_credential
from backhaul_common.tenants import Credential, Limits, Tenant, TenantStatus
from pydantic import ValidationError

from backhaul_gateway.ports import TenantData, TenantStreams
from backhaul_gateway.problems import ProblemError, field_error
from backhaul_gateway.updates import TenantUpdates, unknown_tenant

MOST_CREDENTIALS = 20
MOST_TENANTS_A_PAGE = 500


@dataclass(frozen=True, slots=True)
class IssuedCredential:
    """A new credential with its text, which is told once and never again."""

    credential: Credential
    text: str


class TenantRegistry:
    """Creates, changes and removes tenants."""

    def __init__(self, updates: TenantUpdates, streams: TenantStreams, data: TenantData) -> None:
        self._updates = updates
        self._streams = streams
        self._data = data

    async def create(
        self, tenant_id: str, name: str, queue_path: str, limits: Mapping[str, Any]
    ) -> tuple[Tenant, IssuedCredential, IssuedCredential]:
        """The new tenant, its API key and its ingest token. CONFLICT names ``id`` or ``queue_path``."""
        now = self._updates.now()
        api_key, ingest_token = _issue("api", now), _issue("ingest", now)
        tenant = Tenant(
            id=check_tenant_id(tenant_id),
            registration=new_registration(tenant_id),
            name=name,
            queue_path=check_queue_path(queue_path),
            limits=_limits(Limits(), limits),
            credentials=(api_key.credential, ingest_token.credential),
            created_at=now,
            updated_at=now,
        )
        await self._updates.store.insert(tenant)
        await self._updates.announcer.tenant_changed(tenant.id)
        return tenant, api_key, ingest_token

    async def get(self, tenant_id: str) -> Tenant:
        """The tenant; NOT_FOUND."""
        return await self._updates.find(tenant_id)

    async def page(self, after: str, limit: int) -> list[Tenant]:
        """Tenants by id, those after ``after``."""
        return await self._updates.store.page(after, limit)

    async def change(
        self,
        tenant_id: str,
        *,
        name: str | None,
        limits: Mapping[str, Any],
        status: Literal["active", "suspended"] | None,
    ) -> Tenant:
        """Change what is given; None and missing limits stay."""

        def apply(tenant: Tenant, _: datetime) -> Tenant:
            _refuse_deleting(tenant)
            update: dict[str, Any] = {"limits": _limits(tenant.limits, limits)}
            if name is not None:
                update["name"] = name
            if status is not None:
                update["status"] = status
            return tenant.model_copy(update=update)

        return await self._updates.apply(tenant_id, apply)

    async def add_credential(self, tenant_id: str, kind: CredentialKind) -> IssuedCredential:
        """One more key or token; those that there are stay valid."""
        issued = _issue(kind, self._updates.now())

        def apply(tenant: Tenant, _: datetime) -> Tenant:
            _refuse_deleting(tenant)
            if len(tenant.credentials) >= MOST_CREDENTIALS:
                raise BackhaulError(
                    Code.FAILED_PRECONDITION,
                    f"The tenant has {MOST_CREDENTIALS} credentials already.",
                    fix="Delete those that are no longer used.",
                )
            return tenant.model_copy(update={"credentials": (*tenant.credentials, issued.credential)})

        await self._updates.apply(tenant_id, apply)
        return issued

    async def remove_credential(self, tenant_id: str, credential_id: str) -> None:
        """The key is refused from now on; NOT_FOUND."""

        def apply(tenant: Tenant, _: datetime) -> Tenant:
            left = tuple(credential for credential in tenant.credentials if credential.id != credential_id)
            if len(left) == len(tenant.credentials):
                raise BackhaulError(
                    Code.NOT_FOUND,
                    f"The tenant has no key {credential_id[:64]!r}.",
                    field="key_id",
                    fix="GET the tenant lists the ids of its keys.",
                )
            return tenant.model_copy(update={"credentials": left})

        await self._updates.apply(tenant_id, apply)

    async def delete(self, tenant_id: str, *, purge: bool) -> None:
        """Remove a tenant. FAILED_PRECONDITION while it has data, unless ``purge``, which deletes that as well.

        A purge that was interrupted leaves the tenant in status ``deleting``; the same call again finishes it. Calls
        may overlap: whichever is the last to end finds the tenant gone, which is what it was to bring about.
        """
        tenant = await self._updates.find(tenant_id)
        try:
            await self._delete(tenant, purge=purge)
        except BackhaulError as exc:
            if exc.code is not Code.NOT_FOUND:
                raise

    async def _delete(self, tenant: Tenant, *, purge: bool) -> None:
        """NOT_FOUND as soon as the tenant is gone, whoever has its id by then."""
        before = tenant.status
        if not purge:
            await self._refuse_with_data(tenant)
        # From here on the gateway refuses its callbacks, so that nothing arrives behind the deletion's back.
        tenant = await self._set_status(tenant, "deleting")
        if not purge:
            try:
                await self._refuse_with_data(tenant)
            except BackhaulError:
                await self._set_status(tenant, before)
                raise
        # Twice: a batch that the normalizer held while its store was purged has by now been stored or refused, and the
        # second time removes the traces of either.
        for _ in range(2):
            # Each part may take long. Meanwhile another call may have come to its end, and somebody else have the id
            # and the queue path; or it was refused, and has put the status back.
            tenant = await self._set_status(tenant, "deleting")
            await self._streams.purge(tenant)
            tenant = await self._set_status(tenant, "deleting")
            await self._data.purge(tenant)
        if not await self._updates.store.delete(tenant):
            await self._set_status(tenant, "deleting")
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                "The tenant was changed while it was being deleted.",
                field="status",
                fix="Repeat the request.",
            )
        await self._updates.announcer.tenant_changed(tenant.id)

    async def _set_status(self, tenant: Tenant, status: TenantStatus) -> Tenant:
        """``tenant`` in that status; NOT_FOUND when this registration is gone, whoever has its id by now."""

        def apply(found: Tenant, _: datetime) -> Tenant:
            if found.registration != tenant.registration:
                raise unknown_tenant(tenant.id)
            return found.model_copy(update={"status": status})

        return await self._updates.apply(tenant.id, apply)

    async def _refuse_with_data(self, tenant: Tenant) -> None:
        usage = {kind: count for kind, count in (await self._data.usage(tenant)).items() if count}
        if usage:
            has = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in usage.items())
        elif await self._streams.holds_messages(tenant):
            has = "stored callbacks"
        else:
            return
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            f"The tenant has data: {has}.",
            field="purge",
            fix="Repeat with ?purge=true to delete the tenant with all its data.",
        )


def _refuse_deleting(tenant: Tenant) -> None:
    if tenant.status == "deleting":
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            "The tenant is being deleted.",
            field="status",
            fix="Finish with DELETE …?purge=true.",
        )


def _issue(kind: CredentialKind, now: datetime) -> IssuedCredential:
    credential_id, text, digest = new_credential(kind)
    return IssuedCredential(Credential(id=credential_id, kind=kind, digest=digest, created_at=now), text)


def _limits(present: Limits, changes: Mapping[str, Any]) -> Limits:
    try:
        return Limits.model_validate({**present.model_dump(), **changes})
    except ValidationError as exc:
        raise ProblemError(
            "A limit is out of range.",
            [field_error(("limits", *error["loc"]), error["type"], error["msg"]) for error in exc.errors()],
        ) from exc
