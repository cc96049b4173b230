"""The connection to NATS of a whole process, and what has to be done whenever it stands anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from backhaul_common import jetstream
from backhaul_common.jetstream import AWAY, Connection
from backhaul_common.lifecycle import cancel, until_done
from backhaul_common.settings import NatsSettings

LAST_WORDS_S = 2
"""How long the server may take to confirm what was sent last."""

Hook = Callable[[], Awaitable[None]]


class Bus:
    """One client for the life of a process. It may be handed around before there is a connection.

    nats-py keeps the client's subscriptions over reconnections, so what subscribes does it once.
    """

    def __init__(self, settings: NatsSettings, name: str, *, buffer_while_away: bool = True) -> None:
        """``name`` is what the server calls the connection. For ``buffer_while_away`` see ``jetstream.connect``."""
        self.client = Connection(keep_unsent=buffer_while_away)
        self.settled = asyncio.Event()
        """Set when all hooks have been done once."""
        self._settings = settings
        self._name = name
        self._buffer_while_away = buffer_while_away
        self._hooks: dict[str, Hook] = {}
        self._back = asyncio.Event()
        self._began = False

    def on_connected(self, name: str, hook: Hook) -> None:
        """Do ``hook`` after the first connection and after every later one, and repeat it until it succeeds.

        All hooks run at the same time, so none waits for another. A hook that is not done when the connection is lost
        is cancelled, and begins anew over the next one. To be called before ``run``. ValueError if ``name`` is taken.
        """
        if name in self._hooks:
            raise ValueError(f"two hooks are called {name}")
        self._hooks[name] = hook

    async def run(self) -> None:
        """Connect, however long that takes, and do the hooks over every connection, until cancelled."""
        self._began = True
        await jetstream.connect(
            self._settings,
            self._name,
            client=self.client,
            buffer_while_away=self._buffer_while_away,
            on_reconnect=self._reconnected,
        )
        while True:
            self._back.clear()
            hooks = asyncio.create_task(self._do_hooks(), name="connected")
            try:
                await self._back.wait()
            finally:
                await cancel(hooks)

    async def close(self) -> None:
        """Send what was published, acknowledgements among it, and close the connection."""
        if self.client.is_connected:
            # A server that does not answer is not waited for: what it did not hear, it delivers again.
            with suppress(*AWAY):
                await self.client.flush(timeout=LAST_WORDS_S)
        if self._began:  # nats-py cannot close what was never to be connected.
            await self.client.close()

    async def _reconnected(self) -> None:
        self._back.set()

    async def _do_hooks(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name, hook in self._hooks.items():
                group.create_task(until_done(name, hook), name=name)
        self.settled.set()
