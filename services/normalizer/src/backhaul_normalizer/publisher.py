"""What the normalizer puts into streams: normalised events, and callbacks that are replayed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from backhaul_common.ids import derived_id
from backhaul_common.jetstream import Publisher, Written, headers_of, parts, subjects, translated
from backhaul_common.names import (
    AGAIN_HEADER,
    CALLBACKS_STREAM,
    CODED_KINDS,
    EVENTS_STREAM,
    callbacks_subject,
    events_of,
)
from backhaul_common.sizes import MAX_EVENT_BYTES, MAX_EVENTS_MESSAGE_BYTES
from backhaul_common.wire import repeated
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch
from backhaul_proto.event.v1.event_pb2 import EventBatch
from nats.aio.client import Client
from nats.js import JetStreamContext

from backhaul_normalizer.fenced import Fenced
from backhaul_normalizer.model import Outgoing
from backhaul_normalizer.subjects import EventSubjects

_TIMEOUT_S = 5.0

_ASKED_FOR_S = 1.0
"""How long MongoDB's answer is believed, that to a commit's fence included. Whoever marks a tenant waits longer before
the tenant's events are purged."""

_AGAIN = {AGAIN_HEADER: "1"}

Owners = Callable[[Collection[str]], Awaitable[Mapping[str, str]]]
"""The registrations that have these queue paths now, by path. UNAVAILABLE."""


class JetStreamPublisher:
    """One message holds the events that a batch brought for one subject: of one tenant, channel and kind, and of one
    code where the kind can have one.

    The message id is made of the ids and revisions of its events, so that publishing the same again after a crash
    stores nothing twice while JetStream remembers. Grouped otherwise, they are published twice: consumers know an event
    by its id, and keep its highest revision. What may have been published before lies in messages of its own, which say
    so in their header. Where there are many messages, they go as batches.
    """

    def __init__(
        self, publisher: Publisher, subjects: EventSubjects, owners: Owners, fenced: Fenced | None = None
    ) -> None:
        """``fenced`` is where commits tell what their fences said; otherwise MongoDB is asked each time."""
        self._publisher = publisher
        self._subjects = subjects
        self._owners = owners
        self._fenced = fenced or Fenced()

    async def publish(self, events: Sequence[Outgoing], traceparent: str, *, again: bool = False) -> None:
        """Returns when all ``events`` are stored; ``again`` as in the port. UNAVAILABLE when JetStream is away, slow or
        full, or MongoDB is away.

        EVENTS has no fence, and this process may have slept since it committed. So where that was not a moment ago it
        asks MongoDB once more whose queue paths they are, right before it writes; what is gone by then is left out.
        """
        if not events:
            return
        marked = events if again else [event for event in events if event.again]
        plain = [] if again else [event for event in events if not event.again] if marked else events
        messages = [
            _Message(path, subject, part, more)
            for some, more in ((plain, {}), (marked, _AGAIN))
            for (path, subject), group in (await self._grouped(some)).items()
            for part in _messages(group)
        ]
        paths = {event.path for event in events}
        told = self._fenced.owners(paths, _ASKED_FOR_S)
        asked_at, owners = told or (monotonic(), await self._owners(paths))
        async with self._publisher.together(_TIMEOUT_S) as send:
            for part in parts(messages, _Message.weight):
                if monotonic() - asked_at > _ASKED_FOR_S:
                    asked_at, owners = monotonic(), await self._owners(paths)
                await send([written for one in part if (written := one.written(owners, traceparent))])

    async def _grouped(self, events: Sequence[Outgoing]) -> Mapping[tuple[str, str], Sequence[Outgoing]]:
        """``events`` by queue path and subject."""
        alike: dict[tuple[str, str, str, str], list[Outgoing]] = {}
        for event in events:
            code = event.code if event.kind in CODED_KINDS else ""
            alike.setdefault((event.path, event.channel, event.kind, code), []).append(event)
        groups: dict[tuple[str, str], list[Outgoing]] = {}
        for key, some in alike.items():
            groups.setdefault((key[0], await self._subjects.of(*key)), []).extend(some)
        return groups


@dataclass(frozen=True, slots=True)
class _Message:
    """Events that share a message of EVENTS."""

    path: str
    subject: str
    events: Sequence[Outgoing]
    headers: dict[str, str]

    def weight(self) -> int:
        """The bytes of its events."""
        return sum(len(event.payload) for event in self.events)

    def written(self, owners: Mapping[str, str], traceparent: str) -> Written | None:
        """It, without what is not its queue path's owner's any more; None where nothing is left."""
        own = [event for event in self.events if event.registration == owners.get(self.path)]
        if not own:
            return None
        return (
            self.subject,
            repeated(EventBatch.EVENTS_FIELD_NUMBER, [event.payload for event in own]),
            headers_of(EVENTS_STREAM, _message_id(own), traceparent) | self.headers,
        )


class JetStreamCallbacks:
    """Callbacks that go through once more."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def publish(self, queue_path: str, callback: Callback, message_id: str) -> None:
        """Store ``callback`` alone in a message of CALLBACKS. UNAVAILABLE when JetStream is away, slow or full."""
        async with self._publisher.together(_TIMEOUT_S) as send:
            subject = callbacks_subject(queue_path, callback.channel)
            headers = headers_of(CALLBACKS_STREAM, message_id, callback.traceparent)
            await send([(subject, CallbackBatch(callbacks=[callback]).SerializeToString(), headers)])


async def subjects_under(js: JetStreamContext, path: str) -> Iterable[str]:
    """The subjects under a queue path that EVENTS has messages of. UNAVAILABLE."""
    async with translated():
        return await subjects(js, EVENTS_STREAM, events_of(path))


async def require_room(client: Client) -> None:
    """RuntimeError where the server takes no message of MAX_EVENTS_MESSAGE_BYTES."""
    if client.max_payload < MAX_EVENTS_MESSAGE_BYTES:
        raise RuntimeError(f"NATS takes messages of at most {client.max_payload} bytes; set its max_payload to 8MB.")


def _message_id(events: Sequence[Outgoing]) -> str:
    return derived_id(*(f"{event.id}:{event.revision}" for event in events))


def _messages(events: Sequence[Outgoing]) -> list[list[Outgoing]]:
    """``events``, parted so that they make messages of at most MAX_EVENT_BYTES."""
    messages: list[list[Outgoing]] = [[]]
    size = 0
    for event in events:
        if messages[-1] and size + len(event.payload) > MAX_EVENT_BYTES:
            messages.append([])
            size = 0
        messages[-1].append(event)
        size += len(event.payload)
    return messages
