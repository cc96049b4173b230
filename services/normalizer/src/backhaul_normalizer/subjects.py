"""Where events are published: one subject for each code of an error, and not more of them than the broker can bear."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from backhaul_common.logs import get_logger
from backhaul_common.names import NO_CODE, OTHER_CODE, events_subject

MAX_CODED_SUBJECTS = 1000
"""Subjects with a code that a tenant may have in EVENTS. Two providers with a hundred codes each, which come with two
or three kinds, have some five hundred. The broker keeps each subject in memory as long as it has a message under it."""

_TOKENS = 5  # events.<queue path>.<channel>.<kind>.<code>

ASK_AGAIN_S = 60.0
MAX_REMEMBERED = 10_000

Stored = Callable[[str], Awaitable[Iterable[str]]]
"""The subjects of EVENTS under a queue path that have a message now. UNAVAILABLE."""


@dataclass(slots=True)
class _Known:
    subjects: set[str]
    asked_at: float


class EventSubjects:
    """Names the subjects of events.

    Whoever sends callbacks chooses the codes in them, and could invent one for each. A code that is new to this process
    gets a subject of its own while the tenant has room for one. The broker is asked how many there are, so a restart
    forgets nothing, and what has aged out of the stream makes room. Each copy of the service counts what it added since
    it asked last, so several may exceed the bound by as much as they add within ASK_AGAIN_S.
    """

    def __init__(self, stored: Stored, clock: Callable[[], float]) -> None:
        self._stored = stored
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._log = get_logger(component="subjects")

    async def of(self, path: str, channel: str, kind: str, code: str) -> str:
        """The subject of events of this kind and code under ``path``. UNAVAILABLE where the broker must be asked."""
        subject = events_subject(path, channel, kind, code)
        if not _has_own_code(subject):
            return subject
        known = self._known.get(path)
        if known is not None and subject in known.subjects:
            return subject
        if known is None or self._clock() - known.asked_at >= ASK_AGAIN_S:
            known = await self._ask(path)
        if subject not in known.subjects:
            if len(known.subjects) >= MAX_CODED_SUBJECTS:
                return events_subject(path, channel, kind, OTHER_CODE)
            known.subjects.add(subject)
            if len(known.subjects) == MAX_CODED_SUBJECTS:
                self._log.warning("no_more_codes_in_subjects", queue_path=path, subjects=MAX_CODED_SUBJECTS)
        return subject

    async def _ask(self, path: str) -> _Known:
        present = {subject for subject in await self._stored(path) if _has_own_code(subject)}
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        known = self._known[path] = _Known(present, self._clock())
        return known


def _has_own_code(subject: str) -> bool:
    tokens = subject.split(".")
    return len(tokens) == _TOKENS and tokens[-1] not in (NO_CODE, OTHER_CODE)
