"""Whether people may be contacted: one, many, or as many as there are."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Literal, TypeAlias

from backhaul_proto.suppression.v1 import suppression_pb2 as pb

from backhaul_client.errors import BackhaulError, UnexpectedAnswerError
from backhaul_client.suppression import wire
from backhaul_client.suppression.base import CALL_S, Base
from backhaul_client.suppression.errors import SuppressedError, SuppressionUnavailableError, may_pass
from backhaul_client.suppression.models import ANYTHING, Answer, Family, Item, Sending, Verdict

IfUnavailable: TypeAlias = Literal["raise", "allow"]
"""What a check does that nobody answers. ``allow``: it says so in the log, and its answer is UNANSWERED."""

MAX_ITEMS = 10_000
"""Addresses in one call."""

MAX_CHUNK_BYTES = 4 << 20
"""Of addresses and correlation ids in one call, which the service would refuse if it were much larger."""

MAX_UNDER_WAY = 4
"""Batches of a stream that are under way at once."""

_STREAMED = 1000
_ITEM_BYTES = 16
_LOG = logging.getLogger("backhaul_client.suppression")


class Checks(Base):
    """The calls that ask. Nobody is allowed by mistake: what has no answer raises, unless the call says otherwise."""

    async def check(
        self,
        tenant_id: str,
        address: str,
        sending: Sending = ANYTHING,
        *,
        family: Family | None = None,
        timeout_s: float | None = None,
        if_unavailable: IfUnavailable = "raise",
    ) -> Answer:
        """Whether one address may be contacted: ask the answer for ``allowed``. Checks that wait at the same moment
        share a call. Raises InvalidArgumentError for an address that is none, SuppressionUnavailableError where
        nobody can say, unless ``if_unavailable`` is ``allow``."""
        request = pb.CheckRequest(
            tenant_id=tenant_id,
            address=address,
            family=wire.number(Family, family),
            sending=None if sending is ANYTHING else wire.to_sending(sending),
        )
        ends_at = asyncio.get_running_loop().time() + (self._check_timeout_s if timeout_s is None else timeout_s)
        try:
            return wire.answer(address, await self._coalescing.ask((tenant_id, family, sending), request, ends_at))
        except BackhaulError as exc:
            (answer,) = _unanswered(tenant_id, (Item(address),), exc, if_unavailable)
            return answer

    async def raise_if_suppressed(
        self,
        tenant_id: str,
        address: str,
        sending: Sending = ANYTHING,
        *,
        family: Family | None = None,
        timeout_s: float | None = None,
        if_unavailable: IfUnavailable = "raise",
    ) -> None:
        """Returns where the address may be contacted. Raises SuppressedError, and whatever ``check`` raises."""
        answer = await self.check(
            tenant_id, address, sending, family=family, timeout_s=timeout_s, if_unavailable=if_unavailable
        )
        if not answer.allowed:
            raise SuppressedError(answer)

    async def check_batch(
        self,
        tenant_id: str,
        items: Iterable[str | Item],
        sending: Sending = ANYTHING,
        *,
        family: Family | None = None,
        timeout_s: float = CALL_S,
        if_unavailable: IfUnavailable = "raise",
    ) -> list[Answer]:
        """Answers in the order of ``items``, asked for 10,000 at a time; ``timeout_s`` is each time's. What is wrong
        with one address is its answer: INVALID, with an ``error``."""
        answers: list[Answer] = []
        for chunk in chunks(items):
            answers += await self._chunk(tenant_id, chunk, sending, family, timeout_s, if_unavailable)
        return answers

    async def check_stream(
        self,
        tenant_id: str,
        items: Iterable[str | Item] | AsyncIterable[str | Item],
        sending: Sending = ANYTHING,
        *,
        family: Family | None = None,
        timeout_s: float = CALL_S,
        if_unavailable: IfUnavailable = "raise",
    ) -> AsyncGenerator[Answer, None]:
        """Answers in the order of ``items``, of which there may be any number: no more are taken than are under way.
        They go as batches of 1,000, so that each has an end, is repeated and may be any copy's: one stream would have
        none of it."""
        source = _chunked(items, self._theirs)
        under_way: deque[asyncio.Task[list[Answer]]] = deque()
        taking: asyncio.Task[Sequence[Item] | None] | None = None
        ended = False
        try:
            while True:
                if taking is None and not ended and len(under_way) < MAX_UNDER_WAY:
                    taking = asyncio.create_task(_next(source))
                waited_for = [task for task in (taking, under_way[0] if under_way else None) if task is not None]
                if not waited_for:
                    return
                await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
                if taking is not None and taking.done():
                    chunk, taking = taking.result(), None
                    ended = chunk is None
                    if chunk is not None:
                        asked = self._chunk(tenant_id, chunk, sending, family, timeout_s, if_unavailable)
                        under_way.append(asyncio.create_task(asked))
                if under_way and under_way[0].done():
                    for answer in under_way.popleft().result():
                        yield answer
        finally:
            left = [*under_way, *([taking] if taking is not None else [])]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await source.aclose()

    async def _chunk(
        self,
        tenant_id: str,
        chunk: Sequence[Item],
        sending: Sending,
        family: Family | None,
        timeout_s: float,
        if_unavailable: IfUnavailable,
    ) -> list[Answer]:
        request = pb.CheckBatchRequest(
            tenant_id=tenant_id,
            items=[pb.CheckItem(address=item.address, correlation_id=item.correlation_id) for item in chunk],
            family=wire.number(Family, family),
            sending=wire.to_sending(sending),
        )
        try:
            return _matched(chunk, (await self._call("CheckBatch", request, timeout_s)).results)
        except BackhaulError as exc:
            return _unanswered(tenant_id, chunk, exc, if_unavailable)


def chunks(items: Iterable[str | Item], most: int = MAX_ITEMS) -> Iterator[Sequence[Item]]:
    """``items``, as many at a time as one call takes."""
    chunk: list[Item] = []
    size = 0
    for one in items:
        item = _item(one)
        length = _ITEM_BYTES + len(item.address) + len(item.correlation_id)
        if chunk and (len(chunk) >= most or size + length > MAX_CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length
    if chunk:
        yield chunk


def _matched(chunk: Sequence[Item], results: Sequence[pb.CheckResult]) -> list[Answer]:
    """The answers to ``chunk``; UnexpectedAnswerError where they cannot be those."""
    if len(results) != len(chunk):
        raise UnexpectedAnswerError(f"{len(results)} results for {len(chunk)} addresses.")
    answers = []
    for item, result in zip(chunk, results, strict=True):
        if result.correlation_id != item.correlation_id:
            raise UnexpectedAnswerError("The results are not in the order of the addresses.")
        answers.append(wire.answer(item.address, result))
    return answers


def _unanswered(
    tenant_id: str, items: Sequence[Item], error: BackhaulError, if_unavailable: IfUnavailable
) -> list[Answer]:
    """The answers that nobody gave, where the caller wants to go on without; raises otherwise."""
    if not may_pass(error):
        raise error
    if if_unavailable != "allow":
        raise SuppressionUnavailableError(f"Nobody could say whether it is suppressed: {error}") from error
    # Without addresses, which do not belong into logs.
    _LOG.warning(
        "suppression_unanswered: allowed by the caller: tenant=%s addresses=%d: %s", tenant_id, len(items), error
    )
    return [
        Answer(
            address=item.address,
            verdict=Verdict.UNANSWERED,
            correlation_id=item.correlation_id,
            unavailable=error,
        )
        for item in items
    ]


async def _chunked(
    items: Iterable[str | Item] | AsyncIterable[str | Item],
    theirs: Callable[[Callable[[], Sequence[Item]]], Awaitable[Sequence[Item]]],
) -> AsyncGenerator[Sequence[Item], None]:
    """``items`` in chunks."""
    if isinstance(items, AsyncIterable):
        gathered: list[Item] = []
        async for one in items:
            gathered.append(_item(one))
            if len(gathered) == _STREAMED:
                yield gathered
                gathered = []
        if gathered:
            yield gathered
        return
    whole = chunks(items, _STREAMED)
    while chunk := await theirs(lambda: next(whole, ())):
        yield chunk


async def _next(source: AsyncIterator[Sequence[Item]]) -> Sequence[Item] | None:
    return await anext(source, None)


def _item(one: str | Item) -> Item:
    return one if isinstance(one, Item) else Item(one)
