"""What one step lets through, the next one takes: with what is really written, not with the constants alone."""

from __future__ import annotations

import re

import bson
from backhaul_common import sizes
from backhaul_common.ids import new_callback_id
from backhaul_common.jetstream import headers_of
from backhaul_common.names import CALLBACKS_STREAM, EVENTS_STREAM
from backhaul_common.tenants import Limits
from backhaul_common.tracing import new_traceparent
from backhaul_local.nats_server import NatsConfig
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch

MAX_NAME = 64
"""Ids of tenants, queue paths, channels and providers are no longer."""


def largest_callback() -> Callback:
    """Everything that is bounded at its bound. A byte of a query that is not ASCII takes two here."""
    return Callback(
        id=new_callback_id(),
        tenant_id="t" * MAX_NAME,
        registration="r" * MAX_NAME,
        channel="c" * MAX_NAME,
        provider="p" * MAX_NAME,
        method="POST",
        url=f"https://{'h' * 253}/{'p' * 1024}?{'é' * sizes.MAX_QUERY_BYTES}",
        headers=b"h" * sizes.MAX_HEADER_BYTES,
        body=b"b" * sizes.MAX_BODY_BYTES,
        received_at_us=1 << 60,
        source=callback_pb2.SOURCE_CALLBACK,
        verification=callback_pb2.VERIFICATION_VERIFIED,
        traceparent=new_traceparent(),
    )


def test_the_largest_body_that_a_tenant_may_allow_is_the_one_that_everything_fits() -> None:
    (most,) = [part.le for part in Limits.model_fields["max_body_bytes"].metadata if hasattr(part, "le")]
    assert most == sizes.MAX_BODY_BYTES


def test_the_largest_callback_fits_its_message_and_its_message_what_is_asked_of_the_broker() -> None:
    callback = largest_callback()
    assert callback.ByteSize() <= sizes.MAX_CALLBACK_BYTES
    message = CallbackBatch(callbacks=[callback]).ByteSize()
    assert headers_size(CALLBACKS_STREAM) < sizes.MESSAGE_HEADER_BYTES
    # A pull counts the subject and the headers too, and some bytes of its own.
    assert message + sizes.MESSAGE_HEADER_BYTES + 4096 < sizes.MIN_PULL_BYTES
    assert message + sizes.MESSAGE_HEADER_BYTES < local_payload()


def test_the_largest_event_fits_a_message_of_a_broker_that_nobody_configured() -> None:
    framing = sizes.MAX_EVENTS_MESSAGE_BYTES - sizes.MAX_EVENT_BYTES
    assert headers_size(EVENTS_STREAM) < framing
    assert sizes.MAX_EVENTS_MESSAGE_BYTES < sizes.NATS_DEFAULT_PAYLOAD_BYTES < local_payload()


def test_the_largest_callback_fits_a_document_a_request_and_a_page() -> None:
    # As a dead letter it lies in a document, and somebody may ask for it, or send it to be tried.
    letter = {"callback": largest_callback().SerializeToString(), "reason": "r" * 4096}
    assert len(bson.encode(letter)) < sizes.MAX_DOCUMENT_BYTES
    assert sizes.MAX_CALLBACK_BYTES < sizes.MAX_REQUEST_BYTES
    # A page may go beyond its size by its last row, and a row that is larger than a page comes alone.
    assert max(sizes.PAGE_BYTES, sizes.MAX_DOCUMENT_BYTES) + sizes.MAX_CALLBACK_BYTES < sizes.MAX_ANSWER_BYTES
    assert sizes.MAX_EVENT_BYTES < sizes.PAGE_BYTES


def headers_size(stream: str) -> int:
    """What NATS writes before a message's payload."""
    headers = headers_of(stream, "m" * 64, new_traceparent())
    return len("NATS/1.0\r\n\r\n") + sum(len(f"{name}: {value}\r\n") for name, value in headers.items())


def local_payload() -> int:
    """The ``max_payload`` of the local stack, as nats-server reads it: MB are powers of 1024."""
    match = re.fullmatch(r"(\d+)MB", NatsConfig.max_payload)
    assert match is not None
    return int(match[1]) << 20
