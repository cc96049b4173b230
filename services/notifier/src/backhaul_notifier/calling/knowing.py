"""What is not in an event, and stands in an address: asked of the normalizer, and kept for some seconds.

- **Attributes** are those of the member that the event names by its batch and key; else of the member that its message,
  or the message that a reply answers, counts for.
- **Ids** of communication and batch are that message's where the event does not say; the id of a message is, of what is
  told of a member, that of the first of its destinations that has one.
- **The environment** is the one of the communication's mode.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from backhaul_common.errors import BackhaulError, Code
from backhaul_proto.event.v1.event_pb2 import Attribute, Event
from backhaul_proto.normalizer.v1 import communications_pb2 as communications
from backhaul_proto.normalizer.v1 import normalizer_pb2 as normalizer
from backhaul_proto.notice.v1.notice_pb2 import Notice

from backhaul_notifier.calling.once import Once
from backhaul_notifier.catalogue.types import TYPES, Part
from backhaul_notifier.model import Subscription
from backhaul_notifier.variables import OWN, Known, Variables, needed

if TYPE_CHECKING:
    # The asynchronous stubs exist in the type stubs only; over a channel of grpc.aio the one class answers awaitables.
    from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceAsyncStub
    from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceAsyncStub

KEPT_S: Final = 30.0
"""For how long what the normalizer said is taken for true. A change of attributes shows after this time."""

UNKNOWN_S: Final = 2.0
"""For how long it is that something is not known: it may be registered at any time."""

MAX_KEPT: Final = 10_000
"""Members, messages and communications that are kept, of each."""

ASKED_WITHIN_S: Final = 5.0
"""All that one delivery asks for."""

NORMALIZER_AWAY: Final = "normalizer_away"
"""The word for an attempt that could not be made, since the normalizer did not say what its address needs."""

_NONE_SUCH = frozenset({Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION})

T = TypeVar("T")


class AwayError(Exception):
    """The normalizer did not answer, or not in time."""


class Knowing(Protocol):
    """Knows more of what is told than it says itself."""

    async def known(self, subscription: Subscription, said: Event | Notice, type_: str, names: Iterable[str]) -> Known:
        """What ``names`` need to have their values. AwayError."""
        ...


@dataclass(frozen=True, slots=True)
class _Ids:
    """What it is about, as far as that is known. ``message_id`` is the one that leads to the member."""

    channel: str
    message_id: str
    communication_id: str
    batch_id: str
    member_key: str

    @classmethod
    def of(cls, said: Event | Notice) -> _Ids:
        if isinstance(said, Event):
            # A reply is of whoever wrote it: of the member that the message is for which it answers.
            replied = said.answered if said.answered.message_id else None
            return cls(
                replied.channel if replied else said.channel,
                replied.message_id if replied else said.message_id,
                said.communication_id,
                said.batch_id,
                said.member_key,
            )
        about, each = said.about, TYPES.get(said.type)
        batch = about.reference if each and Part.BATCH in each.parts else ""
        member = next((pair.value for pair in said.attributes if pair.name == "member_key"), "")
        return cls(about.channel, about.message_id, about.communication_id, batch, member)


@dataclass(frozen=True, slots=True)
class _Member:
    attributes: Mapping[str, str]
    message_id: str


@dataclass(frozen=True, slots=True)
class _Message:
    communication_id: str
    batch_id: str
    member_key: str


class GrpcKnowing:
    """``Knowing``, of the normalizer."""

    def __init__(
        self,
        messages: NormalizerServiceAsyncStub,
        registered: CommunicationServiceAsyncStub,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asked_messages = messages
        self._asked_registered = registered
        self._members: Once[tuple[str, str, str], _Member | None] = Once(MAX_KEPT, clock)
        self._messages: Once[tuple[str, str, str], _Message | None] = Once(MAX_KEPT, clock)
        self._environments: Once[tuple[str, str], Mapping[str, str] | None] = Once(MAX_KEPT, clock)

    async def close(self) -> None:
        """Nothing is asked any more."""
        for once in (self._members, self._messages, self._environments):
            await once.close()

    async def known(self, subscription: Subscription, said: Event | Notice, type_: str, names: Iterable[str]) -> Known:
        """See ``Knowing``."""
        wanted = tuple(names)
        try:
            async with asyncio.timeout(ASKED_WITHIN_S):
                return await self._known(subscription, said, type_, wanted)
        except TimeoutError as exc:
            raise AwayError("The normalizer did not say in time what the address needs.") from exc
        except BackhaulError as exc:
            raise AwayError("The normalizer did not say what the address needs.") from exc

    async def communication_of(self, subscription: Subscription, said: Event | Notice) -> str:
        """The communication that it is of; of a message whose communication became known later, as the normalizer says
        by now. Empty where it is of none. UNAVAILABLE, and whatever else the normalizer answers."""
        ids = _Ids.of(said)
        if ids.communication_id or not ids.message_id:
            return ids.communication_id
        message = await self._message(subscription, ids.channel, ids.message_id)
        return message.communication_id if message is not None else ""

    async def _known(
        self, subscription: Subscription, said: Event | Notice, type_: str, names: tuple[str, ...]
    ) -> Known:
        ids, parts = _Ids.of(said), needed(names)
        known = Known()
        if Part.MEMBER in parts or _lacks(parts, said, ids):
            ids, known = await self._of_member(subscription, ids)
        if Part.COMMUNICATION in parts and ids.communication_id and _open(names, Variables(said, type_, known)):
            environment = await self._environment(subscription, ids.communication_id)
            known = replace(known, environment=environment or {})
        return known

    async def _of_member(self, subscription: Subscription, ids: _Ids) -> tuple[_Ids, Known]:
        """What the ids lead to, and more ids."""
        member = await self._member(subscription, ids.batch_id, ids.member_key)
        message = None
        if ids.message_id and (member is None or not (ids.communication_id and ids.batch_id)):
            message = await self._message(subscription, ids.channel, ids.message_id)
        if message is not None:
            if member is None:
                member = await self._member(subscription, message.batch_id, message.member_key)
            ids = replace(
                ids,
                communication_id=ids.communication_id or message.communication_id,
                batch_id=ids.batch_id or message.batch_id,
            )
        # Where what is told has an id of its own, that is the same, or counts.
        known = Known(
            attributes=member.attributes if member else {},
            communication_id=ids.communication_id,
            batch_id=ids.batch_id,
            message_id=member.message_id if member and not ids.message_id else "",
        )
        return ids, known

    async def _member(self, subscription: Subscription, batch_id: str, member_key: str) -> _Member | None:
        if not batch_id or not member_key:
            return None
        request = communications.GetMemberRequest(
            tenant_id=subscription.tenant, batch_id=batch_id, member_key=member_key
        )

        async def ask() -> tuple[_Member | None, float]:
            answer = await _asked(self._asked_registered.GetMember(request))
            return (None, UNKNOWN_S) if answer is None else (_member_of(answer.member), KEPT_S)

        return (await self._members.get((subscription.registration, batch_id, member_key), ask)).value

    async def _message(self, subscription: Subscription, channel: str, message_id: str) -> _Message | None:
        request = normalizer.ListMessagesRequest(
            tenant_id=subscription.tenant, channel=channel, message_id=message_id, page_size=2
        )

        async def ask() -> tuple[_Message | None, float]:
            answer = await _asked(self._asked_messages.ListMessages(request))
            if answer is None or len(answer.messages) != 1:  # Two have it as a reference only: it is neither's.
                return None, UNKNOWN_S
            found = answer.messages[0]
            message = _Message(found.communication_id, found.batch_id, found.member_key)
            return message, KEPT_S if found.member_key else UNKNOWN_S

        return (await self._messages.get((subscription.registration, channel, message_id), ask)).value

    async def _environment(self, subscription: Subscription, communication_id: str) -> Mapping[str, str] | None:
        request = communications.DescribeCommunicationRequest(
            tenant_id=subscription.tenant, communication_id=communication_id
        )

        async def ask() -> tuple[Mapping[str, str] | None, float]:
            answer = await _asked(self._asked_registered.DescribeCommunication(request))
            if answer is None:
                return None, UNKNOWN_S
            settings = answer.communication.settings
            return next(
                (_texts(one.variables) for one in settings.environments if one.mode == settings.mode), {}
            ), KEPT_S

        return (await self._environments.get((subscription.registration, communication_id), ask)).value


def _lacks(parts: frozenset[Part], said: Event | Notice, ids: _Ids) -> bool:
    """Whether an id is wanted that what is told does not have."""
    if Part.BATCH in parts and not ids.batch_id:
        return True
    if Part.MESSAGE in parts and not (said.message_id if isinstance(said, Event) else said.about.message_id):
        return True
    return Part.COMMUNICATION in parts and not ids.communication_id


def _open(names: tuple[str, ...], variables: Variables) -> bool:
    """Whether a name has no value yet that an environment could give it."""
    return any(
        variables.get(name) is None
        for name in names
        if name == "id" or (name not in OWN and not name.startswith(("event.", "member.")))
    )


def _member_of(member: communications.Member) -> _Member:
    messages = (one.message.message_id for one in member.destinations if one.message.message_id)
    return _Member(_texts(member.attributes), next(messages, ""))


def _texts(pairs: Iterable[Attribute]) -> Mapping[str, str]:
    return {pair.name: pair.value for pair in pairs}


async def _asked(call: Awaitable[T]) -> T | None:
    """What is answered; None where there is no such thing."""
    try:
        return await call
    except BackhaulError as exc:
        if exc.code in _NONE_SUCH:
            return None
        raise
