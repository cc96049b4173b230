"""How each side of a connection notices that it is dead."""

from __future__ import annotations

from collections.abc import Sequence

INTERVAL_S = 4.0
"""Each side asks whether the other is there when it has heard nothing for so long, also while nobody calls."""

PATIENCE_S = 3.0
"""How long the answer may take. Then the connection is given up, and the calls on it are UNAVAILABLE."""

Options = Sequence[tuple[str, int]]


def of_client() -> Options:
    """Options of a channel."""
    return _asking()


def of_server() -> Options:
    """Options of a server, which otherwise ends the connection of a client that asks more than every five minutes."""
    return [
        *_asking(),
        ("grpc.http2.min_ping_interval_without_data_ms", round(INTERVAL_S * 1000 / 2)),
    ]


def _asking() -> Options:
    return [
        ("grpc.keepalive_time_ms", round(INTERVAL_S * 1000)),
        ("grpc.keepalive_timeout_ms", round(PATIENCE_S * 1000)),
        # Of any ping, those for gRPC's own measurements included. While one of them waits, gRPC sends no other.
        ("grpc.http2.ping_timeout_ms", round(PATIENCE_S * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        # gRPC would stop asking after twice without anything to send.
        ("grpc.http2.max_pings_without_data", 0),
    ]
