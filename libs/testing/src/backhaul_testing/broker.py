"""A test's own connection to NATS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client

CONNECT_TIMEOUT_S = 20
"""nats-py forgets the socket of a handshake that took too long, and the garbage collector complains of it in whichever
test runs then. A loaded machine takes longer than the two seconds that nats-py gives by itself."""


async def connect(url: str | Sequence[str], **options: Any) -> Client:
    """``nats.connect`` with patience; ``options`` are those of nats-py. Raises what nats-py raises.

    ``url`` may be several, comma-separated, of which one is enough.
    """
    client = Client()
    try:
        await client.connect(
            url.split(",") if isinstance(url, str) else list(url), **{"connect_timeout": CONNECT_TIMEOUT_S, **options}
        )
    except BaseException:
        await client.close()  # Where the server refuses it, nats-py leaves the socket open.
        raise
    return client
