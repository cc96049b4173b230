"""Where in a document a value stands: a part of JMESPath (https://jmespath.org), in which any expression costs little.

``jmespath`` parses; what is not of this part is refused when it is set. Values are then found by plain steps, many
times faster than by its interpreter, with which tests compare them. Tenants write expressions, so there are no
functions and no lists of expressions, by which a document could be multiplied, and nothing looks at an element twice:
an expression reads a document once at most for each of its alternatives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator, Field

MAX_EXPRESSION = 256
"""Characters of an expression."""

MAX_STEPS = 16
"""Names and indexes of one path."""

Steps = tuple[str | int, ...]
"""Names of objects' members, and indexes of arrays."""

EACH: Final = None
"""The step of an envelope that goes into every element of an array."""

_Node = Mapping[str, Any]
_Alternative = Callable[[object], object]

_GRAMMAR = (
    "Use names and indexes, as in data.to[0]; a name with other characters than letters, digits and underscores in "
    'quotes, as in "event-data".id; several with || between them, the first that has a value counting; '
    "'text' as the last of them; or headers[?name == 'X-Id'].value | [0], in parentheses where it is one of several."
)


class Expression(NamedTuple):
    """A compiled expression. ``read`` finds its value in a document, None for none; ``roots`` are the names of the
    document's members that it looks at; ``name`` is the last name of the first path, empty where there is none;
    ``selections`` is how many of its alternatives may look at every element of an array."""

    read: Callable[[object], object]
    roots: frozenset[str]
    name: str
    selections: int


class _Path(NamedTuple):
    """One alternative: a path; a path into an array, whose first element that has ``equals`` at ``by`` is followed
    along ``then``, and from there along ``after``; or a text."""

    steps: Steps = ()
    by: Steps | None = None
    equals: str = ""
    then: Steps = ()
    after: Steps = ()
    text: str | None = None


def compile_expression(text: str) -> Expression:
    """``text`` as an Expression. Raises ValueError, whose message says what is wrong and what to write."""
    paths = _alternatives(_parsed(text))
    if all(path.text is not None for path in paths):
        raise ValueError("It reads nothing of the document. Begin with the name of a field.")
    if any(path.text is not None for path in paths[:-1]):
        raise ValueError("A text always counts, so nothing behind it is ever read. Let the text be the last.")
    readers = [_reader(path) for path in paths]
    roots = frozenset(path.steps[0] for path in paths if path.steps and isinstance(path.steps[0], str))
    name = next((step for step in reversed(paths[0].steps) if isinstance(step, str)), "")
    selections = sum(path.by is not None for path in paths)
    return Expression(readers[0] if len(readers) == 1 else _first_of(readers), roots, name, selections)


def compile_envelope(text: str) -> tuple[str | int | None, ...]:
    """The steps from a body to the array of its events; EACH stands for every element. Raises ValueError."""
    if not text:
        return ()
    steps = _envelope(_parsed(text))
    if len(steps) > MAX_STEPS:
        raise ValueError(f"It has more than {MAX_STEPS} steps.")
    return steps


def _checked(text: str) -> str:
    if text:
        compile_expression(text)
    return text


def _checked_envelope(text: str) -> str:
    compile_envelope(text)
    return text


ExpressionText = Annotated[str, Field(max_length=MAX_EXPRESSION), AfterValidator(_checked)]
"""An expression as it is set; empty: the field is read from nowhere."""

EnvelopeText = Annotated[str, Field(max_length=MAX_EXPRESSION), AfterValidator(_checked_envelope)]
"""An envelope as it is set; empty: the body is the event, or an array of events."""


def _parsed(text: str) -> _Node:
    if len(text) > MAX_EXPRESSION:
        raise ValueError(f"It is longer than {MAX_EXPRESSION} characters.")
    if "`" in text:
        # Literals of JSON, which the library also reads in a way that it means to give up.
        raise ValueError(f"Backticks have no meaning here. {_GRAMMAR}")
    try:
        parsed: _Node = jmespath.compile(text).parsed
    except (JMESPathError, ValueError, RecursionError) as error:
        quoted = f' Names with a dash or a blank stand in quotes: "{text}".' if _is_a_bare_name(text) else ""
        raise ValueError(f"It is no JMESPath.{quoted} {_GRAMMAR}") from error
    return parsed


def _is_a_bare_name(text: str) -> bool:
    return bool(text) and all(character.isalnum() or character in "-_ " for character in text)


def _alternatives(node: _Node) -> list[_Path]:
    found: list[_Path] = []
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one["type"] == "or_expression":
            waiting += reversed(one["children"])
        else:
            found.append(_path(one))
    return found


def _path(node: _Node) -> _Path:
    if node["type"] == "literal":
        if not isinstance(node["value"], str) or not node["value"]:
            raise ValueError("A value of one's own is a text in single quotes, and not empty.")
        return _Path(text=node["value"])
    if node["type"] == "pipe":
        return _chosen(*node["children"])
    return _Path(_steps(node))


def _chosen(projection: _Node, picked: _Node) -> _Path:
    """``array[?by == 'equals'].then | [0].after``"""
    after = _steps(picked)
    if projection["type"] != "filter_projection" or after[:1] != (0,):
        raise ValueError(f"A pipe only takes the first element of a selection. {_GRAMMAR}")
    array, then, comparison = projection["children"]
    if comparison["type"] != "comparator" or comparison["value"] != "eq":
        raise ValueError(f"A selection compares one field with one text. {_GRAMMAR}")
    by, literal = comparison["children"]
    if literal["type"] != "literal" or not isinstance(literal["value"], str):
        raise ValueError(f"A selection compares a field, on the left, with a text. {_GRAMMAR}")
    return _Path(_steps(array), _steps(by), literal["value"], _steps(then), after[1:])


def _steps(node: _Node) -> Steps:
    steps: list[str | int] = []
    waiting = [node]
    while waiting:
        one = waiting.pop()
        kind = one["type"]
        if kind in ("field", "index"):
            steps.append(one["value"])
        elif kind in ("subexpression", "index_expression"):
            waiting += reversed(one["children"])
        elif kind not in ("identity", "current"):
            raise ValueError(f"{_named(kind)} cannot be used here. {_GRAMMAR}")
    if len(steps) > MAX_STEPS:
        raise ValueError(f"It has more than {MAX_STEPS} steps.")
    return tuple(steps)


def _envelope(node: _Node) -> tuple[str | int | None, ...]:
    kind = node["type"]
    if kind in ("projection", "flatten"):
        inner = node["children"][0]
        if kind == "flatten":
            return _envelope(inner)
        return (*_envelope(inner), EACH, *_envelope(node["children"][1]))
    if kind in ("literal", "comparator", "not_expression", "multi_select_dict"):
        raise ValueError(
            f"{_named(kind)} is never an array of events. Use names, as in results, or entry[].changes[].statuses."
        )
    if kind in ("subexpression", "index_expression"):
        return tuple(step for child in node["children"] for step in _envelope(child))
    try:
        return _steps(node)
    except ValueError:
        raise ValueError(
            f"{_named(kind)} cannot be used here. An envelope is a path of names, as in results, or, through arrays, "
            "entry[].changes[].value.statuses."
        ) from None


def _named(kind: str) -> str:
    return "A " + kind.removesuffix("_expression").replace("_", " ")


def _reader(path: _Path) -> _Alternative:
    if path.text is not None:
        text = path.text
        return lambda document: text  # noqa: ARG005  # a text is the same whatever the document.
    if path.by is not None:
        return _chooser(path, path.by)
    if len(path.steps) == 1 and isinstance(path.steps[0], str):
        name = path.steps[0]
        return lambda document: document.get(name) if type(document) is dict else None
    steps = path.steps
    return lambda document: walk(document, steps)


def _chooser(path: _Path, by: Steps) -> _Alternative:
    # An array of half a million numbers is passed over quickly. Of what can be entered no document has as many.
    entered = (dict if isinstance(by[0], str) else list) if by else str

    def choose(document: object) -> object:
        array = walk(document, path.steps)
        if type(array) is not list:
            return None
        for element in array:
            if type(element) is entered and walk(element, by) == path.equals:
                value = walk(element, path.then)
                if value is not None:
                    return walk(value, path.after)
        return None

    return choose


def _first_of(readers: Sequence[_Alternative]) -> _Alternative:
    def read(document: object) -> object:
        value: object = None
        for reader in readers:
            value = reader(document)
            # What JMESPath takes for false. A zero is a value.
            if value or (value is not False and type(value) in (int, float)):
                return value
        return value

    return read


def walk(value: object, steps: Steps) -> object:
    """What stands at the end of ``steps``, None where nothing does."""
    for step in steps:
        if type(step) is str:
            if type(value) is not dict:
                return None
            value = value.get(step)
        elif type(value) is not list:
            return None
        else:
            try:
                value = value[step]  # type: ignore[index]  # a step is a text or an index.
            except IndexError:
                return None
    return value
