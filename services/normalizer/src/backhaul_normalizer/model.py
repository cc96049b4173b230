"""The values that go through this service, from a callback's events to what is published. No drivers in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from backhaul_channels import EventKind, NormalizedEvent
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.callback.v1.callback_pb2 import Source, Verification

KIND_NAMES: dict[EventKind, str] = {kind: str(kind.value) for kind in EventKind}

TRUST: Mapping[int, int] = MappingProxyType(
    {
        callback_pb2.VERIFICATION_VERIFIED: 3,
        callback_pb2.VERIFICATION_CREDENTIAL: 2,
        callback_pb2.VERIFICATION_OFF: 1,
        callback_pb2.VERIFICATION_UNSPECIFIED: 1,
        callback_pb2.VERIFICATION_OBSERVED_INVALID: 0,
    }
)
"""How far what a callback tells is to be trusted, by what became of its verification."""


DAY_US = 86_400_000_000

DEFAULT_WINDOW_US = 7 * DAY_US
"""See ``Fact.window_us``: of channels that have no setting for it."""


class Origin(msgspec.Struct, gc=False):
    """What all events of one callback have in common, worked out once.

    ``stream_seq`` is the position in CALLBACKS of the message that brought it, ``path`` the queue path in that
    message's subject. ``payload`` is the serialised protobuf fields that each of the callback's events ends with,
    ``arrival`` the time of those for which the provider gave none. ``url_is_signed`` says whether the parameters of
    the URL are the provider's word; ``told`` is, for digests, what the callback tells beside its events. ``once`` are
    the kinds that happen to one of the provider's messages once. ``source`` is the callback's.
    """

    tenant: str
    registration: str
    path: str
    channel: str
    provider: str
    verification: Verification.ValueType
    received_at_us: int
    stream_seq: int
    url_is_signed: bool
    parameters: list[tuple[str, str]]
    payload: bytes
    arrival: bytes
    told: bytes
    once: frozenset[EventKind] = frozenset()
    source: Source.ValueType = callback_pb2.SOURCE_CALLBACK


class Place(NamedTuple):
    """Where a message belongs within its communication, by the sender's ids; either may be empty."""

    batch_id: str
    member_key: str


NOWHERE = Place("", "")


class Name(NamedTuple):
    """That a message, by its key and its id, has a further name; the trust and the position of who told it."""

    message: str
    message_id: str
    alias: str
    trust: int
    stream_seq: int


class Fact(msgspec.Struct, gc=False):
    """One event, ready to be stored, folded and published.

    ``message`` is the key of its message (empty where it names none); ``alias`` is that of the name which the event
    itself uses, where that is a further name of a message. ``told_communication_id`` is the communication that the
    event names if it turns out to be a duplicate. ``digest`` is the same for callbacks that tell the same. ``also``
    are the positions in CALLBACKS of duplicates that were merged into this one, and ``names`` the further names that
    they told. ``revised_seqs`` are the positions of what made the latest revisions of a stored event, and ``left`` the
    keys of the messages that it left by them, both in that order. ``payload`` is the serialised event. ``once`` says
    that its kind happens to its message once, and ``duplicate_of`` is the event of that kind and message which counts,
    where that is another one. ``window_us`` is, of a reply, how long before it a message may have been sent that it
    answers without naming it, and ``stored_communication_id`` the communication that it is stored with; None where it
    is not stored. ``batch_id`` and ``member_key`` are what it names its message to be of, and ``told_place`` is both,
    if it turns out to be a duplicate.
    """

    id: str
    origin: Origin
    event: NormalizedEvent
    message: str
    communication_id: str
    occurred_at_us: int
    payload: bytes
    digest: bytes
    told_communication_id: str = ""
    alias: str = ""
    revision: int = 0
    also: tuple[int, ...] = ()
    names: frozenset[Name] = frozenset()
    revised_seqs: Sequence[int] = ()
    left: Sequence[str] = ()
    once: bool = False
    duplicate_of: str = ""
    window_us: int = DEFAULT_WINDOW_US
    stored_communication_id: str | None = None
    batch_id: str = ""
    member_key: str = ""
    told_place: Place = NOWHERE

    @property
    def trust(self) -> int:
        """See ``TRUST``."""
        return TRUST.get(self.origin.verification, 0)

    def positions(self) -> set[int]:
        """The positions in CALLBACKS of all that told it."""
        return {self.origin.stream_seq, *self.also}

    def told_names(self) -> Collection[Name]:
        """The further names of messages that this event tells."""
        aliases = self.event.aliases
        if not aliases or not self.message:
            return self.names
        trust, seq = self.trust, self.origin.stream_seq
        own = [Name(self.message, self.event.message_id, alias, trust, seq) for alias in aliases]
        return self.names.union(own) if self.names else own


class Rejection(msgspec.Struct, gc=False):
    """A callback, or one part of it, that could not be read. ``callback`` is serialised, its body cut to the part;
    ``position`` is that of the part in the callback, from 0. ``duplicates`` are positions in CALLBACKS of others that
    are the same dead letter; ``stream_seq`` is the highest of all, and ``first_seen_at_us`` the earliest arrival."""

    id: str
    tenant: str
    registration: str
    path: str
    channel: str
    provider: str
    reason: str
    callback: bytes
    seen_at_us: int
    stream_seq: int
    position: int = 0
    duplicates: tuple[int, ...] = ()
    first_seen_at_us: int = 0

    def with_duplicate(self, other: Rejection) -> Rejection:
        """Both as one: each counts, and a redelivery of either is known for one."""
        later, earlier = (other, self) if other.stream_seq >= self.stream_seq else (self, other)
        return msgspec.structs.replace(
            later,
            callback=self.callback,
            duplicates=(*self.duplicates, *other.duplicates, earlier.stream_seq),
            seen_at_us=max(self.seen_at_us, other.seen_at_us),
            first_seen_at_us=min(self.first_seen_at_us or self.seen_at_us, other.first_seen_at_us or other.seen_at_us),
        )


class Fill(msgspec.Struct, gc=False):
    """How far the quota of a registration's open dead letters is filled: ``before`` and ``after`` a batch, of ``most``.

    ``first`` is the first of the batch's dead letters.
    """

    before: int
    after: int
    most: int
    first: Rejection

    @property
    def owner(self) -> tuple[str, str, str]:
        """Whose: tenant, registration, queue path."""
        return self.first.tenant, self.first.registration, self.first.path


class Outgoing(msgspec.Struct, gc=False):
    """An event on its way to EVENTS. ``path`` is the queue path that ``registration`` has, ``code`` its error's.

    ``again``: it was known as it is, so that it may have been published before.
    """

    id: str
    revision: int
    path: str
    channel: str
    kind: str
    payload: bytes
    registration: str
    code: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a batch.

    ``new`` were counted; ``known`` had been before. ``outgoing`` is what EVENTS may not have. ``gone`` are the
    registrations of which nothing was stored, since their tenants are deleted or being deleted.
    """

    new: Sequence[Fact] = ()
    known: Sequence[Fact] = ()
    revisions: int = 0
    outgoing: Sequence[Outgoing] = ()
    gone: frozenset[str] = frozenset()

    def settled(self, outgoing: Sequence[Outgoing]) -> Committed:
        """With replies that were settled after the commit, each in place of what was known of it before."""
        ids = {event.id for event in outgoing}
        kept = [event for event in self.outgoing if event.id not in ids]
        return replace(self, revisions=self.revisions + len(outgoing), outgoing=[*kept, *outgoing])

    def and_then(self, later: Committed) -> Committed:
        """Both."""
        return Committed(
            [*self.new, *later.new],
            [*self.known, *later.known],
            self.revisions + later.revisions,
            [*self.outgoing, *later.outgoing],
            self.gone | later.gone,
        )
