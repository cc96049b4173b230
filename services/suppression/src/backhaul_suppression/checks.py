"""May we contact this person? Questions and answers in protobuf, from rows in memory.

Most questions are about numbers in E.164's strict form that nobody has suppressed. Their way is short: no object is
made for one but its result.

An answer is right as of the moment at which the lease was asked for, after all that it rests on was read. So rows are
read, and then ``Lookup.fresh`` is called, without giving way to anything in between: a process that was stopped there
finds that its lease has run out. To give way first, and be given a new lease meanwhile, would make old reading pass.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sized
from itertools import islice
from typing import Any, Protocol

from backhaul_channels.people import is_canonical
from backhaul_common import metrics as catalogue
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.metering import Metrics
from backhaul_common.tenants import Tenant
from backhaul_proto.suppression.v1 import suppression_pb2 as pb

from backhaul_suppression.addresses import address_of
from backhaul_suppression.messages import FAMILIES, blocking_message, sending_of
from backhaul_suppression.model import Address, Family, Sending
from backhaul_suppression.ports import Lookup

MAX_ITEMS = 10_000
"""Addresses in one request."""

MAX_CORRELATION_ID = 128
"""Characters."""

_TURN = 1000
"""Addresses that are looked up before others have a turn: a millisecond or two."""

_TURN_S = 0.002
"""As long may addresses be looked at that must be read first. Whoever means ill sends some that take half a millisecond
each; without this a thousand would stop everything else for as long as a sixth of a lease."""


_TOO_LONG = pb.ItemError(
    field="correlation_id",
    message=f"It has more than {MAX_CORRELATION_ID} characters.",
    fix="Pass a shorter one, or none: results come in the order of the items.",
)


class _Results(Protocol):
    """The results of a response, as protobuf keeps them."""

    def add(self, **fields: Any) -> pb.CheckResult: ...


def require_few(items: Sized) -> None:
    """INVALID_ARGUMENT where there are more than one request may have."""
    if len(items) > MAX_ITEMS:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"One request has {MAX_ITEMS:,} items at most.",
            field="items",
            fix="Ask in several requests, or in a stream of them.",
        )


class Checks:
    """Answers questions about whether to send. Errors are BackhaulErrors: UNAVAILABLE whenever the answer could be old,
    INVALID_ARGUMENT where the question is wrong as a whole."""

    def __init__(self, rows: Lookup, metrics: Metrics) -> None:
        self._rows = rows
        self._checks = metrics.counter(catalogue.SUPPRESSION_CHECKS)
        self._turn = asyncio.Lock()

    def one(self, tenant: Tenant, request: pb.CheckRequest) -> pb.CheckResponse:
        """The answer about one address."""
        family = FAMILIES.value(request.family, "family")
        address = address_of(tenant.registration, request.address, family)
        blocking = self._rows.blocking(address, sending_of(request))
        if not blocking:
            self._checks.add(tenant.id, "allowed")
            return pb.CheckResponse(verdict=pb.VERDICT_ALLOWED)
        self._checks.add(tenant.id, "suppressed")
        return pb.CheckResponse(verdict=pb.VERDICT_SUPPRESSED, blocking=map(blocking_message, blocking))

    async def many(
        self,
        tenant: Tenant,
        request: pb.CheckBatchRequest | pb.CheckStreamRequest,
        response: pb.CheckBatchResponse | pb.CheckStreamResponse,
    ) -> None:
        """Add to ``response`` the results about all items, in their order."""
        items = request.items
        require_few(items)
        family, sending = FAMILIES.value(request.family, "family"), sending_of(request)
        counts = [0, 0, 0]
        iterator = iter(items)
        more = bool(items)
        while more:
            # One batch has its turn at a time: others' calls wait for one of them, and not for all that there are.
            async with self._turn:
                self._slice(tenant.registration, islice(iterator, _TURN), family, sending, response.results, counts)
                self._rows.fresh()  # Before giving way: see above.
                more = sum(counts) < len(items)
                if more:
                    await asyncio.sleep(0)
        for verdict, count in zip(("allowed", "suppressed", "invalid"), counts, strict=True):
            if count:
                self._checks.add(tenant.id, verdict, amount=count)

    def _slice(
        self,
        registration: str,
        items: Iterable[pb.CheckItem],
        family: Family | None,
        sending: Sending,
        results: _Results,
        counts: list[int],
    ) -> None:
        """Look at the next of ``items``, at least one, until the turn is over."""
        ends = time.perf_counter() + _TURN_S
        of_numbers = family or Family.PHONE
        held, add = self._rows.held(registration, of_numbers), results.add
        allowed = suppressed = invalid = 0
        for item in items:
            text, correlation_id = item.address, item.correlation_id
            if len(correlation_id) > MAX_CORRELATION_ID:
                invalid += 1
                add(verdict=pb.VERDICT_INVALID, error=_TOO_LONG)
                continue
            if family is not Family.EMAIL and is_canonical(text):
                if text not in held:
                    allowed += 1
                    add(verdict=pb.VERDICT_ALLOWED, correlation_id=correlation_id)
                    continue
                address = Address(registration, of_numbers, text)
            else:
                try:
                    address = address_of(registration, text, family)
                except BackhaulError as exc:
                    invalid += 1
                    add(
                        verdict=pb.VERDICT_INVALID,
                        correlation_id=correlation_id,
                        error=pb.ItemError(field=exc.field, message=exc.message, fix=exc.fix),
                    )
                    if time.perf_counter() > ends:
                        break
                    continue
            blocking = self._rows.blocking(address, sending)
            if blocking:
                suppressed += 1
                add(
                    verdict=pb.VERDICT_SUPPRESSED,
                    correlation_id=correlation_id,
                    blocking=map(blocking_message, blocking),
                )
            else:
                allowed += 1
                add(verdict=pb.VERDICT_ALLOWED, correlation_id=correlation_id)
            if time.perf_counter() > ends:
                break
        counts[0] += allowed
        counts[1] += suppressed
        counts[2] += invalid
