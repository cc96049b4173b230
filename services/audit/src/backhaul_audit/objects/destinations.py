"""Which bucket is whose: the installation's, or a channel's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from backhaul_channels.settings import AuditBucket, AuditKeys, ChannelSettings
from backhaul_common.directory import TenantDirectory
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.secrets import SecretBox
from backhaul_common.tenants import Channel, Tenant
from pydantic import ValidationError

from backhaul_audit.objects.bucket import Bucket
from backhaul_audit.objects.place import Place

OWN = ""
"""The name of the installation's bucket among the destinations."""


_NOT_SET_UP = ("No object storage is set up.", "Set BACKHAUL_OBJECT_STORE_ENDPOINT, and what belongs to it.")


class _Kept(NamedTuple):
    """A channel as it was when it was last looked at, what it says of a bucket of its own, and that bucket."""

    channel: Channel
    own: AuditBucket | None
    bucket: Bucket | None


class Buckets:
    """``Destinations``. A channel's bucket is made when it is first asked for, and anew when its settings change."""

    def __init__(self, installation: Place | None, tenants: TenantDirectory, box: SecretBox) -> None:
        self._installation: Bucket | None = None
        self._missing = _NOT_SET_UP
        if installation is not None:
            try:
                self._installation = Bucket(installation)
            except BackhaulError as exc:
                self._missing = (exc.message, exc.fix)
        self._box = box
        self._tenants: dict[str, Tenant] = {}
        self._kept: dict[tuple[str, str], _Kept] = {}
        tenants.listen(self._changed)

    def close(self) -> None:
        """Let go of every bucket; who waits for one gets UNAVAILABLE."""
        for bucket in self._all():
            bucket.close()

    def of(self, tenant: Tenant, channel: Channel) -> Bucket:
        """See ``Destinations``."""
        return self._own(tenant, channel) or self._required()

    def named(self, registration: str, destination: str) -> Bucket:
        """See ``Destinations``."""
        if destination == OWN:
            return self._required()
        tenant = self._by_registration(registration)
        channel = tenant.channels.get(destination) if tenant is not None else None
        bucket = self._own(tenant, channel) if tenant is not None and channel is not None else None
        if bucket is None:
            message = f"The channel {destination!r} has no bucket of its own any more."
            raise BackhaulError(Code.FAILED_PRECONDITION, message, fix="Give it back the one that its files lie in.")
        return bucket

    def lying(self, registration: str, destination: str, bucket: str) -> Bucket:
        """See ``Destinations``."""
        present = self.named(registration, destination)
        return present if present.bucket == bucket else present.beside(bucket)

    def everywhere(self) -> Mapping[tuple[str, str], Bucket]:
        """Every bucket that there is now, by registration and destination; the installation's has neither."""
        found: dict[tuple[str, str], Bucket] = {}
        if self._installation is not None:
            found["", OWN] = self._installation
        for tenant in self._tenants.values():
            for channel in tenant.channels.values() if tenant.status != "deleting" else ():
                # What cannot be one is said by whoever needs it.
                with suppress(BackhaulError):
                    if (bucket := self._own(tenant, channel)) is not None:
                        found[tenant.registration, channel.key] = bucket
        return found

    def _required(self) -> Bucket:
        if self._installation is None:
            message, fix = self._missing
            raise BackhaulError(Code.FAILED_PRECONDITION, message, fix=fix)
        return self._installation

    def _own(self, tenant: Tenant, channel: Channel) -> Bucket | None:
        key = (tenant.registration, channel.key)
        kept = self._kept.get(key)
        if kept is not None and kept.channel is channel:
            return kept.bucket
        own = _own(channel)
        if own is None:
            bucket = None
        elif kept is not None and kept.own == own and kept.channel.audit_credentials == channel.audit_credentials:
            bucket = kept.bucket
        else:
            # Whoever still uses the one before goes on with it; it ends when nobody does.
            bucket = Bucket(self._place(own, channel))
        self._kept[key] = _Kept(channel, own, bucket)
        return bucket

    def _place(self, own: AuditBucket, channel: Channel) -> Place:
        access_key = secret_key = ""
        if own.credentials == "keys":
            try:
                keys = AuditKeys.of_stored(json.loads(self._box.decrypt(channel.audit_credentials)))
            except (ValueError, ValidationError):
                message = f"The channel {channel.key!r} has no audit_credentials that can be read."
                raise BackhaulError(Code.FAILED_PRECONDITION, message, fix="Set them again.") from None
            access_key, secret_key = keys.access_key, keys.secret_key
        return Place(
            endpoint=own.endpoint,
            bucket=own.bucket,
            region=own.region,
            public_endpoint=own.public_endpoint,
            credentials=own.credentials,
            access_key=access_key,
            secret_key=secret_key,
        )

    def _by_registration(self, registration: str) -> Tenant | None:
        tenant = self._tenants.get(registration.rpartition(".")[0])
        return tenant if tenant is not None and tenant.registration == registration else None

    def _changed(self, tenant_id: str, tenant: Tenant | None) -> None:
        before = self._tenants.pop(tenant_id, None)
        if tenant is not None:
            self._tenants[tenant_id] = tenant
        if before is None:
            return
        for key in before.channels:
            if tenant is None or tenant.registration != before.registration or key not in tenant.channels:
                self._kept.pop((before.registration, key), None)

    def _all(self) -> Iterator[Bucket]:
        if self._installation is not None:
            yield self._installation
        yield from (kept.bucket for kept in self._kept.values() if kept.bucket is not None)


def _own(channel: Channel) -> AuditBucket | None:
    try:
        return ChannelSettings.of_stored(channel.settings).audit.bucket
    except ValidationError:
        # A newer version wrote what this one cannot read.
        message = f"The audit settings of the channel {channel.key!r} cannot be read by this version."
        raise BackhaulError(Code.FAILED_PRECONDITION, message, fix="Let all services run the newer version.") from None
