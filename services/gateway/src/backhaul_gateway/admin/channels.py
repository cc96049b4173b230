"""A tenant's channels: the use cases of configuring them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from backhaul_channels.adapter import Adapter, ChannelSettings, InvalidSecretError
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import channel_key, check_label
from backhaul_common.secrets import SecretBox
from backhaul_common.tenants import Channel, Tenant, VerificationMode
from pydantic import ValidationError

from backhaul_gateway.admin.updates import TenantUpdates, refuse_deleting
from backhaul_gateway.web.problems import FieldError, ProblemError, field_error

MOST_CHANNELS = 100


class ChannelRegistry:
    """Configures channels; what is stored has been accepted by the provider's adapter."""

    def __init__(self, updates: TenantUpdates, adapters: Mapping[str, Adapter], box: SecretBox) -> None:
        self._updates = updates
        self._adapters = adapters
        self._box = box

    async def put(
        self,
        tenant_id: str,
        label: str,
        *,
        provider: str | None,
        secrets: Sequence[str] | None,
        settings: Mapping[str, Any] | None,
        verification: VerificationMode | None,
    ) -> tuple[Channel, bool]:
        """The channel as stored, and whether it is new. What is None stays as it is; secrets and settings only as long
        as the provider is the same."""
        check_label(label)
        key = channel_key(label)
        created = False

        def apply(tenant: Tenant, now: datetime) -> Tenant:
            nonlocal created
            refuse_deleting(tenant)
            before = tenant.channels.get(key)
            created = before is None
            if created and len(tenant.channels) >= MOST_CHANNELS:
                raise BackhaulError(
                    Code.FAILED_PRECONDITION,
                    f"The tenant has {MOST_CHANNELS} channels already.",
                    fix="Delete those that are no longer used.",
                )
            stays = before.provider if provider is None and before is not None else provider
            adapter = self._adapter(stays, label)
            kept = before if before is not None and before.provider == adapter.provider else None
            if settings is None and kept is not None:
                valid, stored = _validated(adapter, kept.settings, stored=True), kept.settings
            else:
                valid = _validated(adapter, settings or {})
                stored = valid.model_dump(mode="json", exclude_unset=True)
            encrypted = kept.secrets if kept is not None else ()
            if secrets is not None:
                _check_secrets(adapter, secrets, valid)
                # A blank secret proves nothing; without it, what is shown as the number of secrets is the truth.
                encrypted = tuple(self._box.encrypt(secret) for secret in secrets if secret.strip())
            changes: dict[str, Any] = {
                "label": label,
                "secrets": encrypted,
                "settings": stored,
                "verification": verification or (before.verification if before is not None else "enforce"),
                "updated_at": now,
            }
            # Changed, not built anew: it may have fields that only a newer version knows. Like secrets and settings,
            # they do not outlive a change of the provider.
            channel = (
                kept.model_copy(update=changes)
                if kept is not None
                else Channel(key=key, provider=adapter.provider, **changes)
            )
            return tenant.model_copy(update={"channels": {**tenant.channels, key: channel}})

        after = await self._updates.apply(tenant_id, apply)
        return after.channels[key], created

    async def get(self, tenant_id: str, label: str) -> Channel:
        """The channel; NOT_FOUND."""
        return _found(await self._updates.find(tenant_id), label)

    async def list(self, tenant_id: str) -> list[Channel]:
        """The tenant's channels by key."""
        channels = (await self._updates.find(tenant_id)).channels
        return [channels[key] for key in sorted(channels)]

    async def delete(self, tenant_id: str, label: str) -> None:
        """Its callbacks are refused from now on; what it brought stays. NOT_FOUND."""

        def apply(tenant: Tenant, _: datetime) -> Tenant:
            gone = _found(tenant, label).key
            left = {key: channel for key, channel in tenant.channels.items() if key != gone}
            return tenant.model_copy(update={"channels": left})

        await self._updates.apply(tenant_id, apply)

    def _adapter(self, provider: str | None, label: str) -> Adapter:
        if provider is None:
            for adapter in self._adapters.values():
                if channel_key(label) in (channel_key(own) for own in adapter.labels):
                    return adapter
        elif (known := self._adapters.get(provider.lower())) is not None:
            return known
        message = f"There is no provider {provider[:64]!r}." if provider else f"No provider is known for {label!r}."
        raise BackhaulError(
            Code.INVALID_ARGUMENT, message, field="provider", fix=f"Use one of: {', '.join(sorted(self._adapters))}."
        )


def _found(tenant: Tenant, label: str) -> Channel:
    channel = tenant.channels.get(channel_key(label))
    if channel is None:
        configured = ", ".join(sorted(found.label for found in tenant.channels.values())) or "none yet"
        raise BackhaulError(
            Code.NOT_FOUND,
            f"The tenant has no channel {label[:100]!r}. Configured channels: {configured}.",
            field="label",
            fix="Use one of the configured labels, or PUT the channel first.",
        )
    return channel


def _validated(adapter: Adapter, settings: Mapping[str, Any], *, stored: bool = False) -> ChannelSettings:
    try:
        return adapter.settings_model.of_stored(settings) if stored else adapter.settings_model.model_validate(settings)
    except ValidationError as exc:
        known = ", ".join(sorted(adapter.settings_model.model_fields))
        raise ProblemError(
            f"The settings do not fit the provider {adapter.provider}; it knows: {known}.",
            [field_error(("settings", *error["loc"]), error["type"], error["msg"]) for error in exc.errors()],
        ) from exc


def _check_secrets(adapter: Adapter, secrets: Sequence[str], settings: ChannelSettings) -> None:
    errors = []
    for index, secret in enumerate(secrets):
        field = f"secrets[{index}]"
        try:
            adapter.verifier([secret], settings)
        except InvalidSecretError as exc:
            errors.append(FieldError(field, str(exc), "Send the secret as the provider shows it."))
    if errors:
        raise ProblemError("A secret cannot be one of this provider's.", errors)
