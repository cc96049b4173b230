"""Stored callbacks into facts and rejections, with the adapters. Pure but for the tenants that it looks up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

from backhaul_channels import Adapter, ChannelSettings, Context, Ignored, MalformedError, RawCallback, Source
from backhaul_channels.jsonparts import split_json
from backhaul_channels.reading import read_part
from backhaul_channels.sends import read_send
from backhaul_common.ids import derived_id
from backhaul_common.logs import get_logger
from backhaul_common.tenants import Tenant
from backhaul_common.wire import repeated
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.callback.v1.callback_pb2 import Callback
from pydantic import ValidationError

from backhaul_normalizer.facts import custom_parameters, fact, origin
from backhaul_normalizer.model import Fact, Rejection
from backhaul_normalizer.ports import Tenants

MAX_PARTS = 10_000
"""Parts of one callback. SendGrid's largest post, 768 KB, has some 3,000."""

MAX_COMMON, MAX_COMMON_TIMES = 4 << 20, 16
"""Bytes of what the events of one callback have in common, its URL's parameters above all: of all together, or times
the size of its body if that is more. Each event is stored and published with a copy."""

MAX_REJECTED = 10
"""Parts of one callback that are rejected one by one; when there are more, the callback is one dead letter."""

_OTHER = "other"
"""For which an adapter ignored a part without having declared it: it must not make a row of its own in the metric."""

_SOURCES: Mapping[int, Source] = {
    callback_pb2.SOURCE_BACKFILL: Source.BACKFILL,
    callback_pb2.SOURCE_REPLAY: Source.REPLAY,
}


class Normalizer:
    """Reads callbacks. One bad part of a callback rejects that part alone."""

    def __init__(self, adapters: Mapping[str, Adapter[Any]], directory: Tenants) -> None:
        self._adapters = adapters
        self._settings: dict[tuple[str, str, str], ChannelSettings] = {}
        self._directory = directory
        self._log = get_logger(component="normalizer")
        directory.listen(self._forget)

    def _forget(self, tenant_id: str, _: Tenant | None) -> None:
        for key in [key for key in self._settings if key[0] == tenant_id]:
            del self._settings[key]

    def read(self, callback: Callback, stream_seq: int, path: str) -> Iterable[Fact | Ignored | Rejection]:
        """Each part of ``callback`` as a fact, as ignored, or as a rejection that says why it could not be read. Never
        raises.

        ``stream_seq`` and ``path`` are the position and the queue path of the message of CALLBACKS that brought it.
        """
        adapter = self._adapters.get(callback.provider)
        if adapter is None:
            reason = f"There is no adapter for the provider {callback.provider!r}."
            yield from self.reject(callback, [(0, callback.body, reason)], stream_seq, path)
            return
        settings = self._settings.get((callback.tenant_id, callback.channel, callback.provider))
        if settings is None:
            settings = self._channel_settings(callback, adapter)
        try:
            sent = callback.source == callback_pb2.SOURCE_SENDER
            parts = _checked(split_json(callback.body)) if sent else _split(adapter, callback, settings)
            common = origin(
                callback,
                stream_seq,
                path,
                adapter.own_parameters,
                url_is_signed=adapter.signs_url,
                # That a sender handed a message over is another fact than that the provider took it.
                once=frozenset() if sent else adapter.once,
            )
            _check_common(len(common.payload) * len(parts), callback)
            source = _SOURCES.get(callback.source, Source.CALLBACK)
            context = Context(settings, common.parameters, source, common.received_at_us)
        except Exception as exc:  # noqa: BLE001  # as below
            reason = self._reason(callback, exc, log=True)
            yield from self.reject(callback, [(0, callback.body, reason)], stream_seq, path)
            return
        rejected: list[tuple[int, bytes, str]] = []
        for position, part in enumerate(parts):
            try:
                event = read_send(part, adapter, context) if sent else read_part(adapter, part, context)
                if isinstance(event, Ignored):
                    one: Fact | Ignored = event if event.reason in adapter.ignores else Ignored(_OTHER)
                else:
                    one = fact(common, part, event, settings)
            except Exception as exc:  # noqa: BLE001  # a bug in an adapter costs this part a replay, never the batch its commit
                rejected.append((position, part, self._reason(callback, exc, log=not rejected)))
            else:
                yield one
        if rejected:
            yield from self.reject(callback, rejected, stream_seq, path)

    def reject(
        self, callback: Callback, parts: Sequence[tuple[int, bytes, str]], stream_seq: int, path: str
    ) -> Iterable[Rejection]:
        """The dead letters of ``parts``: of each its position, its bytes and the reason. The same part has the same id,
        whichever callback brings it. Of too many parts the whole callback is one."""
        if len(parts) > MAX_REJECTED:
            _, _, reason = parts[0]
            parts = [(0, callback.body, f"{len(parts)} of its events cannot be read. The first: {reason}")]
        # Serialised without its body, once: it may hold half as many bad parts as bytes.
        rest = Callback()
        rest.CopyFrom(callback)
        rest.ClearField("body")
        serialised = rest.SerializeToString()
        # A replay carries the time at which the callback first arrived; it was seen now.
        replayed = callback.source == callback_pb2.SOURCE_REPLAY
        seen_at_us = time.time_ns() // 1000 if replayed else callback.received_at_us
        ids = self.letter_ids(callback, [part for _, part, _ in parts])
        for (position, part, reason), letter_id in zip(parts, ids, strict=True):
            yield Rejection(
                id=letter_id,
                tenant=callback.tenant_id,
                registration=callback.registration,
                path=path,
                channel=callback.channel,
                provider=callback.provider,
                # What a body says may be quoted in it, and MongoDB takes no lone surrogates.
                reason=reason.encode("utf-8", "replace").decode(),
                callback=serialised + repeated(Callback.BODY_FIELD_NUMBER, [part]),
                seen_at_us=seen_at_us,
                stream_seq=stream_seq,
                position=position,
            )

    def letter_ids(self, callback: Callback, parts: Sequence[bytes]) -> Sequence[str]:
        """The ids of the dead letters that ``parts`` of ``callback`` are, or would be."""
        adapter = self._adapters.get(callback.provider)
        # Without what the provider's signature adds, which differs each time. Where the signature leaves the URL out,
        # whoever holds one signed request could post it under any number of queries, so they are no part of the id.
        signed = adapter is None or adapter.signs_url
        own = adapter.own_parameters if adapter is not None else ()
        parameters = custom_parameters(callback.url, own) if signed else []
        return [
            derived_id(
                "dead",
                callback.registration,
                callback.channel,
                callback.provider,
                f"{len(part)}:{part.decode('latin-1')}{parameters}",
            )
            for part in parts
        ]

    def _reason(self, callback: Callback, exc: Exception, *, log: bool) -> str:
        if isinstance(exc, MalformedError):
            return str(exc)
        if log:
            self._log.error("adapter_failed", provider=callback.provider, callback_id=callback.id, exc_info=exc)
        return f"The adapter failed: {type(exc).__name__}."

    def _channel_settings(self, callback: Callback, adapter: Adapter[Any]) -> ChannelSettings:
        tenant = self._directory.get(callback.tenant_id)
        if tenant is not None and tenant.registration != callback.registration:
            # Not remembered: this copy may only be behind, and the tenant's successor has settings of its own.
            return adapter.settings_model()
        channel = tenant.channels.get(callback.channel) if tenant is not None else None
        settings = adapter.settings_model()
        if channel is not None and channel.provider == callback.provider:
            try:
                settings = adapter.settings_model.of_stored(channel.settings)
            except ValidationError as exc:
                # Settings are checked when they are written, but maybe by another version of the adapter.
                self._log.error(
                    "channel_settings_invalid", tenant=callback.tenant_id, channel=callback.channel, exc_info=exc
                )
        self._settings[callback.tenant_id, callback.channel, callback.provider] = settings
        return settings


class _StoredHeaders(Sequence[tuple[bytes, bytes]]):
    """The headers of a stored callback; its lines are parsed if somebody looks, which hardly any adapter does."""

    def __init__(self, lines: bytes) -> None:
        self._lines = lines

    @cached_property
    def _pairs(self) -> list[tuple[bytes, bytes]]:
        pairs = (line.partition(b": ") for line in self._lines.split(b"\r\n") if line)
        return [(name, value) for name, _, value in pairs]

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, bytes]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[bytes, bytes]]: ...

    def __getitem__(self, index: int | slice) -> tuple[bytes, bytes] | list[tuple[bytes, bytes]]:
        return self._pairs[index]

    def __len__(self) -> int:
        return len(self._pairs)


def _split(adapter: Adapter[Any], callback: Callback, settings: ChannelSettings) -> Sequence[bytes]:
    raw = RawCallback(callback.method, callback.url, _StoredHeaders(callback.headers), callback.body)
    return _checked(adapter.split(raw, settings))


def _checked(parts: Sequence[bytes]) -> Sequence[bytes]:
    if len(parts) > MAX_PARTS:
        raise MalformedError(f"It holds {len(parts)} events; at most {MAX_PARTS} are read of one callback.")
    return parts


def _check_common(size: int, callback: Callback) -> None:
    if size > MAX_COMMON and size > MAX_COMMON_TIMES * len(callback.body):
        raise MalformedError(
            f"The parameters of its URL are kept with each of its events, and would take {size >> 20} MB. Put what "
            "differs from one message to another into the messages' own parameters."
        )
