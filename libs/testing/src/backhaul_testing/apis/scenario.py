"""What happens at a provider: messages, of which its API tells, and callbacks, of which some are lost on the way."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from backhaul_testing.apis.clock import Clock
from backhaul_testing.posts import Post, Sending, TryOnce

C = TypeVar("C")

Withhold = bool | Collection[str] | None
"""Of which words of a message there is no callback: all, none, those named; None leaves it to the dice."""


@dataclass(slots=True)
class Callback(Generic[C]):
    """Something that a provider tells once; ``content`` is what a post is made of."""

    due: datetime
    message_id: str
    word: str
    content: C
    withheld: bool
    doubled: bool
    taken: bool = False
    accepted: int = 0
    """How often it was in a post that was answered 200."""


@dataclass(slots=True)
class Posted:
    """What became of the posts of one ``post``, in the order in which they ended."""

    sendings: list[Sending] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        """Those that were answered 200 in the end."""
        return sum(sending.accepted for sending in self.sendings)

    @property
    def lost(self) -> int:
        """Those that the provider has given up."""
        return len(self.sendings) - self.accepted


class Scenario(ABC, Generic[C]):
    """Of all callbacks, a share ``withheld`` is never posted, and a share ``doubled`` is posted twice. ``shuffled``,
    all that are due at once are posted in any order. ``seed`` decides which.

    Callbacks wait until the clock has come to them and somebody calls ``post``; where ``address`` is empty there are
    none, as of a channel that is only asked.
    """

    def __init__(
        self,
        clock: Clock,
        address: str,
        *,
        seed: int = 1,
        withheld: float = 0.0,
        doubled: float = 0.0,
        shuffled: bool = False,
    ) -> None:
        self.clock = clock
        self.address = address
        self.callbacks: list[Callback[C]] = []
        """All that there are, withheld ones too, in the order in which they were planned."""
        self._shares = (withheld, doubled)
        self._shuffled = shuffled
        # Each decision has dice of its own, so that one setting does not move what another one decides.
        self._dice, self._fate, self._order = (
            random.Random(f"{seed}/{name}")  # noqa: S311  # a reproducible mix, no secret.
            for name in ("what happens", "what is lost", "in which order")
        )

    @property
    def withheld(self) -> list[Callback[C]]:
        """What the provider keeps to itself, of that which has happened."""
        now = self.clock.now()
        return [callback for callback in self.callbacks if callback.withheld and callback.due <= now]

    async def post(self, *connections: TryOnce) -> Posted:
        """Post what is due, each post with the provider's retries, over as many ``connections`` at once."""
        if not connections:
            raise ValueError("connections are missing: give one, such as posts.over(httpx.AsyncClient())")
        posted, work = Posted(), iter(self.posts(self._take()))

        async def serve(once: TryOnce) -> None:
            for post, callbacks in work:
                sending = await self._deliver(once, post)
                posted.sendings.append(sending)
                for callback in callbacks:
                    callback.accepted += sending.accepted

        async with asyncio.TaskGroup() as group:
            for once in connections:
                group.create_task(serve(once))
        return posted

    @abstractmethod
    def posts(self, callbacks: Sequence[Callback[C]]) -> Iterable[tuple[Post, Sequence[Callback[C]]]]:
        """``callbacks`` as signed posts, in their order, each with those that are in it."""

    @abstractmethod
    async def _deliver(self, once: TryOnce, post: Post) -> Sending:
        """Send a post as often as the provider would."""

    def _tell(self, due: datetime, message_id: str, word: str, content: C, withhold: Withhold) -> None:
        """Plan a callback."""
        # Both are drawn for each callback, whatever is decided otherwise: so the next one's fate stays the same.
        lost, twice = (self._fate.random() < share for share in self._shares)
        if withhold is not None:
            lost = withhold if isinstance(withhold, bool) else word in withhold
        if self.address:
            self.callbacks.append(Callback(due, message_id, word, content, withheld=lost, doubled=twice and not lost))

    def _take(self) -> list[Callback[C]]:
        """What is to be posted now; the doubled ones stand in it twice."""
        now = self.clock.now()
        due = [one for one in self.callbacks if one.due <= now and not one.taken and not one.withheld]
        due.sort(key=lambda callback: callback.due)
        for callback in due:
            callback.taken = True
        due += [callback for callback in due if callback.doubled]
        if self._shuffled:
            self._order.shuffle(due)
        return due

    def _outcome(self, outcomes: Mapping[str, float]) -> str:
        """One of ``outcomes``, which are weighed."""
        return self._dice.choices(list(outcomes), list(outcomes.values()))[0]

    def _moments(self, number: int, begin: datetime | None, within_s: float) -> list[datetime]:
        """``number`` moments within the ``within_s`` seconds from ``begin`` on, now unless told otherwise; in order."""
        first = begin or self.clock.now()
        return sorted(first + timedelta(seconds=self._dice.uniform(0, within_s)) for _ in range(number))


def planned(at: datetime, plan: Iterable[tuple[float, str]]) -> list[tuple[datetime, str]]:
    """A plan of seconds and words, begun at ``at``, in whole seconds."""
    begin = at.replace(microsecond=0)
    return [(begin + timedelta(seconds=seconds), word) for seconds, word in plan]


def plan_of(plans: Mapping[str, Any], outcome: str) -> Any:
    """The plan that ends with ``outcome``. ValueError where there is none."""
    if outcome not in plans:
        raise ValueError(f"outcome is {outcome!r}: choose of {', '.join(plans)}")
    return plans[outcome]
