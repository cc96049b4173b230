"""NATS JetStream: the connection, the streams, and publishing into them."""

from backhaul_common.jetstream.acks import MessageRefusedError, NotStoredError
from backhaul_common.jetstream.batching import parts
from backhaul_common.jetstream.connection import Connection, connect, require_connected
from backhaul_common.jetstream.outage import AWAY, is_away, translated
from backhaul_common.jetstream.publishing import Message, Publisher, Written, headers_of
from backhaul_common.jetstream.streams import ends, ensure_streams, holds_messages, lacks_room, purge, subjects

__all__ = [
    "AWAY",
    "Connection",
    "Message",
    "MessageRefusedError",
    "NotStoredError",
    "Publisher",
    "Written",
    "connect",
    "ends",
    "ensure_streams",
    "headers_of",
    "holds_messages",
    "is_away",
    "lacks_room",
    "parts",
    "purge",
    "require_connected",
    "subjects",
    "translated",
]
