"""What somebody who listens has before them: the last events with what was answered, and the one that is chosen.
Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from backhaul_cli.forwarding import Answer, Told
from backhaul_cli.texts import exact, plain, plain_json

MAX_KEPT = 500
_HELP = "↑↓ choose   r replay   d details   o open   q quit"
_GREEN, _RED, _REVERSE, _BOLD, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[7m", "\x1b[1m", "\x1b[0m"


@dataclass
class Row:
    """One event, and what came of its last call; None where it is under way."""

    told: Told
    calls: int = 0
    answer: Answer | None = None


def line(row: Row) -> str:
    """A row in one line of plain text."""
    event = row.told.event
    when = exact(event.received_at)[11:19] if event.received_at else ""
    again = f"  ({row.calls} times)" if row.calls > 1 else ""
    return plain(
        f"{when}  {outcome(row.answer):<12}  message.{event.kind:<12}  {event.channel:<10}  {event.message_id}{again}"
    )


def outcome(answer: Answer | None) -> str:
    """What came of a call, in a word or two."""
    if answer is None:
        return "…"
    return f"{answer.status} {answer.ms:.0f} ms" if answer.status else "no answer"


def details(row: Row) -> list[str]:
    """What was sent, and what was answered, as lines of plain text."""
    from backhaul_cli.output import pretty

    answer = row.answer
    said = [] if answer is None else [plain(answer.error or outcome(answer)), *map(plain, answer.text.splitlines())]
    return [
        "answered:",
        *(f"  {one}" for one in said),
        "",
        plain(f"webhook-id: {row.told.webhook_id}"),
        *plain_json(_indented(row.told.body, pretty)).splitlines(),
    ]


def _indented(body: bytes, pretty: Callable[[object], str]) -> str:
    import msgspec

    return pretty(msgspec.json.decode(body))


class Watched:
    """The last ``MAX_KEPT`` events. The newest one is chosen, until somebody chooses another."""

    def __init__(self, heading: str, *, colours: bool = True) -> None:
        self._heading = plain(heading)
        self._colours = colours
        self.rows: deque[Row] = deque()
        self.note = ""
        self.detailed = False
        self.seen = 0
        self._chosen = 0
        self._follows = True

    def add(self, row: Row) -> None:
        """One more. The oldest goes where there are too many, and what is chosen stays so as long as it is there."""
        self.rows.append(row)
        self.seen += 1
        if len(self.rows) > MAX_KEPT:
            self.rows.popleft()
            self._chosen = max(self._chosen - 1, 0)
        if self._follows:
            self._chosen = len(self.rows) - 1

    def move(self, by: int) -> None:
        """Choose another, so many further down. Below the last one the newest is chosen again as it comes."""
        if not self.rows:
            return
        self._follows = self._chosen + by >= len(self.rows)
        self._chosen = min(max(self._chosen + by, 0), len(self.rows) - 1)

    @property
    def chosen(self) -> Row | None:
        """The chosen one; None where nothing has come."""
        return self.rows[self._chosen] if self.rows else None

    def screen(self, width: int, height: int) -> list[str]:
        """What a terminal shows: ``height`` lines, none wider than ``width``."""
        room = max(height - 3, 1)
        row = self.chosen
        if self.detailed and row is not None:
            body = [_fit(one, width) for one in details(row)[:room]]
        else:
            # The chosen one is in sight, and the rows around it.
            first = max(0, min(self._chosen - room // 2, len(self.rows) - room))
            body = [
                self._styled(one, width, chosen=first + place == self._chosen)
                for place, one in enumerate(islice(self.rows, first, first + room))
            ]
        state = self.note or f"{self.seen} events" + ("" if self._follows else "; ↓ to the end follows again")
        lines = [f"{_BOLD}{_fit(self._heading, width)}{_PLAIN}", _fit(plain(state), width), *body]
        return [*lines, *[""] * (height - 1 - len(lines)), _fit(_HELP, width)][:height]

    def _styled(self, row: Row, width: int, *, chosen: bool) -> str:
        colour = "" if row.answer is None or not self._colours else _GREEN if row.answer.taken else _RED
        return f"{_REVERSE if chosen else ''}{colour}{_fit(line(row), width)}{_PLAIN}"


def _fit(text: str, width: int) -> str:
    """``text`` in so many columns: cut, with a mark, where it is wider."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
