"""The use case of configuration as data: it is read as a document, and a document is made true.

Everything goes through the use cases that configure one thing, so the same is refused, in the same words. A dry run is
the same over tenants that are only in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.names import channel_key
from backhaul_common.tenants import Tenant
from pydantic import ValidationError

from backhaul_gateway.admin.channelmodels import ChannelIn
from backhaul_gateway.admin.channels import ChannelRegistry
from backhaul_gateway.admin.configmodels import (
    ApplyIn,
    FieldChange,
    Json,
    OnlyHere,
    PartChange,
    TenantChange,
    TenantConfigIn,
    changes,
    of_channel,
    of_tenant,
)
from backhaul_gateway.admin.overlay import Overlay, Silent
from backhaul_gateway.admin.references import Filled, Values, plain, resolve
from backhaul_gateway.admin.tenants import IssuedCredential, TenantRegistry
from backhaul_gateway.admin.updates import TenantUpdates
from backhaul_gateway.admission.entries import Part, Parts
from backhaul_gateway.admission.unfit import violations

_SECRET, _CHANGED = "(secret)", "(changed)"
_OF_CHANNELS = ("secrets", "pull_credentials", "audit_credentials")


class Subscriptions(Protocol):
    """A tenant's subscriptions, as documents have them. Errors name fields of a subscription."""

    async def all(self, tenant_id: str) -> Mapping[str, Json]:
        """Their definitions by id, with empty secrets, oldest first."""
        ...

    async def validated(self, tenant_id: str, id_: str, given: Json) -> Json:
        """``given`` as it would be stored, with empty secrets, in place of ``id_`` or, without, as a new one."""
        ...

    async def put(self, tenant_id: str, id_: str, given: Json, *, paused: bool) -> tuple[str, str]:
        """Store it; its id, and what calls of a new one are signed with."""
        ...


@dataclass(frozen=True, slots=True)
class _Over:
    """The use cases over what is only looked at, and over what is written."""

    store: Overlay
    tenants: TenantRegistry
    channels: ChannelRegistry
    writes: bool
    parts: Parts
    secrets: Values = field(repr=False)


class Configuration:
    """Makes documents true."""

    def __init__(
        self,
        updates: TenantUpdates,
        tenants: TenantRegistry,
        channels: ChannelRegistry,
        subscriptions: Subscriptions,
        known: Mapping[str, Tenant],
    ) -> None:
        """``known`` are all tenants, as this copy of the gateway has heard of them."""
        self._updates = updates
        self._tenants = tenants
        self._channels = channels
        self._subscriptions = subscriptions
        self._known = known

    async def apply(self, document: ApplyIn, parts: Parts, *, dry_run: bool) -> list[TenantChange]:
        """What was done of ``document``, or would be.

        All of it is looked at before anything is written. What is refused is named by its place in the document; where
        something fails after that, the error says which tenants are done. Each change is one of ``parts``.
        """
        _refuse_twice(document)
        found = [
            await self._tenant(over, one, f"tenants[{number}]")
            for over in [self._over(document, parts, writes=False)]
            for number, one in enumerate(document.tenants)
        ]
        if dry_run:
            return found
        over, done = self._over(document, parts, writes=True), list[TenantChange]()
        for number, one in enumerate(document.tenants):
            try:
                done.append(await self._tenant(over, one, f"tenants[{number}]"))
            except BackhaulError as exc:
                names = ", ".join(each.id for each in done) or "none"
                raise BackhaulError(
                    exc.code,
                    f"{exc.message} Applied before: {names}; of {one.id} perhaps a part. Apply the document again.",
                    violations=exc.violations,
                    retry_after_s=exc.retry_after_s,
                ) from exc
        return done

    def _over(self, document: ApplyIn, parts: Parts, *, writes: bool) -> _Over:
        store = Overlay(self._updates.store, self._known)
        updates = TenantUpdates(store, Silent(), self._updates.now)
        secrets = {name: plain(value) for name, value in document.secrets.items()}
        return _Over(store, self._tenants.over(updates), self._channels.over(updates), writes, parts, secrets)

    async def _tenant(self, over: _Over, wanted: TenantConfigIn, at: str) -> TenantChange:
        before = await over.store.find(wanted.id)
        with _named(at):
            if before is not None and before.queue_path != wanted.queue_path:
                message = f"The queue path of a tenant cannot be changed; it is {before.queue_path!r}."
                raise BackhaulError(Code.INVALID_ARGUMENT, message, field="queue_path", fix="Leave it as it is.")
            change = await (self._made(over, wanted) if before is None else self._changed(over, wanted, before))
        for number, channel in enumerate(wanted.channels):
            with _named(f"{at}.channels[{number}]"):
                change.channels.append(await self._channel(over, wanted.id, channel))
        stored = {} if change.change == "created" and not over.writes else await self._subscriptions.all(wanted.id)
        left, claimed = dict(stored), {str(given.get("id")) for given in wanted.subscriptions}
        for number, given in enumerate(wanted.subscriptions):
            with _named(f"{at}.subscriptions[{number}]"):
                part = await self._subscription(over, wanted.id, given, left, claimed, new=change.change == "created")
                change.subscriptions.append(part)
        named = {one.key for one in change.channels}
        channels = [key for key in sorted(before.channels) if key not in named] if before is not None else []
        change.only_here = OnlyHere(channels=channels, subscriptions=list(left))
        return change

    async def _made(self, over: _Over, wanted: TenantConfigIn) -> TenantChange:
        change = TenantChange(id=wanted.id, change="created")
        await self._create(over.tenants, wanted)
        if over.writes:
            async with over.parts.changing("tenant", wanted.id, Part({})):
                api_key, ingest_token = await self._create(self._tenants, wanted)
            change.api_key, change.ingest_token = api_key.text, ingest_token.text
        return change

    async def _create(self, registry: TenantRegistry, wanted: TenantConfigIn) -> Sequence[IssuedCredential]:
        _, *issued = await registry.create(
            wanted.id,
            wanted.name,
            wanted.queue_path,
            wanted.limits.given(),
            wanted.suppression.given(),
            wanted.audit.given(),
            wanted.retention.given(),
        )
        if wanted.status == "suspended":
            await self._set(registry, wanted)
        return issued

    async def _changed(self, over: _Over, wanted: TenantConfigIn, before: Tenant) -> TenantChange:
        after = await self._set(over.tenants, wanted)
        fields = changes(of_tenant(before), of_tenant(after))
        if fields and over.writes:
            async with over.parts.changing("tenant", wanted.id, Part({})):
                await self._set(self._tenants, wanted)
        return TenantChange(id=wanted.id, change="changed" if fields else "unchanged", fields=fields)

    async def _set(self, registry: TenantRegistry, wanted: TenantConfigIn) -> Tenant:
        return await registry.change(
            wanted.id,
            name=wanted.name,
            limits=wanted.limits.given(),
            suppression=wanted.suppression.given(),
            audit=wanted.audit.given(),
            retention=wanted.retention.given(),
            status=wanted.status,
        )

    async def _channel(self, over: _Over, tenant_id: str, given: Json) -> PartChange:
        given = dict(given)
        label = given.pop("label", None)
        if not isinstance(label, str):
            message = "A channel has a label."
            raise BackhaulError(Code.INVALID_ARGUMENT, message, field="label", fix="Say which channel it is.")
        tenant = await over.tenants.get(tenant_id)
        before = tenant.channels.get(channel_key(label))
        stored = of_channel(tenant_id, before) if before is not None else {}
        same = before is not None and str(given.get("provider") or before.provider).lower() == before.provider
        for name in _OF_CHANNELS:
            resolve(given, name, over.secrets, stored.get(name) if same else None)
        request = _validated(ChannelIn, given).request(label)
        if before is not None:
            request = over.channels.without_known(before, request)
        after, _ = await over.channels.put(tenant_id, request)
        shown = of_channel(tenant_id, after)
        fields = [
            one
            for one in changes(stored, shown)
            if before is not None and one.field.partition(".")[0] not in _OF_CHANNELS
        ]
        sent = [name for name in _OF_CHANNELS if getattr(before, name, None) != getattr(after, name)]
        if before is not None:
            fields += [FieldChange(field=name, before=_SECRET, after=_CHANGED) for name in sent]
        change = PartChange(
            key=after.key,
            name=after.label,
            change="created" if before is None else "changed" if fields else "unchanged",
            fields=fields,
        )
        if over.writes and change.change != "unchanged":
            # Which secrets were sent is all that is told of them.
            part = Part({"label": after.label}, {name: True for name in sent if getattr(after, name)})
            async with over.parts.changing("channel", tenant_id, part):
                await self._channels.put(tenant_id, request)
        return change

    async def _subscription(
        self, over: _Over, tenant_id: str, given: Json, left: dict[str, Json], claimed: Collection[str], *, new: bool
    ) -> PartChange:
        """``left`` are those that no other one of the document stands for; the one that this one does is taken out.
        Those of ``claimed`` are named by their ids. ``new``: so is its tenant, of which the notifier has not heard
        where nothing is written."""
        given = dict(given)
        id_, paused = given.pop("id", None), given.pop("paused", False)
        filled = Filled(given, over.secrets)
        asked = filled.value
        if new and not over.writes:
            filled.require(None)
            return PartChange(key=None, name=str(given.get("name", "")), change="created")
        known = id_ if isinstance(id_, str) and id_ in left else await self._alike(tenant_id, asked, left, claimed)
        before = left.pop(known) if known is not None else None
        filled.require(before)
        after = await self._subscriptions.validated(tenant_id, known or "", asked)
        fields = changes(before, after) if before is not None else []
        if filled.any and before is not None:
            fields.append(FieldChange(field="http.credentials", before=_SECRET, after=_CHANGED))
        change = PartChange(
            key=known,
            name=after["name"],
            change="created" if before is None else "changed" if fields else "unchanged",
            fields=fields,
        )
        if over.writes and change.change != "unchanged":
            paused = paused is True and before is None
            part = Part({"subscription_id": known} if known is not None else {}, after, before)
            async with over.parts.changing("subscription", tenant_id, part):
                change.key, made = await self._subscriptions.put(tenant_id, known or "", asked, paused=paused)
                part.target["subscription_id"] = change.key
            change.secret = made or None
        return change

    async def _alike(
        self, tenant_id: str, plain: Json, left: Mapping[str, Json], claimed: Collection[str]
    ) -> str | None:
        """Which of those it is that no id names: the one that alone has its name, or else one that says the same."""
        name = plain.get("name", "")
        alike = [id_ for id_, stored in left.items() if id_ not in claimed and stored["name"] == name]
        if len(alike) == 1 and name:
            return alike[0]
        for id_ in alike:
            try:
                if await self._subscriptions.validated(tenant_id, id_, plain) == left[id_]:
                    return id_
            except BackhaulError as exc:
                if exc.code is not Code.INVALID_ARGUMENT:
                    raise
        return None


def _refuse_twice(document: ApplyIn) -> None:
    """INVALID_ARGUMENT names what the document has twice: it cannot be both."""
    seen: set[tuple[str, str]] = set()
    for number, one in enumerate(document.tenants):
        labels = [str(channel.get("label", at)) for at, channel in enumerate(one.channels)]
        at = f"tenants[{number}]"
        parts = [("", f"{at}.id"), *((channel_key(label), f"{at}.channels[{n}]") for n, label in enumerate(labels))]
        for key, place in parts:
            if (one.id, key) in seen:
                message = f"The document has the {'channel' if key else 'tenant'} {key or one.id!r} twice."
                raise BackhaulError(Code.INVALID_ARGUMENT, message, field=place, fix="Say once what it is to be.")
            seen.add((one.id, key))


@contextmanager
def _named(at: str) -> Iterator[None]:
    """Around what is about the part of a document at ``at``: errors name it."""
    try:
        yield
    except BackhaulError as exc:
        if at in exc.message:
            raise
        found = exc.violations or (Violation("", exc.message, "Change it in the document, or leave it out."),)
        raise BackhaulError(
            exc.code,
            f"{at}: {exc.message}",
            violations=[Violation(f"{at}.{one.field}".rstrip("."), one.message, one.fix) for one in found],
            retry_after_s=exc.retry_after_s,
        ) from exc


def _validated(model: type[ChannelIn], given: Json) -> ChannelIn:
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        wrong = violations(exc.errors(), model, given)
        raise BackhaulError(Code.INVALID_ARGUMENT, "The channel is not valid.", violations=wrong) from None
