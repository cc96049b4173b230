"""Stored callbacks into facts and rejections, with the adapters. Pure but for the tenants that it looks up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from backhaul_channels import Adapter, ChannelSettings, MalformedError
from backhaul_common.ids import derived_id
from backhaul_common.logs import get_logger
from backhaul_common.tenants import Tenant, TenantDirectory
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_REPLAY, Callback
from pydantic import ValidationError

from backhaul_normalizer.facts import Fact, fact, origin
from backhaul_normalizer.store import Rejection


class Normalizer:
    """Reads callbacks. One bad part of a callback rejects that part alone."""

    def __init__(self, adapters: Mapping[str, Adapter], directory: TenantDirectory) -> None:
        self._adapters = adapters
        self._settings: dict[tuple[str, str, str], ChannelSettings] = {}
        self._directory = directory
        self._log = get_logger(component="normalizer")
        directory.listen(self._forget)

    def _forget(self, tenant_id: str, _: Tenant | None) -> None:
        for key in [key for key in self._settings if key[0] == tenant_id]:
            del self._settings[key]

    def read(self, callback: Callback, stream_seq: int) -> Iterable[Fact | Rejection]:
        """Each part of ``callback`` as a fact, or as a rejection that says why it could not be read."""
        adapter = self._adapters.get(callback.provider)
        if adapter is None:
            yield reject(
                callback, callback.body, f"There is no adapter for the provider {callback.provider!r}.", stream_seq
            )
            return
        settings = self._settings.get((callback.tenant_id, callback.channel, callback.provider))
        if settings is None:
            settings = self._channel_settings(callback, adapter)
        try:
            parts = adapter.split(callback.body)
        except MalformedError as exc:
            yield reject(callback, callback.body, str(exc), stream_seq)
            return
        common = origin(callback, stream_seq)
        for part in parts:
            try:
                one = fact(common, part, adapter.normalize(part, settings), settings)
            except MalformedError as exc:
                yield reject(callback, part, str(exc), stream_seq)
            except Exception as exc:  # noqa: BLE001  # a bug in an adapter costs this part a replay, never the batch its commit
                self._log.error("adapter_failed", provider=callback.provider, callback_id=callback.id, exc_info=exc)
                yield reject(callback, part, f"The adapter failed: {type(exc).__name__}.", stream_seq)
            else:
                yield one

    def _channel_settings(self, callback: Callback, adapter: Adapter) -> ChannelSettings:
        tenant = self._directory.get(callback.tenant_id)
        channel = tenant.channels.get(callback.channel) if tenant is not None else None
        settings = adapter.settings_model()
        if channel is not None and channel.provider == callback.provider:
            try:
                settings = adapter.settings_model.model_validate(dict(channel.settings))
            except ValidationError as exc:
                # Settings are checked when they are written; an older adapter than the gateway's may know fewer fields.
                self._log.error(
                    "channel_settings_invalid", tenant=callback.tenant_id, channel=callback.channel, exc_info=exc
                )
        self._settings[callback.tenant_id, callback.channel, callback.provider] = settings
        return settings


def reject(callback: Callback, part: bytes, reason: str, stream_seq: int) -> Rejection:
    """The dead letter of ``part``; the same part has the same id, whichever callback brings it."""
    kept = Callback()
    kept.CopyFrom(callback)
    kept.body = part
    return Rejection(
        id=derived_id(
            "dead",
            callback.tenant_id,
            callback.channel,
            callback.provider,
            f"{len(part)}:{part.decode('latin-1')}{callback.url.partition('?')[2]}",
        ),
        tenant=callback.tenant_id,
        channel=callback.channel,
        provider=callback.provider,
        reason=reason,
        callback=kept.SerializeToString(),
        # A replay carries the time at which the callback first arrived; it was seen now.
        seen_at_us=time.time_ns() // 1000 if callback.source == SOURCE_REPLAY else callback.received_at_us,
        stream_seq=stream_seq,
    )
