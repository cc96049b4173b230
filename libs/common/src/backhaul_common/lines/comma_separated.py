"""CSV as RFC 4180 has it, read and written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from backhaul_common.errors import Violation
from backhaul_common.lines.columns import Columns, header_error
from backhaul_common.lines.cutting import Cut, Cutter
from backhaul_common.lines.line import (
    ERROR_COLUMNS,
    MAX_LINE_BYTES,
    NOT_UTF8,
    TOO_LONG,
    Line,
    shown,
)

# Up to the quote that closes a field. A quote within it is doubled.
_QUOTED = re.compile(rb'[^"]*+(?:""[^"]*+)*+"')
_PLAIN = re.compile(rb'[^",\r\n]*+')
_NEEDS_QUOTES = re.compile(r'[",\r\n]|^\s|\s$')

_NOT_CLOSED = Violation(
    "",
    "Quotes that begin in this line are not closed.",
    "Close them, and write quotes within a field twice.",
)
_MISPLACED = Violation(
    "",
    "Quotes stand within a field, or something stands between a field's quotes and the next comma.",
    "Put the whole field into quotes, and write quotes within it twice.",
)


class CommaSeparated:
    """Reads CSV out of pieces. The first line that is not blank names the columns.

    Keeps one line at most. Where quotes are never closed, only the line in which they begin is lost: reading goes on
    with the one behind it.
    """

    def __init__(self, columns: Columns) -> None:
        self._allowed = columns
        self._cutter = Cutter()
        self._record = _Record(columns.most)
        self._columns: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """As the header names them; empty before it was read."""
        return self._columns

    def feed(self, piece: bytes) -> Iterator[Line]:
        """The lines that ``piece`` completes, blank ones left out. To be read to its end.

        Raises BackhaulError INVALID_ARGUMENT, of the field ``data``, for a header that cannot be understood.
        """
        for cut in self._cutter.feed(piece):
            # A blank line is none where no quotes are open; a million of them come in a megabyte.
            if self._record.cuts or cut.too_long or not cut.raw.isspace():
                yield from self._take(cut)

    def end(self) -> Iterator[Line]:
        """What is left when the file has ended. Raises as ``feed``, and for a file without a header."""
        for cut in self._cutter.end():
            yield from self._take(cut)
        while self._record.cuts:
            yield from self._give_up()
        if not self._columns:
            raise header_error("The file has no header.", self._allowed.begin)

    def _take(self, cut: Cut) -> Iterator[Line]:
        if not self._record.cuts and b'"' not in cut.raw:
            # By far the most lines.
            yield from self._plain(cut)
            return
        if cut.too_long or self._record.size + len(cut.raw) > MAX_LINE_BYTES:
            while self._record.cuts:
                yield from self._give_up()
            if cut.too_long:
                yield from self._refused(cut, TOO_LONG)
                return
        done = self._record.take(cut)
        if done is None:
            return
        if done:
            record, self._record = self._record, _Record(self._allowed.most)
            yield from self._complete(record)
        elif len(self._record.cuts) > 1:
            yield from self._give_up()
        else:
            self._record = _Record(self._allowed.most)
            yield from self._refused(cut, _MISPLACED)

    def _plain(self, cut: Cut) -> Iterator[Line]:
        if cut.too_long:
            yield from self._refused(cut, TOO_LONG)
            return
        try:
            text = cut.raw.rstrip(b"\r\n").decode()
        except UnicodeDecodeError:
            yield from self._refused(cut, NOT_UTF8)
            return
        fields = text.split(",", self._allowed.most)
        # A blank that stands in quotes was meant, and its line is not passed over.
        if any(field.strip() for field in fields):
            yield from self._fields(cut.number, fields, text)

    def _complete(self, record: _Record) -> Iterator[Line]:
        first = record.cuts[0]
        raw = b"".join(cut.raw for cut in record.cuts)
        try:
            fields = [field.decode() for field in record.fields]
        except UnicodeDecodeError:
            yield from self._refused(first._replace(raw=raw), NOT_UTF8)
            return
        yield from self._fields(first.number, fields, shown(raw))

    def _fields(self, number: int, fields: Sequence[str], text: str) -> Iterator[Line]:
        if not any(fields):
            return
        if not self._columns:
            self._columns = self._allowed.of_header(fields)
        elif len(fields) != len(self._columns):
            most = self._allowed.most
            problem = Violation(
                "",
                f"The line has {'more than ' if len(fields) > most else ''}{min(len(fields), most)} fields, "
                f"the header names {len(self._columns)}.",
                "Separate as many fields as the header names by commas; put fields with commas into quotes.",
            )
            yield Line(number, {}, text, problem)
        else:
            pairs = [pair for pair in zip(self._columns, fields, strict=True) if pair[1]]
            values = {name: field for name, field in pairs if name not in ERROR_COLUMNS}
            # Of a line that a file of errors could not take apart either, its text is what counts.
            yield Line(number, values, text if values else dict(pairs).get("error_text", text))

    def _give_up(self) -> Iterator[Line]:
        """Refuse the line in which quotes begin, and read what stood behind it anew."""
        record, self._record = self._record, _Record(self._allowed.most)
        yield from self._refused(record.cuts[0], _NOT_CLOSED)
        for cut in record.cuts[1:]:
            yield from self._take(cut)

    def _refused(self, cut: Cut, problem: Violation) -> Iterator[Line]:
        if not self._columns:
            raise header_error(f"Line {cut.number}, the header: {problem.message}", problem.fix)
        yield Line(cut.number, {}, shown(cut.raw), problem)


class _Record:
    """Fields of one line, which may go over several line breaks."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.cuts: list[Cut] = []
        self.fields: list[bytes] = []
        self.size = 0
        self._open: list[bytes] | None = None

    def take(self, cut: Cut) -> bool | None:
        """True when the line is complete, False when it can be none, None when its quotes go on."""
        self.cuts.append(cut)
        self.size += len(cut.raw)
        raw, at = cut.raw, 0
        while True:
            if self._open is None and raw.startswith(b'"', at):
                self._open = []
                at += 1
            if self._open is None:
                match = _PLAIN.match(raw, at)
                field = match[0] if match else b""
                at += len(field)
            else:
                match = _QUOTED.match(raw, at)
                if match is None:
                    self._open.append(raw[at:])
                    return None
                field = b"".join([*self._open, match[0][:-1]]).replace(b'""', b'"')
                self._open = None
                at = match.end()
            self.fields.append(field)
            if not raw.startswith(b",", at):
                return not raw[at:].rstrip(b"\r\n")
            if len(self.fields) > self._most:
                return True
            at += 1


def written(fields: Sequence[str]) -> bytes:
    """A line. Nothing is put before ``=``, ``+``, ``-`` or ``@``: a number begins with ``+``, and must be the same when
    it is read again."""
    return (",".join(_field(field) for field in fields) + "\r\n").encode("utf-8", "replace")


def error_header(columns: Sequence[str]) -> bytes:
    """The first line of a file of errors."""
    return written([*ERROR_COLUMNS, *_own(columns)])


def error_line(columns: Sequence[str], refused: Line, problem: Violation) -> bytes:
    """A line of a file of errors."""
    text = "" if refused.values else refused.text
    said = (str(refused.number), problem.field, problem.message, problem.fix, text)
    return written([*said, *(refused.values.get(name, "") for name in _own(columns))])


def _own(columns: Sequence[str]) -> Sequence[str]:
    return [name for name in columns if name not in ERROR_COLUMNS]


def _field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text
