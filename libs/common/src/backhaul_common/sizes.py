"""The sizes that must fit each other, in bytes, from a provider's body to what a reader is answered.

What one step lets through, every later one must be able to take: a callback that was answered 200 and then is too large
for a message, a document or an answer would be lost, or hold up everything behind it. ``test_sizes`` has the
inequalities.
"""

from __future__ import annotations

MAX_BODY_BYTES = 4 << 20
"""The largest body that a tenant may be allowed."""

MAX_HEADER_BYTES = 16 << 10
"""Headers of a request."""

MAX_QUERY_BYTES = 4 << 10
"""The query of a callback."""

BESIDE_BODY_BYTES = 32 << 10
"""What a stored callback has at most beside its body: headers, address, ids, and how they are written."""

MAX_CALLBACK_BYTES = MAX_BODY_BYTES + BESIDE_BODY_BYTES
"""A stored callback."""

MESSAGE_HEADER_BYTES = 1 << 10
"""Room for the headers of a message of a stream, where its payload is nearly as large as the broker takes."""

MIN_PULL_BYTES = 6 << 20
"""The least that a consumer may ask of the broker at a time. A message that is larger could never be had."""

MAX_EVENT_BYTES = 512 << 10
"""A serialised event. Providers' are a few KB."""

MAX_EVENTS_MESSAGE_BYTES = MAX_EVENT_BYTES + (64 << 10)
"""A message of events, its headers and the framing of the events in it included."""

NATS_DEFAULT_PAYLOAD_BYTES = 1 << 20
"""The largest message of a nats-server whose ``max_payload`` nobody set."""

PAGE_BYTES = 4 << 20
"""A page of rows ends, and a timeline is cut, before it is larger, whatever number of rows was asked for. A single row
that is larger comes alone."""

MAX_REQUEST_BYTES, MAX_ANSWER_BYTES = 16 << 20, 32 << 20
"""What a gRPC server takes, and what a client takes."""

MAX_DOCUMENT_BYTES = 16 << 20
"""A document of MongoDB: https://www.mongodb.com/docs/manual/reference/limits/"""

MAX_COUNTED = 10_000
"""How many of a kind are counted. The contract says so: counting millions would outlast the call that asks."""
