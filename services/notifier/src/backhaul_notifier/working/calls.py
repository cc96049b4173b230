"""Which deliveries go together: one a call, or several where the subscription says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from secrets import token_bytes
from typing import Final

import msgspec
from msgspec.structs import replace

from backhaul_notifier.documents import webhook_id
from backhaul_notifier.model import Delivery

CALL_BYTES: Final = 16

MAX_DIGEST: Final = 1_000
"""Deliveries of one mail: with so many it does not wait for its time."""

DIGEST_MINUTES: Final = 10
"""From the first event of a mail to its being sent, where the subscription does not say."""

MAX_CALL_BYTES: Final = 2 << 20
"""Of the payloads of one call: with so many no more are gathered for it."""

_LOW: Final = 64


class Call(msgspec.Struct, frozen=True):
    """What is sent at once. ``new``: that these go together is not written down yet, and must be before it is sent."""

    deliveries: Sequence[Delivery]
    webhook_id: str
    new: bool = False

    @property
    def id(self) -> bytes:
        """That of one of several deliveries; empty of one that is sent alone."""
        return self.deliveries[0].call


class Queue:
    """What was read and is to be sent."""

    def __init__(self) -> None:
        self._ready: deque[Call] = deque()
        self._gathering: list[Delivery] = []
        self._gathered_bytes = 0
        self._deliveries = 0
        self._max_events = 1
        self._max_wait_us = 0
        self._apart_us = 0
        self._not_before_us = 0

    def __len__(self) -> int:
        """Deliveries."""
        return self._deliveries

    @property
    def has_room(self) -> bool:
        """Whether more should be read."""
        return self._deliveries < max(_LOW, 2 * self._max_events)

    @property
    def batched(self) -> bool:
        """Whether calls have several deliveries."""
        return self._max_events > 1

    @property
    def ripe_at_us(self) -> int:
        """When what is gathered has waited for long enough; 0 where nothing is."""
        if not self._gathering:
            return 0
        return max(self._gathering[0].created_at_us + self._max_wait_us, self._not_before_us)

    def allow(self, max_events: int, max_wait_s: int) -> None:
        """What the subscription says."""
        self._apart_us = 0
        self._max_events = max(1, max_events)
        self._max_wait_us = max_wait_s * 1_000_000
        if not self.batched:
            self._flush()

    def allow_digest(self, every_minutes: int) -> None:
        """The same of mail, between two of which lie so many minutes as well, unless one is full: a backlog would be a
        mail for each page that is read of it otherwise."""
        minutes = every_minutes or DIGEST_MINUTES
        self.allow(MAX_DIGEST, minutes * 60)
        self._apart_us = minutes * 60_000_000

    def sent(self, at_us: int) -> None:
        """The last call that succeeded was made then."""
        self._not_before_us = at_us + self._apart_us if self._apart_us else 0

    def add(self, delivery: Delivery) -> None:
        """One that is not of a call, or goes alone whatever it was of."""
        self._deliveries += 1
        if not self.batched or (delivery.attempts and not self._apart_us) or delivery.begun_at_us:
            # What was tried alone stays what its endpoint knows it as. People know nothing of it. What became of a call
            # is not what becomes of others.
            self._ready.append(Call((delivery,), webhook_id(delivery.id)))
            return
        self._gathering.append(delivery)
        self._gathered_bytes += len(delivery.payload)
        if len(self._gathering) >= self._max_events or self._gathered_bytes >= MAX_CALL_BYTES:
            self._flush()

    def gather_no_more(self) -> None:
        """What is gathered does not wait for others."""
        self._flush()

    def add_again(self, fellows: Sequence[Delivery]) -> None:
        """Those of one call, as they were sent before."""
        self._deliveries += len(fellows)
        self._ready.append(Call(fellows, webhook_id(fellows[0].call)))

    def next(self, now_us: int) -> Call | None:
        """What is to be sent next; None where nothing is ready."""
        if not self._ready and self._gathering and now_us >= self.ripe_at_us:
            self._flush()
        if not self._ready:
            return None
        call = self._ready.popleft()
        self._deliveries -= len(call.deliveries)
        return call

    def put_back(self, call: Call) -> None:
        """``call`` was not made after all."""
        self._deliveries += len(call.deliveries)
        self._ready.appendleft(call)

    def has_ready(self, now_us: int) -> bool:
        """Whether ``next`` has something."""
        return bool(self._ready) or bool(self._gathering and now_us >= self.ripe_at_us)

    def sift(self, out: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out those for which ``out`` says so; others of the same call go without them."""
        taken: list[Delivery] = []
        ready: deque[Call] = deque()
        for call in self._ready:
            gone = [one for one in call.deliveries if out(one)]
            left = tuple(one for one in call.deliveries if one not in gone)
            if left:
                ready.append(replace(call, deliveries=left) if gone else call)
            taken += gone
        self._ready = ready
        taken += [one for one in self._gathering if out(one)]
        self._gathering = [one for one in self._gathering if not out(one)]
        self._deliveries -= len(taken)
        return taken

    def _flush(self) -> None:
        if not self._gathering:
            return
        gathered, self._gathering, self._gathered_bytes = self._gathering, [], 0
        if not self.batched:
            self._ready.extend(Call((one,), webhook_id(one.id)) for one in gathered)
            return
        call = token_bytes(CALL_BYTES)
        together = tuple(replace(one, call=call) for one in gathered)
        self._ready.append(Call(together, webhook_id(call), new=True))
