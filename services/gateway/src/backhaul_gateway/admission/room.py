"""Each tenant's share of the CALLBACKS stream. Arithmetic only; ``watch`` feeds it.

A tenant may hold as much as is then still free: half of the stream when it is alone, a third each when two fill it. The
broker tells how many messages lie under each subject, and how many bytes under all. What the messages of a subject
take is learned from what this gateway stores. Of several gateways each knows its part: who sends large messages by way
of one and small ones by way of another may get more than its share, two thirds instead of half, and takes it from
nobody's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backhaul_common.names import HELD_SUFFIX

from backhaul_gateway.admission.sizes import Sizes

_RECORD_BYTES = 40
"""What JetStream keeps beside a message's subject, headers and payload."""


@dataclass(frozen=True, slots=True)
class LogState:
    """The stream at one moment. ``limit`` is 0 when it has none."""

    limit: int
    bytes: int
    messages: int
    first_seq: int
    subjects: Mapping[str, int] = field(default_factory=dict)
    """Messages by subject."""

    @property
    def has_held(self) -> bool:
        """Whether any of it is held."""
        return any(subject.endswith(HELD_SUFFIX) for subject in self.subjects)


class CallbackRoom:
    """Who holds how much."""

    def __init__(self) -> None:
        self._limit = 0
        self._bytes = 0
        self._measured: dict[str, float] = {}
        self._since: dict[str, int] = {}
        self._since_all = 0
        self._before: dict[str, int] = {}
        self._before_all = 0
        self._sizes: dict[str, Sizes] = {}
        # By path, the size of what was refused.
        self._over: dict[str, int] = {}

    @property
    def fill(self) -> float:
        """The part of the stream that is taken, 0 to 1; 0 when it has no limit."""
        return (self._bytes + self._since_all) / self._limit if self._limit else 0.0

    def held(self, path: str) -> float:
        """Bytes that lie under a queue path's key."""
        return self._measured.get(path, 0.0) + self._since.get(path, 0)

    @property
    def free(self) -> int:
        """Bytes that are not taken."""
        return max(0, self._limit - self._bytes - self._since_all)

    def admits(self, path: str, size: int) -> bool:
        """Whether ``path`` may ask the log to store ``size`` bytes more.

        Where the log has no room for them, that is not the fault of who holds little: the log itself refuses.
        """
        if not self._limit:
            return True
        held = self._measured.get(path, 0.0) + self._since.get(path, 0)
        free = self._limit - self._bytes - self._since_all
        return held + size <= free - size or (size > free >= held)

    def is_pressed(self, path: str, part: float) -> bool:
        """Whether more than ``part`` of its share lies under ``path``, or what was refused of it would be again."""
        return self.held(path) > part * self.free or (path in self._over and not self.admits(path, self._over[path]))

    @property
    def paths(self) -> tuple[str, ...]:
        """Who has anything in the stream."""
        return tuple({*self._measured, *self._since})

    def refused(self, path: str, size: int) -> bool:
        """Remember that ``size`` bytes were refused; whether ``path`` was admitted before."""
        new = path not in self._over
        self._over[path] = size
        return new

    def relieved(self) -> tuple[str, ...]:
        """Those that were refused and no longer would be; they are forgotten."""
        paths = tuple(path for path, size in self._over.items() if self.admits(path, size))
        for path in paths:
            del self._over[path]
        return paths

    def stored(self, subject: str, size: int) -> None:
        """A message of ``size`` bytes, its headers included, was stored by this gateway."""
        size += len(subject) + _RECORD_BYTES
        path = path_of(subject)
        self._since[path] = self._since.get(path, 0) + size
        self._since_all += size
        self.learn(subject, size)

    def learn(self, subject: str, size: int) -> None:
        """A message of ``subject`` takes ``size`` bytes."""
        sizes = self._sizes.get(subject)
        if sizes is None:
            sizes = self._sizes[subject] = Sizes()
        sizes.add(size)

    def unknown(self, state: LogState, most: int) -> list[str]:
        """At most ``most`` subjects whose messages' size is not known, those with the most messages first."""
        found = [subject for subject in state.subjects if subject not in self._sizes]
        return sorted(found, key=lambda subject: -state.subjects[subject])[:most]

    def begin_look(self) -> None:
        """What is stored from now on may not be in the state that is being asked for."""
        self._before, self._before_all = dict(self._since), self._since_all

    def looked(self, state: LogState) -> None:
        """Take over what was asked for."""
        # Subtracted rather than begun anew: what was stored while the broker answered still counts.
        self._since = {
            path: left for path, size in self._since.items() if (left := size - self._before.get(path, 0)) > 0
        }
        self._since_all -= self._before_all
        self._limit, self._bytes = state.limit, state.bytes
        # With all of its messages gone, what is known of their sizes is of no use for others.
        self._sizes = {subject: sizes for subject, sizes in self._sizes.items() if state.subjects.get(subject)}
        known: dict[str, float] = {}
        for subject, sizes in self._sizes.items():
            messages = state.subjects[subject]
            sizes.keep(messages)
            known[subject] = messages * sizes.average
        # Together the tenants hold no more than the stream holds. Where they seem to hold less, somebody's messages are
        # larger than those that this gateway saw of them. Whose they are is not known, so they count for those of whom
        # nothing was seen, and for nobody else: nobody is refused for what another has stored elsewhere.
        explained = sum(known.values())
        scale = min(1.0, state.bytes / explained) if explained else 1.0
        strangers = sum(messages for subject, messages in state.subjects.items() if subject not in known)
        average = max(0.0, state.bytes - explained) / strangers if strangers else 0.0
        self._measured = {}
        for subject, messages in state.subjects.items():
            path = path_of(subject)
            size = known[subject] * scale if subject in known else messages * average
            self._measured[path] = self._measured.get(path, 0.0) + size


def path_of(subject: str) -> str:
    """The key of the queue path in callbacks.<queue path>.<channel>."""
    return subject.split(".", 2)[1]
