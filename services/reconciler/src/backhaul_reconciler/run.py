"""One turn of a channel: a run begins or goes on, and what keeps it from its end is said in words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from uuid import uuid4

from backhaul_channels.pull import (
    CredentialsRefusedError,
    LaterError,
    NeverError,
    PullError,
    UnreadableAnswerError,
)
from backhaul_common.documents import Document
from backhaul_common.leases import LostError
from backhaul_common.logs import get_logger
from backhaul_common.outages import is_outage

from backhaul_reconciler import offers
from backhaul_reconciler.accounts import Held
from backhaul_reconciler.books import MovedError
from backhaul_reconciler.channels import Channels, jittered
from backhaul_reconciler.finding import GoneError, NoRoomError
from backhaul_reconciler.knowing import Known
from backhaul_reconciler.ledger import Ledger
from backhaul_reconciler.model import Begun, Cause, RunState, Standing
from backhaul_reconciler.passes import called, closing, discovery, opened
from backhaul_reconciler.passes.closing import Seen
from backhaul_reconciler.transport import PacedError
from backhaul_reconciler.work import TURN_PAGES, TURN_S, Parts, TurnOverError, Work

REFUSED_S: Final = 3_600.0
"""When credentials that were refused are tried again, unless they are changed before."""

NO_ROOM_S: Final = 60.0
MIN_LATER_S: Final = 15.0
MAX_CALLED_S: Final = 3_600.0
"""For how long a run that somebody asked for waits for its provider."""

LONGEST_S: Final = 86_400.0
"""When a run that somebody asked for ends, whatever is left: what is scheduled waits for it."""

POSTPONED_S: Final = 5.0
"""When a channel is looked at again of which this copy knows another state than the one that is stored."""

_SECOND: Final = 1_000_000

Pass = tuple[str, Callable[[Work], Awaitable[None]]]


@dataclass(slots=True)
class _Stops:
    """What kept the passes from their ends. ``paced_s`` is None where nothing is left for the next turn."""

    paced_s: float | None = None
    why: list[PullError] = field(default_factory=list)

    def pace(self, wait_s: float) -> None:
        """Something is left, and may be asked for in ``wait_s``."""
        self.paced_s = wait_s if self.paced_s is None else min(self.paced_s, wait_s)


class Turns:
    """Gives channels their turns."""

    def __init__(
        self, parts: Parts, channels: Channels, seen: Seen, *, turn_s: float = TURN_S, turn_pages: int = TURN_PAGES
    ) -> None:
        self._parts = parts
        self._channels = channels
        self._seen = seen
        self._turn_s = turn_s
        self._turn_pages = turn_pages
        self._passes: tuple[Pass, ...] = (
            (opened.NAME, opened.ask_open),
            (discovery.NAME, discovery.discover),
            (closing.NAME, partial(closing.close, seen_pages=seen)),
        )
        self._called: tuple[Pass, ...] = ((called.NAME, called.ask_span),)
        self._log = get_logger(component="run")

    async def turn(self, held: Held, row: Document, ledgers: Mapping[str, Ledger]) -> None:
        """One turn of the channel whose document is ``row``. LostError; what says that a part is away is passed on, and
        all goes on where it was."""
        known = self._channels.known(row)
        if known is None:
            await self._channels.postpone(row, held.now_us() + int(POSTPONED_S * _SECOND))
            return
        work = Work(self._parts, known, held, dict(row), _begun_of(row, held), ledgers, 0.0, self._turn_pages)
        try:
            await self._begin(work)
            await self._go_on(work)
        except (MovedError, GoneError):
            # Of a tenant or channel that is another by now nothing is stored, and whoever knows it puts it in line.
            await self._channels.postpone(work.row, held.now_us() + int(POSTPONED_S * _SECOND))

    async def _begin(self, work: Work) -> None:
        row, run = work.row, work.run
        running = row.get("running")
        if running is not None and running["id"] == run.id:
            return
        changes = []
        if running is not None:
            text = "A run that somebody asked for came before it; what is left is asked by the next one."
            changes.append(self._parts.reports.end(running["id"], RunState.STOPPED, text, work.now_us()))
        if run.cause is Cause.SCHEDULE:
            starts = [discovery.begins_at_us(work, one, run.to_us) for one in discovery.discovering(work)]
            run = work.run = Begun(run.id, run.cause, min(starts, default=run.to_us), run.to_us, run.began_at_us)
        fields = {"running": _running_of(run), "run": run.id, "asked_at_us": work.now_us()}
        gone = ["called"] if run.cause is Cause.CALL else []
        await work.store(fields, gone, changes=[*changes, self._parts.reports.begin(work.known.of, run)])

    async def _go_on(self, work: Work) -> None:
        stops = _Stops()
        try:
            await self._pass_all(work, stops)
        except NoRoomError as exc:
            await self._end(work, RunState.STOPPED, Standing.WAITING, str(exc), NO_ROOM_S)
            return
        except CredentialsRefusedError as exc:
            text = f"{str(exc).rstrip('.')}. PUT the channel with other pull_credentials; these are tried once an hour."
            if work.run.cause is Cause.SCHEDULE:
                await closing.refused(work, self._seen, text)
            await self._end(work, RunState.STOPPED, Standing.CREDENTIALS_REFUSED, text, REFUSED_S)
            return
        except Exception as exc:
            if isinstance(exc, (LostError, MovedError, GoneError)) or is_outage(exc):
                raise
            self._log.error("run_failed", **_names(work.known), report=work.run.id, exc_info=exc)
            text = "The provider could not be asked, by a fault of Backhaul's own."
            await self._end(work, RunState.STOPPED, Standing.FAILING, text, None)
            return
        if stops.why:
            await self._stopped(work, stops.why[0])
        elif stops.paced_s is not None:
            await self._paced(work, stops.paced_s)
        else:
            await self._end(work, RunState.DONE, Standing.ASKED, offers.lacking(work.row), None)

    async def _pass_all(self, work: Work, stops: _Stops) -> None:
        """Each pass has its part of the turn, so that none keeps the others from theirs."""
        passes = self._called if work.run.cause is Cause.CALL else self._passes
        waiting = [one for one in passes if one[0] not in work.row["running"]["passed"]]
        pages = self._turn_pages
        for place, (name, do) in enumerate(waiting):
            left = len(waiting) - place
            work.ends = work.held.loop_time() + self._turn_s / len(waiting)
            work.pages = max(1, pages // left)
            before = work.pages
            try:
                await do(work)
            except TurnOverError:
                stops.pace(0.0)
            except PacedError as exc:
                stops.pace(exc.wait_s)
            except CredentialsRefusedError:
                raise
            except PullError as exc:
                stops.why.append(exc)
            else:
                passed = [*work.row["running"]["passed"], name]
                await work.store({"running": {**work.row["running"], "passed": passed}})
            pages -= before - work.pages

    async def _stopped(self, work: Work, why: PullError) -> None:
        text = str(why)
        if isinstance(why, LaterError):
            rest_s = max((ledger.not_before for ledger in work.ledgers.values()), default=0.0) - work.held.loop_time()
            wait_s = max(MIN_LATER_S, rest_s)
            if work.run.cause is Cause.CALL and work.now_us() - work.run.began_at_us < MAX_CALLED_S * _SECOND:
                await self._rest(work, wait_s, {"standing": Standing.WAITING.value, "text": text})
            else:
                await self._end(work, RunState.STOPPED, Standing.WAITING, text, wait_s)
        elif isinstance(why, NeverError):
            await self._end(work, RunState.STOPPED, Standing.ASKED, text, None)
        else:
            standing = Standing.FAILING if isinstance(why, UnreadableAnswerError) else Standing.WAITING
            await self._end(work, RunState.STOPPED, standing, text, None)

    async def _paced(self, work: Work, wait_s: float) -> None:
        """Something is left. A run that takes longer than there is between two ends, since the lists must be asked for
        what is new meanwhile."""
        took_us = work.now_us() - work.run.began_at_us
        if work.run.cause is Cause.SCHEDULE and took_us > work.known.every_s * _SECOND:
            text = "It took longer than there is between two runs; what is left is asked by the next one."
            await self._end(work, RunState.STOPPED, Standing.ASKED, text, wait_s)
        elif work.run.cause is Cause.CALL and took_us > LONGEST_S * _SECOND:
            text = "It took longer than a day: ask about a shorter span."
            await self._end(work, RunState.STOPPED, Standing.ASKED, text, wait_s)
        else:
            await self._rest(work, wait_s, {"standing": Standing.ASKED.value, "text": offers.lacking(work.row)})

    async def _rest(self, work: Work, wait_s: float, fields: Mapping[str, Any]) -> None:
        due_us = work.now_us() + int(wait_s * _SECOND)
        await work.store({**fields, "due_at_us": due_us})

    async def _end(self, work: Work, state: RunState, standing: Standing, text: str, again_s: float | None) -> None:
        """The run is over; the next one begins in ``again_s``, or as the channel's settings say."""
        now_us, run = work.now_us(), work.run
        if again_s is None:
            # What somebody asked for comes on top of what is scheduled, which is due as it was.
            since_us = min(discovery.discovered_us(work), now_us) if run.cause is Cause.CALL else run.began_at_us
            due_us = max(now_us + _SECOND, since_us + int(jittered(work.known.every_s) * _SECOND))
        else:
            due_us = now_us + int(jittered(again_s) * _SECOND)
        fields = {"standing": standing.value, "text": text, "due_at_us": due_us}
        ended = self._parts.reports.end(run.id, state, text, now_us)
        await work.store(fields, ["running"], changes=[ended])
        self._log.info(
            "run",
            **_names(work.known),
            report=run.id,
            cause=run.cause.value,
            state=state.value,
            text=text,
            duration_ms=(now_us - run.began_at_us) // 1000,
        )


def _begun_of(row: Document, held: Held) -> Begun:
    """The run that is under way or wanted, or else a new one."""
    running, wanted = row.get("running"), row.get("called")
    if running is not None and (wanted is None or running["cause"] == Cause.CALL.value):
        return Begun(
            running["id"],
            Cause(running["cause"]),
            running["from_us"],
            running["to_us"],
            running["began_at_us"],
            running["dry_run"],
        )
    now_us = held.now_us()
    if wanted is not None:
        return Begun(
            wanted["id"], Cause.CALL, wanted["from_us"], wanted["to_us"], wanted["asked_at_us"], wanted["dry_run"]
        )
    return Begun(uuid4().hex, Cause.SCHEDULE, now_us, now_us, now_us)


def _running_of(run: Begun) -> dict[str, Any]:
    return {
        "id": run.id,
        "cause": run.cause.value,
        "from_us": run.from_us,
        "to_us": run.to_us,
        "dry_run": run.dry_run,
        "began_at_us": run.began_at_us,
        "passed": [],
        "cursor": "",
    }


def _names(known: Known) -> dict[str, str]:
    return {"tenant": known.of.tenant, "channel": known.of.channel}
