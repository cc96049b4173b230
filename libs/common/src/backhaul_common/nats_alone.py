"""Imports nats-py without aiohttp. Whatever imports nats-py for the first time imports this before.

nats-py takes aiohttp along wherever it is installed, to speak over WebSockets, which no service does: some 0.3 seconds
of processor for each start of a service that is in one environment with the notifier, which needs aiohttp.
"""

from __future__ import annotations

import sys

if "aiohttp" not in sys.modules:
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # Python's way to say that there is none.
    try:
        import nats.aio.transport  # noqa: F401  # What it imports is remembered for all who import it later.
    finally:
        del sys.modules["aiohttp"]
