"""One copy at a time files EVENTS: it takes messages by position, closes piles, and has them uploaded and sealed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from backhaul_common import metrics as catalogue
from backhaul_common.directory import TenantDirectory
from backhaul_common.feed import PositionReader
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.outages import is_outage
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import Tracing

from backhaul_audit.asking import Asking
from backhaul_audit.books import Books
from backhaul_audit.counts import Counts
from backhaul_audit.encrypting import EncryptedLines
from backhaul_audit.keyring import Keyring
from backhaul_audit.lateness import Lateness
from backhaul_audit.lines import Lines
from backhaul_audit.piles import Limits, Piles
from backhaul_audit.ports import Destinations
from backhaul_audit.returns import Returns
from backhaul_audit.sealer import ReadAgainError
from backhaul_audit.states import MongoStates
from backhaul_audit.turn import Turn


class Filing:
    """Files for as long as this copy owns the position, and waits while another does.

    Whatever fails, all that is in memory is dropped and read again from the stored position.
    """

    def __init__(
        self,
        reader: PositionReader,
        books: Books,
        states: MongoStates,
        tenants: TenantDirectory,
        asking: Asking,
        destinations: Destinations,
        keyring: Keyring,
        limits: Limits,
        metrics: Metrics,
        tracing: Tracing,
        *,
        lateness: Lateness,
        first_position: Callable[[], Awaitable[int]],
        new_id: Callable[[], str],
        now_us: Callable[[], int],
    ) -> None:
        """``first_position`` tells the first position that EVENTS has."""
        self._reader = reader
        self._books = books
        self._states = states
        self._tenants = tenants
        self._asking = asking
        self._destinations = destinations
        self._lines = Lines()
        self._encrypted = EncryptedLines(self._lines, keyring)
        self._limits = limits
        self._counts = Counts(metrics)
        self._tracing = tracing
        self._lateness = lateness
        self._returns = Returns()
        self._first_position = first_position
        self._new_id = new_id
        self._now_us = now_us
        self._turn: Turn | None = None
        self._log = get_logger(component="filing")
        metrics.gauge(catalogue.AUDIT_WAITING_SECONDS, self._waiting_s)
        metrics.gauge(catalogue.AUDIT_HELD_BYTES, lambda: self._turn.piles.bytes if self._turn else 0)
        metrics.gauge(catalogue.AUDIT_PILES_LAPSED, lambda: len(self._turn.piles.lapsed) if self._turn else 0)
        metrics.gauge(catalogue.AUDIT_BACKLOG, lambda: reader.pending if self._turn else 0)
        tenants.listen(self._tenant_changed)

    async def run(self) -> None:
        """File until cancelled. Raises what says that a part is away: run it again, as ``keep_running`` does."""
        # Whoever nobody has heard of yet is not gone.
        await self._tenants.check()
        while True:
            position = await self._books.position()
            self._turn = await self._begin(position)
            try:
                await self._turn.run()
            except BaseExceptionGroup as group:
                failure = _gravest(group)
                if not isinstance(failure, ReadAgainError):
                    raise failure from group
                self._log.info("events_read_again", position=self._books.floor)
            finally:
                self._turn = None

    async def _begin(self, position: int) -> Turn:
        opened = await self._books.load()
        await self._states.begin()
        piles = Piles(self._limits, self._new_id)
        for pile in opened.done.keys() | opened.planned.keys():
            piles.known(pile, opened.done.get(pile, 0), opened.planned.get(pile, ()))
        piles.missed(await self._first_position())
        turn = Turn(
            self._reader,
            self._books,
            self._states,
            self._asking,
            self._destinations,
            piles,
            opened,
            self._counts,
            self._lines,
            self._encrypted,
            self._tracing,
            self._new_id,
            self._now_us,
            lateness=self._lateness,
            returns=self._returns,
            position=position,
        )
        self._reader.seek(position)
        return turn

    def _tenant_changed(self, _: str, tenant: Tenant | None) -> None:
        if self._turn is not None and tenant is not None:
            self._turn.uploads.wake(tenant.registration)

    def _waiting_s(self) -> float:
        turn = self._turn
        waiting = [since.stored_us for since in turn.piles.waiting().values()] if turn is not None else []
        return max(0.0, (self._now_us() - min(waiting)) / 1e6) if waiting else 0.0


def _gravest(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One of what failed together: what waiting does not mend, if there is any, and any failure before a wish."""
    failures = _flat(group)
    return max(failures, key=lambda one: 0 if isinstance(one, ReadAgainError) else 1 if is_outage(one) else 2)


def _flat(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    flat: list[BaseException] = []
    for one in group.exceptions:
        flat += _flat(one) if isinstance(one, BaseExceptionGroup) else [one]
    return flat
