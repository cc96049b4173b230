"""How full the streams are that give up nothing before its age. Of CALLBACKS, where room is made, the gateway tells."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from backhaul_common.jetstream import AWAY
from backhaul_common.metering import Metrics
from backhaul_common.metrics import STREAM_FILL
from backhaul_common.names import EVENTS_STREAM, NOTICES_STREAM
from nats.js import JetStreamContext

LOOK_S: Final = 15.0
STREAMS: Final = (EVENTS_STREAM, NOTICES_STREAM)


class StreamFill:
    """Looks now and then. While the broker is away, what was seen last stays."""

    def __init__(self, js: JetStreamContext, metrics: Metrics) -> None:
        self._js = js
        self._fill: dict[str, float] = {}
        metrics.gauges(STREAM_FILL, lambda: dict(self._fill))

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            with suppress(*AWAY):
                await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once. Raises what ``AWAY`` names, also where there is no such stream yet."""
        for stream in STREAMS:
            info = await self._js.stream_info(stream)
            taken = ((info.state.bytes, info.config.max_bytes), (info.state.messages, info.config.max_msgs))
            # Without a limit the broker says -1.
            self._fill[stream] = max((has / limit for has, limit in taken if limit and limit > 0), default=0.0)
