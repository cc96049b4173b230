"""Field paths: what a tenant may write, that it means what JMESPath says, and that none of it costs much."""

from __future__ import annotations

import time
from typing import Any

import jmespath
import pytest
from backhaul_channels.engines.mapped.paths import (
    EACH,
    MAX_EXPRESSION,
    MAX_STEPS,
    compile_envelope,
    compile_expression,
)
from hypothesis import example, given
from hypothesis import strategies as st

DOCUMENT: dict[str, Any] = {
    "id": "m-1",
    "event-data": {"id": 7, "to": ["a", "b"], "empty": ""},
    "zero": 0,
    "off": False,
    "headers": [{"name": "X-Id", "value": None}, 5, {"name": "X-Id", "value": {"n": ["first"]}}, {"name": "other"}],
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("id", "m-1"),
        ("nothing", None),
        ("id.more", None),
        ('"event-data".id', 7),
        ('"event-data".to[0]', "a"),
        ('"event-data".to[-1]', "b"),
        ('"event-data".to[2]', None),
        ('"event-data".to[99999999999999999999]', None),
        ("@.id", "m-1"),
        ("(id)", "m-1"),
        ("nothing || id", "m-1"),
        ('"event-data".empty || id', "m-1"),
        ("zero || id", 0),
        ("off || id", "m-1"),
        ("nothing || 'sent'", "sent"),
        ("headers[?name == 'X-Id'].value | [0]", {"n": ["first"]}),
        ("headers[?name == 'X-Id'].value | [0].n[0]", "first"),
        ("(headers[?name == 'none'].value | [0]) || id", "m-1"),
        ("headers[?name == 'other'] | [0].name", "other"),
        ("id[?name == 'X-Id'] | [0]", None),
    ],
)
def test_a_path_finds_what_jmespath_finds(expression: str, value: object) -> None:
    assert compile_expression(expression).read(DOCUMENT) == value == jmespath.search(expression, DOCUMENT)


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("event-data", 'stand in quotes: "event-data"'),
        ("message id", 'stand in quotes: "message id"'),
        ("a..b", "no JMESPath"),
        ("", "no JMESPath"),
        ("length(a)", "A function"),
        ("a.to_string(@)", "A function"),
        ("[a, b]", "A multi select list"),
        ("{a: b}", "A multi select dict"),
        ("a[*].b", "A projection"),
        ("a[]", "A projection"),
        ("a.*", "A value projection"),
        ("a[1:2]", "A projection"),
        ("!a", "A not"),
        ("a && b", "A and"),
        ("a == 'b'", "A comparator"),
        ("a | b", "A pipe only takes"),
        ("a[?b == 'c'] | [1]", "A pipe only takes"),
        ("a[?b == 'c']", "A filter projection"),
        ("a[?b != 'c'] | [0]", "compares one field with one text"),
        ("a[?b && c] | [0]", "compares one field with one text"),
        ("a[?'c' == b] | [0]", "on the left"),
        ("a[?b == c] | [0]", "on the left"),
        ("a || `5`", "Backticks"),
        ("`{}`", "Backticks"),
        ("'text'", "reads nothing"),
        ("'text' || 'more'", "reads nothing"),
        ("'text' || a", "Let the text be the last"),
        ("''", "not empty"),
        ("a" + ".a" * MAX_STEPS, "more than 16 steps"),
        ("a" * (MAX_EXPRESSION + 1), "longer than 256"),
        ("(" * 120 + "length(a)" + ")" * 120, "A function"),
        ("a" + "[0]" * 80, "more than 16 steps"),
        ("@" + "|[@,@][]" * 22, "A projection"),
        ("$.a", "no JMESPath"),
        ("a[?b =~ '(a+)+$']", "no JMESPath"),
    ],
)
def test_what_is_refused_says_why(expression: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        compile_expression(expression)
    assert complaint in str(caught.value)


names = st.sampled_from(["a", "b", "c", '"d-e"'])
paths = st.builds(
    lambda first, rest: first + "".join(rest),
    names,
    st.lists(st.sampled_from([".a", ".b", '."d-e"', "[0]", "[1]", "[-1]"]), max_size=3),
)
selections = st.builds("({}[?{} == '{}'].{} | [0])".format, paths, names, st.sampled_from(["x", "", "ü"]), paths)
expressions = st.lists(paths | selections, min_size=1, max_size=3).map(" || ".join)
values = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 0.5, "", "x", "ü"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c", "d-e"]), inner, max_size=4)
    ),
    max_leaves=20,
)
documents = st.dictionaries(st.sampled_from(["a", "b", "c", "d-e"]), values, max_size=4)


@given(expression=expressions, document=documents)
@example(expression="a[?b == 'x'].a.b | [0]", document={"a": [{"b": "x", "a": 1}, {"b": "x", "a": {"b": 2}}]})
def test_whatever_is_taken_means_what_the_library_makes_of_it(expression: str, document: dict[str, Any]) -> None:
    assert compile_expression(expression).read(document) == jmespath.search(expression, document)


@given(text=st.text(max_size=60) | st.text(st.sampled_from("ab.[]?*|&!()'\"`@,:0= -<"), max_size=60))
def test_no_text_raises_anything_but_a_reason(text: str) -> None:
    for compiler in (compile_expression, compile_envelope):
        try:
            compiler(text)
        except ValueError as error:
            assert len(str(error)) > 20  # noqa: PT017  # which texts are refused is not known beforehand.


def test_the_roots_are_what_an_expression_reads_first() -> None:
    assert compile_expression("a.b || c[0] || (d[?e == 'f'] | [0]) || 'g'").roots == {"a", "c", "d"}
    assert compile_expression("@").roots == set()


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", ()),
        ("@", ()),
        ("results", ("results",)),
        ('data."the-list"[0]', ("data", "the-list", 0)),
        ("entry[].changes[].value.statuses", ("entry", EACH, "changes", EACH, "value", "statuses")),
        ("entry[*].changes[*]", ("entry", EACH, "changes", EACH)),
        ("[].a", (EACH, "a")),
    ],
)
def test_envelopes(text: str, steps: tuple[object, ...]) -> None:
    assert compile_envelope(text) == steps


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("'a'", "never an array"),
        ("a == 'b'", "never an array"),
        ("!a", "never an array"),
        ("{a: b}", "never an array"),
        ("a || b", "An envelope is a path of names"),
        ("a[?b == 'c']", "An envelope is a path of names"),
        ("a.*", "An envelope is a path of names"),
        ("a | b", "An envelope is a path of names"),
        ("length(a)", "An envelope is a path of names"),
        ("a" + "[]" * MAX_STEPS, "more than 16 steps"),
    ],
)
def test_an_envelope_that_cannot_be_one_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        compile_envelope(text)
    assert complaint in str(caught.value)


def test_the_worst_expression_costs_no_more_than_its_alternatives() -> None:
    """Each of fifty thousand elements is looked at once for each alternative."""
    document = {"a": [{"b": 1}] * 50_000}
    one = "(a[?b=='c']|[0])"
    worst = "||".join([one] * 14)
    assert MAX_EXPRESSION - len(one) < len(worst) + 2 <= MAX_EXPRESSION

    def seconds(expression: str) -> float:
        read = compile_expression(expression).read
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            assert read(document) is None
            best = min(best, time.process_time() - started)
        return best

    assert seconds(worst) < 3 * 14 * seconds(one)
