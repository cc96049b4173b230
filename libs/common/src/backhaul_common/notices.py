"""Notices: what Backhaul itself has to say to a tenant. They leave by the outbox of the service that says them."""

from __future__ import annotations

from backhaul_proto.notice.v1.notice_pb2 import Notice

from backhaul_common.ids import derived_id
from backhaul_common.names import NOTICES_STREAM, notices_subject
from backhaul_common.outbox import Entry


def notice_id(registration: str, notice_type: str, occasion: str) -> str:
    """The id of a notice: one for each ``occasion`` on which a registration is told of ``notice_type``."""
    return derived_id("notice", registration, notice_type, occasion)


def entry(notice: Notice, path: str) -> Entry:
    """``notice`` as a row of the outbox; ``path`` is the queue path of its registration.

    ValueError where its type is none, or where it is too large.
    """
    return Entry(
        id=notice.id,
        registration=notice.registration,
        path=path,
        stream=NOTICES_STREAM,
        subject=notices_subject(path, notice.type),
        payload=notice.SerializeToString(),
        at_us=notice.occurred_at_us,
        traceparent=notice.traceparent,
    )
