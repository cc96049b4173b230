"""What members tell of messages that were sent takes the way of callbacks, as what senders tell of single sends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

from backhaul_channels.sends import Send, encoded
from backhaul_common.ids import derived_id
from backhaul_common.jetstream import Publisher, Written, headers_of
from backhaul_common.names import CALLBACKS_STREAM, callbacks_subject
from backhaul_common.sendercallbacks import sender_callbacks
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import current_traceparent
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch

from backhaul_normalizer.communications.ports import SentMessage

_TIMEOUT_S = 5.0


class JetStreamSends:
    """See ``Sends``."""

    def __init__(self, publisher: Publisher, now_us: Callable[[], int]) -> None:
        self._publisher = publisher
        self._now_us = now_us

    async def publish(self, tenant: Tenant, communication_id: str, batch_id: str, sent: Sequence[SentMessage]) -> None:
        """See ``Sends``. An event knows its send by the message's id, so what is published twice counts once."""
        sends: dict[str, list[bytes]] = {}
        for one in sent:
            send = Send(
                message_id=one.message_id,
                recipient=one.recipient,
                communication=communication_id,
                batch=batch_id,
                member=one.member_key,
            )
            sends.setdefault(one.channel, []).append(encoded(send))
        traceparent = current_traceparent()
        callbacks = [
            callback
            for channel, some in sends.items()
            for callback in sender_callbacks(
                tenant, channel, some, received_at_us=self._now_us(), traceparent=traceparent
            )
        ]
        async with self._publisher.together(_TIMEOUT_S) as send_all:
            await send_all([_written(tenant, callback) for callback in callbacks])


def _written(tenant: Tenant, callback: Callback) -> Written:
    body = blake2b(callback.body, digest_size=16).hexdigest()
    message_id = derived_id("members", tenant.registration, callback.channel, body)
    return (
        callbacks_subject(tenant.queue_path, callback.channel),
        CallbackBatch(callbacks=[callback]).SerializeToString(),
        headers_of(CALLBACKS_STREAM, message_id, callback.traceparent),
    )
