"""What was found goes the way of callbacks: into CALLBACKS, as backfill."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from backhaul_common.ids import derived_id, new_callback_id
from backhaul_common.jetstream import Publisher, Written, headers_of, translated
from backhaul_common.names import CALLBACKS_STREAM, callbacks_of, callbacks_subject, queue_path_key
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import current_traceparent
from backhaul_proto.callback.v1.callback_pb2 import (
    SOURCE_BACKFILL,
    VERIFICATION_VERIFIED,
    Callback,
    CallbackBatch,
)
from nats.js import JetStreamContext

PART_OF_SHARE: Final = 0.8
"""Of a tenant's share of CALLBACKS: the rest is for callbacks, which their providers may not repeat."""

_TIMEOUT_S: Final = 5.0

Owners = Callable[[Collection[str]], Awaitable[Mapping[str, str]]]
"""The registrations that have these queue paths now, by path. UNAVAILABLE."""


class NoRoomError(Exception):
    """CALLBACKS has no room for the tenant's backfill now. The message is for people."""


class GoneError(Exception):
    """The tenant is gone, or is about to be."""


class Backfill:
    """Publishes records of a tenant's channel, each as the body of one callback."""

    def __init__(self, publisher: Publisher, js: JetStreamContext, owners: Owners) -> None:
        self._publisher = publisher
        self._js = js
        self._owners = owners

    async def publish(
        self, tenant: Tenant, channel: str, listing: str, records: Sequence[bytes], read_at_us: int
    ) -> None:
        """Returns when all ``records`` are stored; each has ``MAX_BODY_BYTES`` at most. What is published twice within
        two minutes is stored once, and counts once in any case.

        NoRoomError where CALLBACKS is full, or the tenant's share of it; GoneError; UNAVAILABLE.
        """
        path = queue_path_key(tenant.queue_path)
        await self._require_room(tenant, sum(map(len, records)))
        # CALLBACKS has no fence, and this process may have slept.
        if (await self._owners([path])).get(path) != tenant.registration:
            raise GoneError
        written = [self._written(tenant, channel, listing, record, read_at_us) for record in records]
        async with self._publisher.together(_TIMEOUT_S) as send:
            await send(written)

    async def _require_room(self, tenant: Tenant, size: int) -> None:
        """A tenant may hold as much as is then still free. What its messages take is not known here, so they count as
        the average."""
        async with translated():
            info = await self._js.stream_info(CALLBACKS_STREAM, subjects_filter=callbacks_of(tenant.queue_path))
        limit = info.config.max_bytes or 0
        if limit <= 0:
            return
        state = info.state
        free = max(0, limit - state.bytes)
        if size > free:
            raise NoRoomError("CALLBACKS is full: what is missing is backfilled once it has room.")
        mine = sum((state.subjects or {}).values())
        held = state.bytes * mine / state.messages if state.messages else 0.0
        if held + size > PART_OF_SHARE * (free - size):
            raise NoRoomError(
                "The tenant's share of CALLBACKS is taken: what is missing is backfilled once callbacks are processed."
            )

    def _written(self, tenant: Tenant, channel: str, listing: str, record: bytes, read_at_us: int) -> Written:
        """One message for each record: so it is known again, whatever others it was found with."""
        traceparent = current_traceparent()
        callback = Callback(
            id=new_callback_id(),
            tenant_id=tenant.id,
            registration=tenant.registration,
            channel=channel,
            provider=tenant.channels[channel].provider,
            method="GET",
            url=f"backfill:{listing}",
            body=record,
            received_at_us=read_at_us,
            source=SOURCE_BACKFILL,
            verification=VERIFICATION_VERIFIED,
            traceparent=traceparent,
        )
        return (
            callbacks_subject(tenant.queue_path, channel),
            CallbackBatch(callbacks=[callback]).SerializeToString(),
            headers_of(
                CALLBACKS_STREAM, derived_id("backfill", tenant.registration, channel, mark_of(record)), traceparent
            ),
        )


def mark_of(record: bytes) -> str:
    """By what a record is known again."""
    return blake2b(record, digest_size=16).hexdigest()
