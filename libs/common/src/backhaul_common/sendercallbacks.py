"""Callbacks of senders: what a tenant tells of its own messages takes the way of what providers tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from backhaul_proto.callback.v1.callback_pb2 import SOURCE_SENDER, VERIFICATION_CREDENTIAL, Callback

from backhaul_common.ids import new_callback_id
from backhaul_common.tenants import Tenant

SENDS_PATH: Final = "/v1/sends"

MAX_CALLBACK_SENDS: Final = 1_000
MAX_CALLBACK_BYTES: Final = 256 << 10
"""Sends of one callback, and bytes of its body unless a single one has more. Whoever reads it takes turns between
callbacks, and every one of them must fit into a message of the stream."""


def sender_callback(
    tenant: Tenant, channel: str, sends: Sequence[bytes], *, received_at_us: int, traceparent: str
) -> Callback:
    """A callback by which the sender itself tells ``sends``, each as ``encoded`` of ``backhaul_channels.sends`` has it.

    ``channel`` is the key of one of the tenant's channels. KeyError where it has no such channel.
    """
    return Callback(
        id=new_callback_id(),
        tenant_id=tenant.id,
        registration=tenant.registration,
        channel=channel,
        provider=tenant.channels[channel].provider,
        method="POST",
        url=SENDS_PATH,
        body=b"[%b]" % b",".join(sends),
        received_at_us=received_at_us,
        source=SOURCE_SENDER,
        verification=VERIFICATION_CREDENTIAL,
        traceparent=traceparent,
    )


def sender_callbacks(
    tenant: Tenant, channel: str, sends: Iterable[bytes], *, received_at_us: int, traceparent: str
) -> list[Callback]:
    """``sender_callback`` of any number of sends: as many as it takes, in their order; none of none."""
    return [
        sender_callback(tenant, channel, some, received_at_us=received_at_us, traceparent=traceparent)
        for some in _portions(sends)
    ]


def _portions(sends: Iterable[bytes]) -> Iterator[list[bytes]]:
    portion: list[bytes] = []
    size = 0
    for send in sends:
        if portion and (len(portion) == MAX_CALLBACK_SENDS or size + len(send) > MAX_CALLBACK_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(send)
        size += len(send) + 1
    if portion:
        yield portion
