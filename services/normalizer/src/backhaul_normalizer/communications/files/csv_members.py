"""Members as CSV: a line a destination, and members whose lines are behind each other put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from backhaul_common.lines.columns import Columns, header_error
from backhaul_common.lines.comma_separated import CommaSeparated
from backhaul_common.lines.line import CUT_OFF, ERROR_COLUMNS, Line

from backhaul_normalizer.communications.documents import MAX_ATTRIBUTES, MAX_DESTINATIONS
from backhaul_normalizer.communications.files.members import (
    CHANNEL,
    MEMBER_KEY,
    MESSAGE_ID,
    RECIPIENT,
    Attribute,
    Member,
    MemberError,
    Refused,
    checked_attributes,
    checked_channel,
    checked_destinations,
    checked_id,
    checked_key,
    checked_name,
    checked_value,
)

_OWN: Final = (MEMBER_KEY, CHANNEL, RECIPIENT, MESSAGE_ID)
_COLUMNS = Columns(_OWN, others=True, most=len(_OWN) + MAX_ATTRIBUTES + len(ERROR_COLUMNS))


MAX_LINES = 4 * MAX_DESTINATIONS
"""So many lines are put together at most; what goes on behind them is the same member once more."""


class CsvMembers:
    """Reads members out of pieces. Keeps one line, and one member, at most."""

    def __init__(self) -> None:
        self._reader = CommaSeparated(_COLUMNS)
        self._attributes: tuple[str, ...] | None = None
        self._member: Member | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """As the header names them; empty before it was read."""
        return self._reader.columns

    def feed(self, piece: bytes) -> Iterator[Member | Refused]:
        """What ``piece`` completes. To be read to its end. INVALID_ARGUMENT for a header that is not understood."""
        return self._take(self._reader.feed(piece))

    def end(self, *, whole: bool) -> Iterator[Member | Refused]:
        """What is left when the file has ended; where that is not its end, the last line is refused."""
        left = self._reader.end()
        yield from self._take(left if whole else map(_cut_off, left))
        yield from self._complete()

    def _take(self, lines: Iterable[Line]) -> Iterator[Member | Refused]:
        for line in lines:
            try:
                member = self._read(line)
                if self._goes_on(member, line):
                    continue
            except MemberError as exc:
                yield from self._complete()
                yield Refused(line, line.problem or exc.problem)
            else:
                yield from self._complete()
                self._member = member

    def _goes_on(self, more: Member, line: Line) -> bool:
        """Whether the next line is about the member that is kept; then ``more`` is added to it. MemberError."""
        member = self._member
        if member is None or member.key != more.key or member.lines == MAX_LINES:
            return False
        if not set(more.destinations) <= set(member.destinations):
            member.destinations = checked_destinations([*member.destinations, *more.destinations], RECIPIENT)
        if member.attributes != more.attributes:
            member.attributes = list({**dict(member.attributes), **dict(more.attributes)}.items())
        if isinstance(member.source, list):
            member.source.append(line)
        return True

    def _complete(self) -> Iterator[Member]:
        if self._member is not None:
            yield self._member
            self._member = None

    def _read(self, line: Line) -> Member:
        if line.problem is not None:
            raise MemberError(line.problem.field, line.problem.message, line.problem.fix)
        names = self._names()
        values = line.values
        key = checked_key(values.get(MEMBER_KEY, "").strip())
        channel, recipient, message_id = (values.get(name, "").strip() for name in (CHANNEL, RECIPIENT, MESSAGE_ID))
        attributes: list[Attribute] = [(name, checked_value(values[name], name)) for name in names if name in values]
        destination = (
            checked_channel(channel, CHANNEL),
            checked_id(recipient, RECIPIENT),
            checked_id(message_id, MESSAGE_ID),
        )
        return Member(line.number, key, attributes, [destination] if any(destination) else [], [line])

    def _names(self) -> tuple[str, ...]:
        """The columns that are attributes. INVALID_ARGUMENT where one of them cannot be."""
        if self._attributes is None:
            names = tuple(name for name in self.columns if name not in _OWN and name not in ERROR_COLUMNS)
            try:
                for name in names:
                    checked_name(name, "")
                checked_attributes([(name, "") for name in names], "")
            except MemberError as exc:
                raise header_error(f"The header: {exc.problem.message}", exc.problem.fix) from exc
            self._attributes = names
        return self._attributes


def _cut_off(line: Line) -> Line:
    return line if line.problem else line._replace(values={}, problem=CUT_OFF)
