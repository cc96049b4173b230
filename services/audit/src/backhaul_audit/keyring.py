"""What the copy that files knows of people's keys: for some seconds, so that an erasure holds soon, and for so many."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backhaul_proto.event.v1.event_pb2 import Event
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from backhaul_audit.peoplesecrets import Name, Person, Secrets

KEPT_S = 10.0
"""For how long a key is used without asking for it again. See ``people.GRACE_US``."""

MAX_KEPT = 20_000
"""People whose keys are kept; some 1 kB each."""

MAX_NAMES = 20_000
"""Addresses of which it is remembered whose they are."""

_MAX_REMEMBERED = 256
"""Characters of an address that is remembered."""


class Store(Protocol):
    """See ``MongoPeople``. UNAVAILABLE; FAILED_PRECONDITION where keys cannot be decrypted."""

    async def find(self, names: Collection[Name]) -> Mapping[Name, Person]: ...

    async def make(self, names: Collection[Name]) -> Mapping[Name, Person]: ...


class SecretsOf(Protocol):
    """See ``MongoSecrets``. UNAVAILABLE; FAILED_PRECONDITION where they cannot be decrypted."""

    async def made(self, registration: str) -> Secrets | None: ...


@dataclass(frozen=True, slots=True)
class Held:
    """A person's key as it was at ``asked_at``. What arrived before ``erased_before_us`` is not filed under it, and
    without a ``cipher`` nothing is."""

    asked_at: float
    key_id: str = ""
    cipher: AESSIV | None = field(default=None, repr=False)
    erased_before_us: int = 0

    def files(self, arrived_at_us: int) -> bool:
        """Whether it says what becomes of an event that arrived then."""
        return self.cipher is not None or arrived_at_us < self.erased_before_us


_NOBODY = Held(0.0)
"""Of a tenant that is gone: nothing of its people is filed any more."""


class Keyring:
    """Keys by events."""

    def __init__(
        self,
        store: Store,
        secrets: SecretsOf,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_kept: int = MAX_KEPT,
    ) -> None:
        self._store = store
        self._secrets = secrets
        self._clock = clock
        self._max_kept = max_kept
        self._held: dict[Name, Held] = {}
        """The one that was asked for first comes first."""
        self._names: dict[tuple[str, int, str], Name] = {}

    @property
    def kept(self) -> int:
        """How many keys are in memory."""
        return len(self._held)

    async def learn(self, batches: Iterable[tuple[str, Sequence[Event]]]) -> None:
        """Ask for the keys of all these at once: each are events of one registration. Raises as ``of`` does."""
        wanted: dict[Name, int] = {}
        for registration, events in batches:
            if (names := await self._named(registration, events)) is not None:
                _add(wanted, names, events)
        await self._look(wanted)

    async def of(self, registration: str, events: Sequence[Event]) -> Sequence[Held]:
        """For each event its person's, made where there is none. UNAVAILABLE; FAILED_PRECONDITION where keys cannot be
        decrypted."""
        names = await self._named(registration, events)
        if names is None:
            return [_NOBODY] * len(events)
        wanted: dict[Name, int] = {}
        _add(wanted, names, events)
        held = await self._look(wanted)
        return [held[name] for name in names]

    async def _look(self, wanted: Mapping[Name, int]) -> Mapping[Name, Held]:
        """``wanted`` has the latest arrival of each person's events, unix time in us."""
        now = self._clock()
        self._forget(now)
        found: dict[Name, Held] = {}
        for name, arrived_at_us in wanted.items():
            held = self._held.get(name)
            if held is not None and held.files(arrived_at_us):
                found[name] = held
        unknown = [name for name in wanted if name not in found]
        if not unknown:
            return found
        stored = {name: _held(person, now) for name, person in (await self._store.find(unknown)).items()}
        keyless = [name for name in unknown if name not in stored or not stored[name].files(wanted[name])]
        if keyless:
            stored |= {name: _held(person, now) for name, person in (await self._store.make(keyless)).items()}
        for name in unknown:
            found[name] = stored.get(name, _NOBODY)
        self._keep(stored)
        return found

    async def _named(self, registration: str, events: Sequence[Event]) -> Sequence[Name] | None:
        """Of whom each event is; None where the registration is gone."""
        secrets = await self._secrets.made(registration)
        if secrets is None:
            return None
        names = []
        for event in events:
            address = event.recipient
            key = registration, secrets.made_at_us, address
            name = self._names.get(key)
            if name is None:
                name = secrets.name(address)
                if len(address) <= _MAX_REMEMBERED:
                    if len(self._names) >= MAX_NAMES:
                        del self._names[next(iter(self._names))]
                    self._names[key] = name
            names.append(name)
        return names

    def _keep(self, held: Mapping[Name, Held]) -> None:
        for name, one in held.items():
            self._held.pop(name, None)
            if len(self._held) >= self._max_kept:
                del self._held[next(iter(self._held))]
            self._held[name] = one

    def _forget(self, now: float) -> None:
        while self._held:
            name = next(iter(self._held))
            if now - self._held[name].asked_at < KEPT_S:
                return
            del self._held[name]


def _held(person: Person, asked_at: float) -> Held:
    return Held(asked_at, person.key_id, AESSIV(person.key) if person.key_id else None, person.erased_before_us)


def _add(wanted: dict[Name, int], names: Sequence[Name], events: Sequence[Event]) -> None:
    for name, event in zip(names, events, strict=True):
        wanted[name] = max(wanted.get(name, 0), event.received_at_us)
