"""``backhaul listen`` at a terminal: one thread follows, one calls, and this one shows both and hears keys."""

from __future__ import annotations

import os
from queue import Full, Queue
from threading import Lock, Thread
from typing import TYPE_CHECKING

from backhaul_cli.forwarding import told
from backhaul_cli.screen import Screen
from backhaul_cli.watching import MAX_KEPT, Row, Watched, details

if TYPE_CHECKING:
    from backhaul_cli.commands.listen import Listening

_MAX_WAITING = 100
"""Events that were read and not called with yet: where the program is slower, the stream waits."""
_MOVES = {"up": -1, "down": 1, "page up": -10, "page down": 10, "home": -MAX_KEPT, "end": MAX_KEPT}


class _Session:
    """What the threads share. Whoever changes ``watched`` has the lock."""

    def __init__(self, listening: Listening, heading: str, screen: Screen) -> None:
        self._listening = listening
        self._screen = screen
        self._watched = Watched(heading, colours=not os.environ.get("NO_COLOR"))
        self._lock = Lock()
        self._due: Queue[tuple[Row, str]] = Queue(_MAX_WAITING)
        self._failed: BaseException | None = None

    def run(self) -> None:
        """Until somebody quits, or it can go on no longer."""
        # They end with the process, whatever they wait for.
        for work in (self._follow, self._call):
            Thread(target=work, daemon=True).start()
        while True:
            with self._lock:
                if self._failed is not None:
                    raise self._failed
                width, height = self._screen.size()
                lines = self._watched.screen(width, height)
            self._screen.show(lines)
            for key in self._screen.pressed():
                if key in _MOVES:
                    with self._lock:
                        self._watched.move(_MOVES[key])
                elif key == "d":
                    self._watched.detailed = not self._watched.detailed
                elif key == "q":
                    return
                elif key in ("r", "o"):
                    self._of_chosen(key)

    def _of_chosen(self, key: str) -> None:
        with self._lock:
            row = self._watched.chosen
        if row is None:
            return
        if key == "o":
            self._screen.page("\n".join(details(row)) + "\n")
        elif (before := row.answer) is not None:
            # In this order: it may be answered before the next line here.
            row.answer = None
            try:
                self._due.put_nowait((row, ""))
            except Full:
                row.answer = before

    def _follow(self) -> None:
        try:
            for followed in self._listening.events:
                if followed.event is not None:
                    row = Row(told(followed.event))
                    with self._lock:
                        self._watched.add(row)
                    self._due.put((row, followed.id))
                self.say(followed.missed)
        except BaseException as exc:  # noqa: BLE001  # it is raised where it is heard
            self._failed = exc
            self._screen.wake()

    def _call(self) -> None:
        try:
            while True:
                row, stream_id = self._due.get()
                answer = self._listening.caller.call(row.told)
                with self._lock:
                    row.calls += 1
                    row.answer = answer
                    self._listening.last = stream_id or self._listening.last
                self._screen.wake()
        except BaseException as exc:  # noqa: BLE001  # as above; after q nobody hears it
            self._failed = exc
            self._screen.wake()

    def say(self, text: str) -> None:
        """What is said in the second line, until the next event comes."""
        self._watched.note = text
        self._screen.wake()


def interactively(listening: Listening, heading: str) -> None:
    """Show calls as they are made, until q or Ctrl-C."""
    with Screen() as screen:
        session = _Session(listening, heading, screen)
        listening.say = session.say
        session.run()
