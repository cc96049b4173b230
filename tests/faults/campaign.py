"""Batches that are registered while callbacks of their messages come; and what must be true of them in the end.

What that is was decided before the first call, by whoever sends: nothing here asks how messages find their members.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any, Self

from backhaul_common.vocabulary import Words
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.normalizer.v1.normalizer_pb2 import FulfilmentState
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_testing.posts import Post
from backhaul_testing.waiting import until
from faults.registrar import Registrar
from simulators.people import Tenant

WORKERS = 6
ANSWERED_S = 60.0
"""Seconds after which calls that have no answer are a failure of the test."""

MEMBERS = 12
TOGETHER = 4
"""Members that are added by one call."""

_STATES = Words(FulfilmentState.DESCRIPTOR)
_TEXT_ENDS = {
    "delivered": ("delivered", ""), "undelivered": ("undelivered", "30003"), "failed": ("failed", "30007"),
    "invalid_number": ("undelivered", "21614"),
}  # fmt: skip
_MAIL_ENDS = {"delivered": ("delivered", "open"), "undelivered": ("bounce",), "failed": ("dropped",)}

Truth = dict[tuple[str, str], tuple[str, str]]
"""Message id and fulfilment state, by member and channel."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A batch of a communication. ``named``: by what its messages find their members. ``closed``: by whom."""

    communication: str
    id: str
    named: str
    closed: str

    def key(self, number: int) -> str:
        """That of a member. The batches whose messages name a batch have the members in common."""
        return f"m{number}" if self.named == "batch and member" else f"{self.id}-m{number}"

    def phone(self, number: int) -> str:
        """Where the recipient is all that tells, each has one."""
        own = int.from_bytes(blake2b(self.id.encode(), digest_size=2).digest()) if self.named == "recipient" else 0
        return f"+1500{own:05}{number:03}"


PLANS = tuple(
    BatchPlan(communication, f"{communication}-{number}", named, closed)
    for communication in ("sale", "letters")
    for number, (named, closed) in enumerate(
        [("batch and member", "expected"), ("batch and member", "call"), ("member", "call"), ("recipient", "expected")]
    )
)


@dataclass
class _Roster:
    """A tenant's batch, as its sender knows it."""

    tenant: Tenant
    plan: BatchPlan
    members: list[dict[str, Any]] = field(default_factory=list)
    truth: Truth = field(default_factory=dict)
    to_add: int = 0


Job = Callable[[], Awaitable[object]]


class Campaign:
    """``async with Campaign(registrar, tenants) as campaign``: members are added and callbacks come inside; when
    ``finished`` has returned all of it was answered. All ids are the same for every tenant, and what becomes of the
    messages is not."""

    def __init__(self, registrar: Registrar, tenants: Sequence[Tenant], *, seed: int = 1) -> None:
        self._registrar = registrar
        self._dice = random.Random(seed)  # noqa: S311  # a load that can be repeated, no secret
        self._rosters = [self._roster(tenant, plan) for tenant in tenants for plan in PLANS]
        self._jobs = [job for roster in self._rosters for job in self._jobs_of(roster)]
        self._dice.shuffle(self._jobs)
        self._progress = asyncio.Condition()
        self._allowed = self._begun = self._done = 0
        self._failure: Exception | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for roster in self._rosters:
            plan = roster.plan
            on = pb.COMPLETES_ON_FINAL if plan.communication == "letters" else pb.COMPLETES_ON_PROCESSED
            await self._registrar.communication(roster.tenant, plan.communication, channel="Twilio", completes_on=on)
            expected = len(roster.members) if plan.closed == "expected" else 0
            await self._registrar.batch(roster.tenant, plan.communication, plan.id, expected_members=expected)
        self._tasks = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def more(self, calls: int, *, under_way: int = 20) -> None:
        """Let so many more calls be made; return when no more of them than ``under_way`` are without an answer."""
        assert self._held > calls, "nothing is left to be said"
        await self._allow(calls, under_way)

    async def finished(self) -> None:
        """Return when everything was answered."""
        await self._allow(self._held, 0)

    @property
    def _held(self) -> int:
        """Calls that may not be made yet."""
        return len(self._jobs) - (self._allowed - self._begun)

    async def _allow(self, calls: int, under_way: int) -> None:
        async with self._progress:
            self._allowed += calls
            self._progress.notify_all()
            goal = self._allowed - under_way
            async with asyncio.timeout(ANSWERED_S):
                await self._progress.wait_for(lambda: self._done >= goal or self._failure)
        if self._failure is not None:
            raise self._failure

    async def _work(self) -> None:
        while True:
            async with self._progress:
                await self._progress.wait_for(lambda: self._begun < self._allowed)
                self._begun += 1
                job = self._jobs.pop()
            try:
                await job()
            except Exception as exc:
                self._failure = exc
                raise
            finally:
                async with self._progress:
                    self._done += 1
                    self._progress.notify_all()

    def _roster(self, tenant: Tenant, plan: BatchPlan) -> _Roster:
        roster = _Roster(tenant, plan)
        for number in range(MEMBERS):
            key = plan.key(number)
            text: dict[str, str] = {"recipient": plan.phone(number)}
            destinations = [text]
            roster.truth[key, "twilio"] = _id_of("SM", plan.id, key), self._end(plan, tuple(_TEXT_ENDS))
            if number % 3 == 0:
                destinations.append({"channel": "SendGrid", "recipient": f"{plan.id}.{key}@example.com"})
                mail = f"{_id_of('', plan.id, key)}.filterdrecv-1-2-3.0"
                roster.truth[key, "sendgrid"] = mail, self._end(plan, tuple(_MAIL_ENDS))
            roster.members.append({"member_key": key, "destinations": destinations})
        return roster

    def _end(self, plan: BatchPlan, ends: Sequence[str]) -> str:
        # Of what is complete when it was processed some messages never come further.
        return "sent" if plan.communication == "sale" and self._dice.random() < 0.3 else self._dice.choice(ends)

    def _jobs_of(self, roster: _Roster) -> Iterator[Job]:
        pieces = [roster.members[start : start + TOGETHER] for start in range(0, len(roster.members), TOGETHER)]
        roster.to_add = len(pieces)
        for piece in pieces:
            yield partial(self._add, roster, piece)
        for number in range(MEMBERS):
            for post in self._posts(roster, number):
                for _ in range(2 if self._dice.random() < 0.1 else 1):
                    yield partial(roster.tenant.receive, post)

    async def _add(self, roster: _Roster, piece: list[dict[str, Any]]) -> None:
        tenant, plan = roster.tenant, roster.plan
        answer = await self._registrar.add(tenant, plan.id, piece)
        assert (answer.done, answer.lines, answer.refused) == (True, len(piece), 0), answer
        roster.to_add -= 1
        if not roster.to_add:
            if plan.closed == "call":
                await self._registrar.close(tenant, plan.id)
            # Who did not hear the answer sends all of it again.
            again = await self._registrar.add(tenant, plan.id, roster.members)
            assert again.unchanged == len(roster.members), again

    def _posts(self, roster: _Roster, number: int) -> Iterator[Post]:
        tenant, plan = roster.tenant, roster.plan
        key = plan.key(number)
        named = {"communicationId": plan.communication}
        if plan.named != "recipient":
            named["memberId"] = key
        if plan.named == "batch and member":
            named["batchId"] = plan.id
        message_id, end = roster.truth[key, "twilio"]
        address = tenant.address("Twilio", **named)
        words = [("queued", ""), ("sent", ""), *([_TEXT_ENDS[end]] if end != "sent" else [])]
        for word, error in words:
            fields = {"ErrorCode": error} if error else {}
            yield tenant.twilio.status(address, message_id, word, to=plan.phone(number), **fields)
        if (key, "sendgrid") in roster.truth:
            message_id, end = roster.truth[key, "sendgrid"]
            mail: dict[str, Any] = {**named, "email": f"{plan.id}.{key}@example.com"}
            # SendGrid has no word for what is on its way but this one.
            words_of_mail = ("processed", *(_MAIL_ENDS[end] if end != "sent" else ("deferred",)))
            for word in words_of_mail:
                event = tenant.sendgrid.event(message_id, word, **mail)
                yield tenant.sendgrid.batch(tenant.address("SendGrid"), [event])

    async def completed(self) -> None:
        """Return when every batch is complete."""
        for roster in self._rosters:
            await complete(self._registrar, roster.tenant, roster.plan.id)

    async def check(self, notices: Sequence[Notice]) -> int:
        """That every batch is complete, once, and all that is said of it is true. How many there are."""
        for roster in self._rosters:
            await self._check(roster, [one for one in notices if one.tenant_id == roster.tenant.id])
        return len(self._rosters)

    async def _check(self, roster: _Roster, notices: Sequence[Notice]) -> None:
        batch = await complete(self._registrar, roster.tenant, roster.plan.id)
        name = roster.tenant.id, batch.id
        states = Counter(state for _, state in roster.truth.values())
        assert _counted(batch.progress) == (MEMBERS, len(roster.truth), 0, states), name
        assert batch.completed_by == pb.COMPLETED_BY_CONDITION, name
        then = batch.at_completion
        assert (then.members, then.destinations) == (MEMBERS, len(roster.truth)), name
        enough = then.final if batch.completes_on == pb.COMPLETES_ON_FINAL else then.processed
        assert enough == len(roster.truth), name
        assert await listed(self._registrar, roster.tenant, batch.id) == roster.truth, name
        told_once(batch, notices)


async def complete(registrar: Registrar, tenant: Tenant, batch_id: str) -> pb.Batch:
    """The batch, as soon as it is complete."""
    request = pb.GetBatchRequest(tenant_id=tenant.id, batch_id=batch_id)

    async def probe() -> pb.Batch | None:
        batch = (await registrar.said(lambda stub: stub.GetBatch(request))).batch
        return batch if batch.status == pb.BATCH_STATUS_COMPLETE else None

    return await until(f"batch {batch_id} of {tenant.id} to be complete", probe, within_s=15)


async def listed(registrar: Registrar, tenant: Tenant, batch_id: str) -> Truth:
    """What its members say of their messages."""
    request = pb.ListMembersRequest(tenant_id=tenant.id, batch_id=batch_id)

    async def answers(stub: Any) -> list[pb.ListMembersResponse]:
        return [answer async for answer in stub.ListMembers(request)]

    return {
        (member.key, one.channel): (one.message.message_id, _STATES.word(one.message.fulfilment_state))
        for answer in await registrar.said(answers)
        for member in answer.members
        for one in member.destinations
        if one.HasField("message")
    }


def told_once(batch: pb.Batch, notices: Sequence[Notice]) -> None:
    """Of its completion all copies of one notice tell, and as the batch itself does."""
    own = [one for one in notices if one.type == "communication.completed" and one.about.reference == batch.id]
    assert own, f"nobody was told of {batch.id}"
    assert len({one.id for one in own}) == 1, own
    for one in own:
        said = {pair.name: pair.value for pair in one.attributes}
        then = batch.at_completion
        assert one.occurred_at_us == batch.completed_at_us, batch.id
        assert (said["members"], said["destinations"]) == (str(then.members), str(then.destinations)), batch.id


def _counted(progress: pb.BatchProgress) -> tuple[int, int, int, Counter[str]]:
    states = Counter({_STATES.by_number[one.state]: one.count for one in progress.fulfilment if one.count})
    return progress.members, progress.destinations, progress.waiting, states


def _id_of(prefix: str, *parts: str) -> str:
    return prefix + blake2b("/".join(parts).encode(), digest_size=16).hexdigest()
