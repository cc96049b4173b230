"""The asynchronous client of suppression."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, Self, TypeAlias
from uuid import uuid4

from backhaul_proto.suppression.v1 import suppression_pb2 as pb

from backhaul_client.errors import BackhaulError, UnexpectedAnswerError
from backhaul_client.paging import AsyncRows, Page
from backhaul_client.retries import Retries
from backhaul_client.suppression import wire
from backhaul_client.suppression.coalescing import Coalescing
from backhaul_client.suppression.connection import Connection, Tls
from backhaul_client.suppression.errors import SuppressedError, SuppressionUnavailableError, may_pass
from backhaul_client.suppression.models import (
    ANYTHING,
    EVERYTHING,
    Actor,
    Answer,
    Change,
    Evidence,
    Family,
    Item,
    Kind,
    Origin,
    Outcome,
    Record,
    Scope,
    Sending,
    Source,
    Standing,
    Suppression,
    Verdict,
)

IfUnavailable: TypeAlias = Literal["raise", "allow"]
"""What a check does that nobody answers. ``allow``: it says so in the log, and its answer is UNANSWERED."""

CHECK_S = 1.0
"""How long a check may take, its repetitions included."""

CALL_S = 5.0
"""How long any other question may take: a chunk of a batch, a page of a list."""

CHANGE_S = 10.0
"""How long a change may take. It is answered when every copy knows of it, which takes seconds where one has died."""

MAX_ITEMS = 10_000
"""Addresses in one call."""

MAX_CHUNK_BYTES = 4 << 20
"""Of addresses and correlation ids in one call, which the service would refuse if it were much larger."""

_ITEM_BYTES = 16
_PAGE = 100
_LOG = logging.getLogger("backhaul_client.suppression")


class SuppressionClient:
    """``async with SuppressionClient("suppression:50051", token=token) as suppression``. Of one event loop."""

    def __init__(
        self,
        targets: str | Sequence[str],
        *,
        token: str = "",
        tls: Tls | None = None,
        check_timeout_s: float = CHECK_S,
        retries: Retries | None = None,
    ) -> None:
        """``targets`` is host:port, several of them (a sequence, or with commas), or ``dns:///name:port``; calls take
        them in turn. ``token`` is the caller's; a certificate in ``tls`` may stand for it. Without ``tls`` nothing is
        encrypted. ``check_timeout_s`` is what checks have that name no other. Make it inside of the event loop, and
        after a fork: RuntimeError otherwise. ``max_pause_s`` of ``retries`` is not used: the deadline bounds them."""
        self._connection = Connection(targets, token, tls, retries or Retries(tries=8))
        self._checks = Coalescing(self._connection)
        self._check_timeout_s = check_timeout_s

    def __repr__(self) -> str:
        return f"{type(self).__name__}({','.join(self._connection.targets)!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every call, with an error for whoever waits, and close the connections."""
        await self._connection.close()
        await self._checks.close()

    # What may be sent.

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
        ends_at = self._ends_at(self._check_timeout_s if timeout_s is None else timeout_s)
        try:
            return wire.answer(address, await self._checks.ask((tenant_id, family, sending), request, ends_at))
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
            try:
                answers += await self._chunk(tenant_id, chunk, sending, family, timeout_s)
            except BackhaulError as exc:
                answers += _unanswered(tenant_id, chunk, exc, if_unavailable)
        return answers

    async def _chunk(
        self, tenant_id: str, chunk: Sequence[Item], sending: Sending, family: Family | None, timeout_s: float
    ) -> list[Answer]:
        request = pb.CheckBatchRequest(
            tenant_id=tenant_id,
            items=[pb.CheckItem(address=item.address, correlation_id=item.correlation_id) for item in chunk],
            family=wire.number(Family, family),
            sending=wire.to_sending(sending),
        )
        return matched(chunk, (await self._call("CheckBatch", request, timeout_s)).results)

    # What changes.

    async def add(
        self,
        tenant_id: str,
        address: str,
        kind: Kind,
        *,
        source: Source = Source.API,
        scope: Scope = EVERYTHING,
        family: Family | None = None,
        effective_at: datetime | None = None,
        evidence: Evidence | None = None,
        note: str = "",
        idempotency_key: str = "",
        actor: Actor | None = None,
        author: str = "",
        timeout_s: float = CHANGE_S,
    ) -> Outcome:
        """Record that a person must not be contacted. When it returns, no check overlooks it. ``effective_at`` is when
        the person said it; None is now. It is repeated safely under one key: give your own ``idempotency_key`` where
        you may call again for the same thing, ConflictError if that was used for something else."""
        key = idempotency_key or uuid4().hex
        request = pb.AddRequest(
            tenant_id=tenant_id,
            address=address,
            family=wire.number(Family, family),
            kind=wire.number(Kind, kind),
            scope=wire.to_scope(scope),
            source=wire.number(Source, source),
            effective_at_us=wire.micros(effective_at),
            evidence=wire.to_evidence(evidence),
            note=note,
            idempotency_key=key,
            actor=wire.number(Actor, actor),
            author=author,
        )
        return wire.outcome(await self._call("Add", request, timeout_s), key)

    async def lift(
        self,
        tenant_id: str,
        address: str,
        kind: Kind,
        *,
        scope: Scope = EVERYTHING,
        family: Family | None = None,
        evidence: Evidence | None = None,
        note: str = "",
        idempotency_key: str = "",
        actor: Actor | None = None,
        author: str = "",
        timeout_s: float = CHANGE_S,
    ) -> Outcome:
        """Lift one row. FailedPreconditionError names the rule where the caller may not; NotFoundError where there is
        none. STOP and UNSUBSCRIBE need ``evidence`` of the person's consent. ``idempotency_key`` as of ``add``."""
        key = idempotency_key or uuid4().hex
        request = pb.LiftRequest(
            tenant_id=tenant_id,
            address=address,
            family=wire.number(Family, family),
            kind=wire.number(Kind, kind),
            scope=wire.to_scope(scope),
            evidence=wire.to_evidence(evidence),
            note=note,
            idempotency_key=key,
            actor=wire.number(Actor, actor),
            author=author,
        )
        return wire.outcome(await self._call("Lift", request, timeout_s), key)

    async def reactivate(
        self,
        tenant_id: str,
        address: str,
        *,
        family: Family | None = None,
        note: str = "",
        idempotency_key: str = "",
        actor: Actor | None = None,
        author: str = "",
        timeout_s: float = CHANGE_S,
    ) -> tuple[Suppression, ...]:
        """Say that an address works again: lifts HARD_BOUNCE and INVALID_ADDRESS. Returns the rows that were lifted."""
        request = pb.ReactivateRequest(
            tenant_id=tenant_id,
            address=address,
            family=wire.number(Family, family),
            note=note,
            idempotency_key=idempotency_key or uuid4().hex,
            actor=wire.number(Actor, actor),
            author=author,
        )
        answer = await self._call("Reactivate", request, timeout_s)
        return tuple(wire.suppression(row) for row in answer.suppressions)

    # What is known.

    async def get(
        self,
        tenant_id: str,
        address: str,
        *,
        family: Family | None = None,
        page_size: int = _PAGE,
        cursor: str = "",
        timeout_s: float = CALL_S,
    ) -> Record:
        """All rows of one address, lifted ones too, and a page of its history."""
        request = pb.GetRequest(
            tenant_id=tenant_id,
            address=address,
            family=wire.number(Family, family),
            page_size=page_size,
            page_token=cursor,
        )
        return wire.record(await self._call("Get", request, timeout_s))

    def history(
        self, tenant_id: str, address: str, *, family: Family | None = None, page_size: int = _PAGE, cursor: str = ""
    ) -> AsyncRows[Change]:
        """Every change of one address, the latest first."""

        async def ask(after: str) -> Page[Change]:
            found = await self.get(tenant_id, address, family=family, page_size=page_size, cursor=after)
            return Page(found.history, found.next_cursor)

        return AsyncRows(ask, cursor)

    def list(
        self,
        tenant_id: str,
        *,
        kind: Kind | None = None,
        origin: Origin | None = None,
        scope: Scope | None = None,
        family: Family | None = None,
        standing: Standing = Standing.ACTIVE,
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = _PAGE,
        cursor: str = "",
        timeout_s: float = CALL_S,
    ) -> AsyncRows[Suppression]:
        """Rows, the latest change first. ``from_`` and ``to`` bound when they were recorded. ``timeout_s`` is each
        page's."""
        request = pb.ListRequest(
            tenant_id=tenant_id,
            family=wire.number(Family, family),
            kind=wire.number(Kind, kind),
            origin=wire.number(Origin, origin),
            scope=None if scope is None else wire.to_scope(scope),
            standing=wire.number(Standing, standing),
            from_us=wire.micros(from_),
            to_us=wire.micros(to),
            page_size=page_size,
        )

        async def ask(after: str) -> Page[Suppression]:
            page = pb.ListRequest()
            page.CopyFrom(request)
            page.page_token = after
            answer = await self._call("List", page, timeout_s)
            return Page(tuple(wire.suppression(row) for row in answer.suppressions), answer.next_page_token)

        return AsyncRows(ask, cursor)

    async def _call(self, method: str, request: Any, timeout_s: float) -> Any:
        return await self._connection.unary(method, request, self._ends_at(timeout_s))

    @staticmethod
    def _ends_at(timeout_s: float) -> float:
        return asyncio.get_running_loop().time() + timeout_s


def chunks(items: Iterable[str | Item], most: int = MAX_ITEMS) -> Iterator[Sequence[Item]]:
    """``items``, as many at a time as one call takes."""
    chunk: list[Item] = []
    size = 0
    for one in items:
        item = one if isinstance(one, Item) else Item(one)
        length = _ITEM_BYTES + len(item.address) + len(item.correlation_id)
        if chunk and (len(chunk) >= most or size + length > MAX_CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length
    if chunk:
        yield chunk


def matched(chunk: Sequence[Item], results: Sequence[pb.CheckResult]) -> list[Answer]:
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
