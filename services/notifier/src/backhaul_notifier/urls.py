"""Addresses with variables: ``https://example.com/sent/${memberId}?sale=${communicationId}``.

A value may stand in a segment of the path, in a name or a value of the query, and in the fragment (which is not sent).
It is percent-encoded but for letters, digits and ``-._~``, so whatever it holds, it adds no segment, parameter or
other part to the address. Scheme, host and port are the tenant's alone: who can set an attribute of a member must not
choose where Backhaul connects and shows its credentials.

``$`` without a ``{`` is a dollar; ``${`` that is meant as it is cannot stand in an address, and is ``$%7B``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from backhaul_common.errors import BackhaulError, Code

from backhaul_notifier.catalogue.types import EventType
from backhaul_notifier.variables import MAX_NAME, impossible

MAX_TEMPLATE: Final = 4096
"""Characters of an address before its variables have values."""

MAX_URL: Final = 8192
"""Characters of an address that is called."""

MAX_VARIABLES: Final = 50

_LITERAL = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")
"""What an address may hold as it is."""

_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
"""Host and port, spelled so that nobody who reads them finds another host."""

_DOTS = frozenset({".", ".."})
_LONGEST_PREFIX = len("event.attributes.")


class UnresolvedError(Exception):
    """An address cannot be made of what is known. The message names the variable, and is for people."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A part that stands as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Variable:
    """A part that a value takes the place of. ``in_path``: it stands in a segment."""

    name: str
    in_path: bool


@dataclass(frozen=True, slots=True)
class Template:
    """A checked address."""

    text: str
    parts: tuple[Literal | Variable, ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """The names in it, in their order, each once."""
        return tuple(dict.fromkeys(part.name for part in self.parts if isinstance(part, Variable)))

    def expanded(self, get: Callable[[str], str | None]) -> str:
        """The address to call; ``get`` gives a name's value, None where it has none.

        UnresolvedError where a value is missing, cannot stand where it should, or makes the address too long.
        """
        if not self.variables:
            return self.text
        url = "".join(part.text if isinstance(part, Literal) else _encoded(part, get) for part in self.parts)
        self._check_segments(url)
        if len(url) > MAX_URL:
            longest = max(self.variables, key=lambda name: len(get(name) or ""))
            raise UnresolvedError(
                f"The address has {len(url)} characters, and not {MAX_URL} at most; the longest value is that of "
                f"${{{longest}}}."
            )
        return url

    def _check_segments(self, url: str) -> None:
        """That no value makes a segment "." or "..", which servers leave out, with the segment before it, however it is
        encoded; nor an empty one, which some leave out as well."""
        names = [part.name for part in self.parts if isinstance(part, Variable) and part.in_path]
        if not names:
            return
        of = ", ".join(f"${{{name}}}" for name in names)
        if has_dots(url):
            raise UnresolvedError(f"A segment of the path would be . or .. by a value of {of}, which leads elsewhere.")
        before = "".join(part.text if isinstance(part, Literal) else "x" for part in self.parts)
        if _segments(url).count("") > _segments(before).count(""):
            raise UnresolvedError(f"A segment of the path would be empty by a value of {of}.")


def parse(text: str, types: Sequence[EventType], *, field: str = "url") -> Template:
    """The address that ``text`` says, of a subscription that is told of ``types``.

    INVALID_ARGUMENT, of ``field``, where it is none, or has a variable that could never have a value or must not stand
    where it does.
    """
    if len(text) > MAX_TEMPLATE:
        raise _invalid(field, f"It has more than {MAX_TEMPLATE} characters.", "Shorten it.")
    pieces = _pieces(text, field)
    names = [name for name, is_name in pieces if is_name]
    if len(names) > MAX_VARIABLES:
        raise _invalid(field, f"It has more than {MAX_VARIABLES} variables.", "Use fewer.")
    _check_literals((piece for piece, is_name in pieces if not is_name), field)
    parts = _placed(pieces, field)
    _check_address(pieces, field)
    for name in names:
        why = impossible(name, types)
        if why:
            fix = "Take a name that can have one, or leave the variable out."
            raise _invalid(field, f"${{{name}}} can never have a value: {why}.", fix)
    return Template(text, parts)


def has_dots(url: str) -> bool:
    """Whether a segment of the path is "." or "..", encoded or not."""
    return any(unquote(segment) in _DOTS for segment in _segments(url))


def _segments(url: str) -> list[str]:
    return re.split(r"[?#]", url, maxsplit=1)[0].partition("://")[2].partition("/")[2].split("/")


def _pieces(text: str, field: str) -> list[tuple[str, bool]]:
    """Literals and names, in turn."""
    pieces: list[tuple[str, bool]] = []
    at = 0
    while (begin := text.find("${", at)) >= 0:
        end = text.find("}", begin)
        if end < 0:
            raise _invalid(
                field,
                f"The variable that begins at character {begin + 1} has no end.",
                "Close it with a }, or write $%7B.",
            )
        name = text[begin + 2 : end]
        if not name:
            raise _invalid(field, "A variable has no name: ${}.", "Name it, or write $%7B%7D.")
        if "$" in name or "{" in name:
            raise _invalid(field, f"${{{name}}} has a variable inside of its name.", "Name one variable at a time.")
        if len(name) > MAX_NAME + _LONGEST_PREFIX:
            raise _invalid(field, f"A variable's name has more than {MAX_NAME} characters.", "Use a shorter name.")
        pieces += [(text[at:begin], False), (name, True)]
        at = end + 1
    return [*pieces, (text[at:], False)]


def _check_literals(literals: Iterable[str], field: str) -> None:
    for literal in literals:
        good = _LITERAL.match(literal)
        end = good.end() if good else 0
        if end < len(literal):
            shown = literal[end]
            raise _invalid(
                field,
                f"{shown!r} cannot stand in an address.",
                "Write it as UTF-8 and percent-encode it"
                + (f": {quote(shown, errors='replace')}." if shown != "%" else "; a percent sign itself is %25."),
            )


def _placed(pieces: Sequence[tuple[str, bool]], field: str) -> tuple[Literal | Variable, ...]:
    """The parts, each variable with where it stands."""
    parts: list[Literal | Variable] = []
    before = ""  # What is literal so far, with a letter for each variable.
    for piece, is_name in pieces:
        if not is_name:
            before += piece
            if piece:
                parts.append(Literal(piece))
            continue
        _, scheme, rest = before.partition("://")
        authority_ends = re.search(r"[/?#]", rest)
        if not scheme or not authority_ends:
            raise _invalid(
                field,
                f"${{{piece}}} stands in front of the path.",
                "Write scheme, host and port as they are, with a / behind them: who can set a value must not choose "
                "where Backhaul connects and shows its credentials.",
            )
        parts.append(Variable(piece, in_path=not re.search(r"[?#]", rest)))
        before += "x"
    return tuple(parts)


def _check_address(pieces: Sequence[tuple[str, bool]], field: str) -> None:
    plain = "".join("x" if is_name else piece for piece, is_name in pieces)
    scheme, colon, rest = plain.partition("://")
    if not colon or scheme.lower() not in {"http", "https"}:
        raise _invalid(field, "It does not begin with https:// or http://.", "Pass the whole address.")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise _invalid(
            field,
            "It has a user's name in front of the host. Addresses are shown and logged.",
            "Pass the name and the password as basic credentials.",
        )
    named = _AUTHORITY.fullmatch(authority)
    if not named or not 0 < int(named["port"] or 443) < 65_536:
        raise _invalid(
            field,
            "It has no host that can be read, or no good port.",
            "Pass the whole address, such as https://example.com/sent; a host with other letters as xn--….",
        )
    if has_dots(plain):
        raise _invalid(field, "A segment of the path is . or .., which leads elsewhere.", "Write where it leads.")


def _encoded(part: Variable, get: Callable[[str], str | None]) -> str:
    value = get(part.name)
    if value is None:
        raise UnresolvedError(f"${{{part.name}}} has no value: neither what is told nor what it is about knows it.")
    try:
        # Letters, digits and -._~ stay in every position; all else is encoded, so no value has a delimiter.
        return quote(value, safe="", errors="strict")
    except UnicodeEncodeError:
        raise UnresolvedError(f"${{{part.name}}} holds half a character, which no address can.") from None


def _invalid(field: str, message: str, fix: str) -> BackhaulError:
    return BackhaulError(Code.INVALID_ARGUMENT, message, field=field, fix=fix)
