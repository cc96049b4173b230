"""One turn of a channel, as its passes see it: what they ask, compare, publish and store."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, Final

from backhaul_channels.pull import Listing, NeverError, Page, PullError, Span, UnreadableAnswerError
from backhaul_common.documents import Document
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import RECONCILER_CALLBACK_DELAY_SECONDS, RECONCILER_RECORDS
from backhaul_common.sizes import MAX_BODY_BYTES
from backhaul_common.tracing import Tracing

from backhaul_reconciler.accounts import Held
from backhaul_reconciler.books import Books, Entry
from backhaul_reconciler.comparing import GrpcRecords
from backhaul_reconciler.finding import Backfill, mark_of
from backhaul_reconciler.judging import Found
from backhaul_reconciler.knowing import Known
from backhaul_reconciler.ledger import Ledger
from backhaul_reconciler.model import DAY_US, Begun, Counts, Difference, DifferenceKind, OpenMessage, Verdict
from backhaul_reconciler.offers import is_offered
from backhaul_reconciler.ports import Change, Days, Differences, Reports
from backhaul_reconciler.transport import AccountTransport, Requests

TURN_S: Final = 30.0
TURN_PAGES: Final = 60
"""What one channel may take of an account before the others have their turn."""

IDS_A_PAGE: Final = 100
"""Messages that are asked for singly before what they told is stored."""

ODD: Final = 3
"""Requests for single messages that tell nothing, before none of the others is asked for."""

MAX_CURSOR: Final = 8 << 10
"""Characters of where a list goes on."""

_MIN_SECRET: Final = 4
_RECENT: Final = 50_000
_RECENT_US: Final = 600_000_000
_LARGE: Final = 1_000
_TELLING = frozenset({Verdict.MISSING, Verdict.BETTER, Verdict.UNREADABLE})


class TurnOverError(Exception):
    """The channel had its turn; what is left goes on at the next one."""


class Recent:
    """What was published so shortly ago that it may not be processed yet: it is neither published nor counted again."""

    def __init__(self) -> None:
        self._at_us: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._large: OrderedDict[tuple[str, str], None] = OrderedDict()

    def add(self, channel: str, marks: Collection[str], now_us: int) -> None:
        """Records were published."""
        for mark in marks:
            self._at_us[channel, mark] = now_us
            self._at_us.move_to_end((channel, mark))
        while len(self._at_us) > _RECENT:
            self._at_us.popitem(last=False)

    def has(self, channel: str, mark: str, now_us: int) -> bool:
        """Whether a record was."""
        at_us = self._at_us.get((channel, mark))
        return at_us is not None and now_us - at_us < _RECENT_US

    def is_first_large(self, channel: str, mark: str) -> bool:
        """Whether a record that is too large to be published is seen for the first time."""
        first = (channel, mark) not in self._large
        self._large[channel, mark] = None
        while len(self._large) > _LARGE:
            self._large.popitem(last=False)
        return first


@dataclass(frozen=True, slots=True)
class Parts:
    """What every turn of a process is made of."""

    books: Books
    records: GrpcRecords
    backfill: Backfill
    reports: Reports
    differences: Differences
    days: Days
    requests: Requests
    tracing: Tracing
    recent: Recent
    counted: Callable[..., None]
    delayed: Callable[[float], None]

    @classmethod
    def metered(cls, metrics: Metrics, **parts: Any) -> Parts:
        """With what they count."""
        return cls(
            counted=metrics.counter(RECONCILER_RECORDS).add,
            delayed=metrics.histogram(RECONCILER_CALLBACK_DELAY_SECONDS).record,
            **parts,
        )


@dataclass(slots=True)
class Work:
    """One turn. ``row`` is the channel's document as it was stored last."""

    parts: Parts
    known: Known
    held: Held
    row: Document
    run: Begun
    ledgers: Mapping[str, Ledger]
    ends: float
    pages: int = TURN_PAGES
    asked: int = 0
    """Requests that no report counts yet."""

    _transports: dict[str, AccountTransport] = field(default_factory=dict)
    _read: set[tuple[str, Span, str]] = field(default_factory=set)

    def now_us(self) -> int:
        """The time."""
        return self.held.now_us()

    def transport(self, budget: str) -> AccountTransport:
        """By what the account is asked within one of its budgets."""
        found = self._transports.get(budget)
        if found is None:
            found = self._transports[budget] = AccountTransport(
                self.parts.requests,
                self.known.channel.provider,
                self.known.puller.origins,
                self.ledgers[budget],
                # Who slept asks nothing before it knows whether another copy has taken the account.
                until=lambda: min(self.ends, self.held.works_until),
                asked=self._count,
            )
        return found

    def listings(self) -> Sequence[Listing]:
        """The lists of the channel."""
        return self.known.puller.listings(self.known.ask.settings)

    def take_page(self) -> None:
        """To be called before each page. TurnOverError."""
        if self.pages <= 0 or self.held.loop_time() >= self.ends:
            raise TurnOverError
        self.pages -= 1

    async def window(self, listing: Listing, span: Span, cursor: str) -> Page:
        """A page of a list. PullError, PacedError."""
        puller, ask = self.known.puller, self.known.ask
        try:
            page = await puller.window(self.transport(listing.budget), ask, listing.name, span, cursor)
        except PullError as exc:
            raise self._without_secrets(exc) from None
        if len(page.cursor) > MAX_CURSOR:
            raise UnreadableAnswerError("The provider's list leads to an address that is longer than any should be.")
        if not page.wait_s:
            self._read.add((listing.name, span, cursor))
            if page.cursor and (listing.name, span, page.cursor) in self._read:
                raise UnreadableAnswerError("The provider's list leads in a circle.")
        return page

    async def found(self, records: Sequence[bytes], listing: str, *, waits_s: int = 0) -> Found:
        """What ``records`` tell, once CALLBACKS has what of it is new. NoRoomError, GoneError; UNAVAILABLE."""
        found = Found()
        records = self._without_large(records, listing, found)
        if not records:
            return found
        now_us, channel, recent = self.now_us(), self.known.of.id, self.parts.recent
        comparisons = await self.parts.records.compare(self.known.of, records, now_us)
        new: dict[str, bytes] = {}
        for record, comparison in zip(records, comparisons, strict=True):
            telling = comparison.verdict in _TELLING
            if comparison.verdict is Verdict.UNREADABLE and comparison.heard_at_us:
                telling = False  # It is a dead letter already.
            if telling and waits_s and now_us - comparison.occurred_at_us < waits_s * 1_000_000:
                continue  # A callback is about to tell it.
            mark = mark_of(record) if telling else ""
            published = telling and mark not in new and not recent.has(channel, mark, now_us)
            if published:
                new[mark] = record
            found.add(comparison, published=published)
        if new and not self.run.dry_run:
            await self.parts.backfill.publish(
                self.known.tenant, self.known.channel.key, listing, list(new.values()), now_us
            )
            found.marks = list(new)
        return found

    def _without_large(self, records: Sequence[bytes], listing: str, found: Found) -> Sequence[bytes]:
        """Those of ``records`` that fit into a callback. The others are counted, and logged once each."""
        fitting = []
        for record in records:
            if len(record) <= MAX_BODY_BYTES:
                fitting.append(record)
                continue
            found.add_large()
            if self.parts.recent.is_first_large(self.known.of.id, mark_of(record)):
                get_logger(component="work").warning(
                    "record_too_large",
                    tenant=self.known.of.tenant,
                    channel=self.known.of.channel,
                    listing=listing,
                    size=len(record),
                    most=MAX_BODY_BYTES,
                )
        return fitting

    async def store(
        self,
        fields: Mapping[str, Any] | None = None,
        gone: Sequence[str] = (),
        *,
        found: Found | None = None,
        unknown: Sequence[OpenMessage] = (),
        changes: Sequence[Change] = (),
    ) -> None:
        """Store how far it is, and what was found on the way: all of it or nothing. ``unknown`` are messages of ours
        that the provider does not know. LostError, MovedError; UNAVAILABLE."""
        of, asked = self.known.of, self.asked
        counts = replace(found.counts if found else Counts(), unknown_to_provider=len(unknown), requests=asked)
        all_changes = list(changes)
        if counts.told():
            all_changes.append(self.parts.reports.update(self.run.id, counts))
        if not self.run.dry_run:  # What differs is judged as of when all is backfilled, and nothing will be.
            differing = [*(found.differences if found else ()), *(_unknown(one) for one in unknown)]
            if differing:
                all_changes.append(self.parts.differences.seen(of, self.run.id, self.now_us(), differing))
            if found and found.equal:
                all_changes.append(self.parts.differences.settled(of, found.equal))
        if not fields and not gone and not all_changes:
            return
        await self.parts.books.commit(self.held, of, self.known.settings_us, Entry(fields or {}, gone, all_changes))
        self.asked -= asked
        self.row.update(fields or {})
        for name in gone:
            self.row.pop(name, None)
        if found:
            # Not before: what is published and not counted is counted when it is found again.
            self.parts.recent.add(of.id, found.marks, self.now_us())
            if self.run.dry_run:
                return  # The figures say how many callbacks are lost, and would count them again at each look.
            for outcome in ("known", "missing", "better", "unreadable"):
                if number := getattr(found, outcome):
                    self.parts.counted(of.tenant, of.channel, outcome, amount=number)

    async def ask(self, messages: Sequence[OpenMessage]) -> Asked:
        """What the provider tells of single messages, as many at once as the account allows. What stopped it is in the
        answer, so that what was told before is not lost.

        One of which nothing can be told may be odd by itself, and must not hold up the others for ever. Where the first
        ``ODD`` requests tell nothing, no other one would: the rest are left unasked.
        """
        puller = self.known.puller
        at_once = asyncio.Semaphore(max(1, puller.budgets[puller.message_budget].at_once))
        answer = Asked()
        left = list(range(len(messages)))
        while left and not answer.failures and not answer.is_vain:
            async with asyncio.TaskGroup() as group:
                for place in left:
                    group.create_task(self._ask_one(answer, at_once, place, messages[place]))
            # Some were left unasked where one that was under way told something after all.
            left = [place for place in left if place not in answer.done]
        if answer.is_vain:
            answer.failures.append(answer.in_vain[0])
        # In their order, so that what is published again after a crash is known again.
        for place in sorted(answer.told):
            answer.records += answer.told[place]
            if not answer.told[place]:
                answer.unknown.append(messages[place])
        if answer.odd:
            # Their ids hold addresses of people at some providers.
            of, number, why = self.known.of, len(answer.odd), str(answer.odd[0])
            log = get_logger(component="work")
            log.warning("messages_not_told", tenant=of.tenant, channel=of.channel, messages=number, why=why)
        return answer

    async def _ask_one(self, answer: Asked, at_once: asyncio.Semaphore, place: int, message: OpenMessage) -> None:
        puller = self.known.puller
        async with at_once:
            if answer.failures or answer.is_vain:
                return
            asked, transport = self.asked, self.transport(puller.message_budget)
            try:
                page = await puller.message(transport, self.known.ask, message.message_id)
            except (UnreadableAnswerError, NeverError) as exc:
                answer.odd.append(self._without_secrets(exc))
                answer.done.add(place)
                if self.asked > asked:  # One that the puller does not ask for costs nothing, and says nothing.
                    answer.in_vain.append(exc)
            except PullError as exc:
                answer.failures.append(self._without_secrets(exc))
            except Exception as exc:  # noqa: BLE001  # it is raised again, once the others have ended
                answer.failures.append(exc)
            else:
                answer.done.add(place)
                answer.told[place] = page.records

    def cheaper_by_window(self, listing: Listing, number: int, from_us: int) -> bool:
        """Whether to ask a list from ``from_us`` on is likely to take fewer requests than ``number`` messages do.

        How many records it has is known from the last time. A list may count by days and begin with the latest, so it
        counts up to the end of the day, or now.
        """
        pace: float | None = self.row.get("lists", {}).get(listing.name, {}).get("pace")
        if pace is None or not listing.whole or not listing.discovers or not is_offered(self.row, listing.name):
            return False
        end_us = min(self.now_us(), (from_us // DAY_US + 1) * DAY_US)
        requests = 1 + ceil(pace * max(0, end_us - from_us) / 3_600_000_000 / listing.rows)
        return requests * 2 < number and requests < self.pages

    def _without_secrets(self, exc: PullError) -> PullError:
        """``exc``, whose words are told to whoever reads reports, without what the provider may have repeated of the
        credentials."""
        text = str(exc)
        for secret in {*self.known.secrets, *(word for one in self._transports.values() for word in one.shown)}:
            if len(secret) >= _MIN_SECRET:
                text = text.replace(secret, "…")
        exc.args = (text,)
        return exc

    def _count(self) -> None:
        self.asked += 1


@dataclass(slots=True)
class Asked:
    """What single messages told; ``unknown`` are those that the provider does not know, ``odd`` what was wrong with
    single ones, of which those ``in_vain`` cost a request, and ``failures`` what kept the others from being asked for.
    ``done`` and ``told`` are by their places."""

    records: list[bytes] = field(default_factory=list)
    unknown: list[OpenMessage] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    odd: list[Exception] = field(default_factory=list)
    in_vain: list[Exception] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    told: dict[int, Sequence[bytes]] = field(default_factory=dict)

    @property
    def is_vain(self) -> bool:
        """Whether nothing was told, and it is of no use to ask on."""
        return len(self.in_vain) >= ODD and not self.told


def _unknown(one: OpenMessage) -> Difference:
    return Difference(one.message_id, DifferenceKind.UNKNOWN_TO_PROVIDER, one.state, one.error_code)
