"""The use cases of configuring a tenant's channels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from backhaul_channels.adapter import Adapter, InvalidSecretError
from backhaul_channels.settings import AuditKeys, ChannelSettings
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.names import channel_key, check_label
from backhaul_common.secrets import SecretBox
from backhaul_common.tenants import Channel, Processing, Tenant, VerificationMode
from pydantic import BaseModel, ValidationError

from backhaul_gateway.admin.updates import Check, TenantUpdates, refuse_deleting, unchecked
from backhaul_gateway.admission.refusals import no_channel
from backhaul_gateway.admission.unfit import violations

MAX_CHANNELS = 100

ChannelSecret = str | Mapping[str, str]
"""A secret in plain text; where the provider's have several parts, each part by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRequest:
    """What a channel is asked to become. What is None stays as it is."""

    label: str
    provider: str | None = None
    """By its name, in any case. A new channel's provider is found by its label where this is None."""
    secrets: Sequence[ChannelSecret] | None = None
    """All that are valid from now on."""
    pull_credentials: Mapping[str, str] | None = None
    """In plain text, by the provider's own model; none at all removes them."""
    audit_credentials: Mapping[str, str] | None = None
    """In plain text, of the channel's own bucket for audit files; none at all removes them."""
    settings: Mapping[str, Any] | None = None
    verification: VerificationMode | None = None
    processing: Processing | None = None


class ChannelRegistry:
    """Configures channels. Whatever is stored, the provider's adapter has accepted."""

    def __init__(self, updates: TenantUpdates, adapters: Mapping[str, Adapter[Any]], box: SecretBox) -> None:
        self._updates = updates
        self._adapters = adapters
        self._box = box

    def over(self, updates: TenantUpdates) -> ChannelRegistry:
        """The same use cases over other tenants."""
        return ChannelRegistry(updates, self._adapters, self._box)

    def without_known(self, channel: Channel, request: ChannelRequest) -> ChannelRequest:
        """``request`` without those of its secrets and credentials that ``channel`` has already."""
        known: dict[str, Any] = {}
        with suppress(ValueError):
            secrets = [json.dumps(dict(one)) if isinstance(one, Mapping) else one for one in request.secrets or ()]
            if secrets == [self._box.decrypt(one) for one in channel.secrets]:
                known["secrets"] = None
        for name in ("pull_credentials", "audit_credentials"):
            given, stored = getattr(request, name), getattr(channel, name)
            with suppress(ValueError):
                # What the provider's own model has beside is what it is without being given.
                present = json.loads(self._box.decrypt(stored)) if stored else {}
                if (
                    given is not None
                    and {key: present.get(key) for key in given} == given
                    and bool(given) == bool(stored)
                ):
                    known[name] = None
        return replace(request, **known)

    async def put(self, tenant_id: str, request: ChannelRequest, check: Check = unchecked) -> tuple[Channel, bool]:
        """The channel as stored, and whether it is new. NOT_FOUND, FAILED_PRECONDITION, and what ``merged`` and
        ``check`` raise."""
        check_label(request.label)
        key = channel_key(request.label)

        def apply(tenant: Tenant, now: datetime) -> Tenant:
            refuse_deleting(tenant)
            before = tenant.channels.get(key)
            if before is None:
                _refuse_many(tenant)
            adapter = self._adapter(before, request)
            channel = merged(before, request, adapter, self._box.encrypt, now)
            if request.settings is not None and request.secrets is None:
                self._refuse_unfit(adapter, channel)
            after = tenant.model_copy(update={"channels": {**tenant.channels, key: channel}})
            check(tenant, after, now)
            return after

        before, after = await self._updates.change(tenant_id, apply)
        return after.channels[key], key not in before.channels

    async def get(self, tenant_id: str, label: str) -> Channel:
        """The channel; NOT_FOUND."""
        return found_channel(await self._updates.find(tenant_id), label)

    async def list(self, tenant_id: str) -> list[Channel]:
        """The tenant's channels by key."""
        channels = (await self._updates.find(tenant_id)).channels
        return [channels[key] for key in sorted(channels)]

    async def delete(self, tenant_id: str, label: str, check: Check = unchecked) -> None:
        """Remove the channel. Its callbacks are refused from now on; events that it brought stay, and what is held of
        it is processed. NOT_FOUND, and what ``check`` raises."""

        def apply(tenant: Tenant, now: datetime) -> Tenant:
            gone = found_channel(tenant, label).key
            left = {key: channel for key, channel in tenant.channels.items() if key != gone}
            after = tenant.model_copy(update={"channels": left})
            check(tenant, after, now)
            return after

        await self._updates.apply(tenant_id, apply)

    def _refuse_unfit(self, adapter: Adapter[Any], channel: Channel) -> None:
        """INVALID_ARGUMENT where the secrets that a channel keeps can be none by its new settings, so that it would
        refuse every callback."""
        try:
            secrets = [self._box.decrypt(secret) for secret in channel.secrets]
        except ValueError:
            return  # It refuses every callback already, until its secrets are set again.
        try:
            adapter.verifier(secrets, _validated(adapter, channel.settings, stored=True))
        except InvalidSecretError as exc:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                "The secrets that the channel has do not fit these settings.",
                violations=[Violation("secrets", str(exc), "Send secrets beside the settings: [] for none.")],
            ) from exc

    def _adapter(self, before: Channel | None, request: ChannelRequest) -> Adapter[Any]:
        """The adapter of the requested provider, else of the present one, else of the one that has the label."""
        name = before.provider if request.provider is None and before is not None else request.provider
        if name is None:
            key = channel_key(request.label)
            offered = [one for one in self._adapters.values() if key in {channel_key(label) for label in one.labels}]
            if len(offered) == 1:
                return offered[0]
            if offered:
                names = sorted(one.provider for one in offered)
                raise BackhaulError(
                    Code.INVALID_ARGUMENT,
                    f"The label {request.label!r} may mean any of several providers: {', '.join(names)}.",
                    field="provider",
                    fix=f"Say which one: {' or '.join(names)}.",
                )
        elif (known := self._adapters.get(name.lower())) is not None:
            return known
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"There is no provider {name[:64]!r}." if name else f"No provider is known for {request.label!r}.",
            field="provider",
            fix=f"Use one of: {', '.join(sorted(self._adapters))}.",
        )


def merged(
    before: Channel | None, request: ChannelRequest, adapter: Adapter[Any], encrypt: Callable[[str], str], now: datetime
) -> Channel:
    """The channel that ``request`` makes of ``before``. INVALID_ARGUMENT names the fields that ``adapter`` refuses.

    What the request leaves out stays as it is. But secrets and settings are the provider's, and so are fields that
    only a newer version of the gateway knows: when the provider changes, the channel begins without them.
    """
    kept = before if before is not None and before.provider == adapter.provider else None
    if request.settings is None and kept is not None:
        settings, stored = _validated(adapter, kept.settings, stored=True), kept.settings
    else:
        settings = _validated(adapter, request.settings or {})
        stored = settings.model_dump(mode="json", exclude_unset=True)
    changes: dict[str, Any] = {"label": request.label, "settings": stored, "updated_at": now}
    if request.secrets is not None:
        changes["secrets"] = tuple(encrypt(text) for text in _secret_texts(adapter, request.secrets, settings))
    if request.pull_credentials is not None:
        changes["pull_credentials"] = _pull_credentials(adapter, request.pull_credentials, encrypt)
    present = kept.audit_credentials if kept is not None else ""
    changes["audit_credentials"] = _audit_credentials(settings, request.audit_credentials, present, encrypt)
    if request.verification is not None:
        changes["verification"] = request.verification
    elif before is not None:
        changes["verification"] = before.verification
    changes |= _processing(before, request.processing, now)
    if kept is None:
        return Channel(key=channel_key(request.label), provider=adapter.provider, **changes)
    return kept.model_copy(update=changes)


def _processing(before: Channel | None, asked: Processing | None, now: datetime) -> dict[str, Any]:
    present = before.processing if before is not None else "on"
    processing = present if asked is None else asked
    if processing == "on":
        return {"processing": "on", "held_since": None}
    since = before.held_since if before is not None and present == "held" else None
    return {"processing": "held", "held_since": since or now}


def _refuse_many(tenant: Tenant) -> None:
    if len(tenant.channels) >= MAX_CHANNELS:
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            f"The tenant has {MAX_CHANNELS} channels already.",
            fix="Delete those that are no longer used.",
        )


def found_channel(tenant: Tenant, label: str) -> Channel:
    """The tenant's channel of that label; NOT_FOUND."""
    channel = tenant.channels.get(channel_key(label))
    if channel is None:
        raise no_channel(tenant, label, field="label")
    return channel


def _validated(adapter: Adapter[Any], settings: Mapping[str, Any], *, stored: bool = False) -> ChannelSettings:
    try:
        return adapter.settings_model.of_stored(settings) if stored else adapter.settings_model.model_validate(settings)
    except ValidationError as exc:
        known = ", ".join(sorted(adapter.settings_model.model_fields))
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"The settings do not fit the provider {adapter.provider}; it knows: {known}.",
            violations=violations(exc.errors(), adapter.settings_model, settings, "settings"),
        ) from exc


def _pull_credentials(adapter: Adapter[Any], given: Mapping[str, str], encrypt: Callable[[str], str]) -> str:
    """As they are stored; empty for none. INVALID_ARGUMENT names the fields and repeats no value."""
    if not given:
        return ""
    if adapter.puller is None:
        message = f"Nothing is ever asked of the provider {adapter.provider}, so it takes no pull_credentials."
        violation = Violation("pull_credentials", message, "Leave them out.")
        raise BackhaulError(Code.INVALID_ARGUMENT, "The provider has no API to ask.", violations=[violation])
    who = f"the provider {adapter.provider}"
    return encrypt(_credentials(adapter.puller.credentials_model, given, "pull_credentials", who))


def _audit_credentials(
    settings: ChannelSettings, given: Mapping[str, str] | None, present: str, encrypt: Callable[[str], str]
) -> str:
    """As they are stored; empty where ``settings`` name no bucket that wants keys. INVALID_ARGUMENT names the fields
    and repeats no value."""
    if not settings.audit.wants_keys:
        if given:
            message = "The channel's settings name no bucket of its own that keys open."
            fix = 'Leave them out, or name one in settings.audit.bucket with "credentials": "keys".'
            violation = Violation("audit_credentials", message, fix)
            raise BackhaulError(Code.INVALID_ARGUMENT, "There is nothing that they open.", violations=[violation])
        return ""
    if given:
        return encrypt(_credentials(AuditKeys, given, "audit_credentials", "an S3 service"))
    if given is None and present:
        return present
    fix = "Send access_key and secret_key beside the settings, or name other credentials in settings.audit.bucket."
    violation = Violation("audit_credentials", "The channel's own bucket for audit files wants keys.", fix)
    raise BackhaulError(Code.INVALID_ARGUMENT, "Nothing would open the bucket.", violations=[violation])


def _credentials(model: type[BaseModel], given: Mapping[str, str], field: str, whom: str) -> str:
    try:
        return model.model_validate(given).model_dump_json()
    except ValidationError as exc:
        known = ", ".join(sorted(model.model_fields))
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"The credentials do not fit {whom}; it takes: {known}.",
            violations=violations(exc.errors(), model, given, field),
        ) from exc


def _secret_texts(adapter: Adapter[Any], secrets: Sequence[ChannelSecret], settings: ChannelSettings) -> Sequence[str]:
    """Each secret as the one text that is stored of it. INVALID_ARGUMENT names the fields and repeats no value."""
    texts, errors = [], []
    for index, secret in enumerate(secrets):
        field = f"secrets[{index}]"
        text, unfit = (secret, []) if isinstance(secret, str) else _of_parts(adapter, field, secret)
        try:
            if not unfit:
                adapter.verifier([text], settings)
        except InvalidSecretError as exc:
            unfit = [Violation(field, str(exc), "Send what the message asks for.")]
        errors += unfit
        # A blank secret proves nothing. Without it, the number of secrets that is shown is the number that can prove.
        if text.strip():
            texts.append(text)
    if errors:
        raise BackhaulError(Code.INVALID_ARGUMENT, "A secret cannot be one of this provider's.", violations=errors)
    return texts


def _of_parts(adapter: Adapter[Any], field: str, secret: Mapping[str, str]) -> tuple[str, list[Violation]]:
    """The secret of several parts as text, and what is wrong with it."""
    if adapter.secret_model is None:
        message = f"A secret of the provider {adapter.provider} is one text, and has no parts."
        return "", [Violation(field, message, "Send it as a text.")]
    try:
        adapter.secret_model.model_validate(secret)
    except ValidationError as exc:
        return "", violations(exc.errors(), adapter.secret_model, secret, field)
    return json.dumps(dict(secret)), []
