"""Copies of suppression wake each other over NATS. Nothing rests on it: who hears nothing looks by itself, a little
later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from backhaul_common.jetstream import AWAY
from backhaul_common.names import SUPPRESSION_APPLIED_SUBJECT, SUPPRESSION_CHANGED_SUBJECT
from nats.aio.client import Client
from nats.aio.msg import Msg


class Signals:
    """What this copy says, and what it hears, itself included."""

    def __init__(self, nats: Client) -> None:
        self._nats = nats
        self._heard: dict[str, list[Callable[[], None]]] = {
            SUPPRESSION_CHANGED_SUBJECT: [],
            SUPPRESSION_APPLIED_SUBJECT: [],
        }
        self._to_say: set[str] = set()
        self._something = asyncio.Event()
        self._subscribed = False

    def on_changed(self, then: Callable[[], None]) -> None:
        """Call ``then`` when rows were changed. It must not block or raise."""
        self._heard[SUPPRESSION_CHANGED_SUBJECT].append(then)

    def on_applied(self, then: Callable[[], None]) -> None:
        """Call ``then`` when a copy has applied changes. It must not block or raise."""
        self._heard[SUPPRESSION_APPLIED_SUBJECT].append(then)

    def changed(self) -> None:
        """Tell everybody that rows were changed."""
        self._say(SUPPRESSION_CHANGED_SUBJECT)

    def applied(self) -> None:
        """Tell everybody that this copy has applied changes."""
        self._say(SUPPRESSION_APPLIED_SUBJECT)

    async def subscribe(self) -> None:
        """To be called when the client is connected; later times do nothing, since it keeps its subscriptions."""
        if not self._subscribed:
            for subject in self._heard:
                await self._nats.subscribe(subject, cb=self._on_message)
            self._subscribed = True

    async def run(self) -> None:
        """Say what is to be said, until cancelled."""
        while True:
            await self._something.wait()
            self._something.clear()
            subjects, self._to_say = self._to_say, set()
            for subject in subjects:
                if self._nats.is_connected:
                    with suppress(*AWAY):
                        await self._nats.publish(subject, b"")

    async def _on_message(self, message: Msg) -> None:
        self._hear(message.subject)

    def _say(self, subject: str) -> None:
        # This copy must not wait for NATS to hear itself.
        self._hear(subject)
        self._to_say.add(subject)
        self._something.set()

    def _hear(self, subject: str) -> None:
        for then in self._heard.get(subject, ()):
            then()
