"""Addresses with variables: where they may stand, what values may do, and what is refused in which words."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_notifier.catalogue.matching import known_types
from backhaul_notifier.urls import MAX_TEMPLATE, MAX_URL, MAX_VARIABLES, Template, UnresolvedError, parse
from hypothesis import given, settings
from hypothesis import strategies as st

MESSAGES = known_types(["message.*"])
COMPLETED = known_types(["communication.completed"])
DIGESTS = known_types(["audit.digest"])


def template(text: str) -> Template:
    return parse(text, MESSAGES)


def expanded(text: str, **values: str) -> str:
    return template(text).expanded(values.get)


def refusal(text: str, *, types: str = "message.*") -> str:
    with pytest.raises(BackhaulError) as refused:
        parse(text, known_types([types]), field="definition.http.url")
    assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, "definition.http.url")
    assert refused.value.fix
    return refused.value.message


def unresolved(text: str, **values: str) -> str:
    with pytest.raises(UnresolvedError) as failed:
        expanded(text, **values)
    return str(failed.value)


def test_the_examples_of_the_documents() -> None:
    assert (
        expanded(
            "https://example.com/sent/${memberId}?sale=${communicationId}",
            memberId="SM1",
            communicationId="spring sale",
        )
        == "https://example.com/sent/SM1?sale=spring%20sale"
    )


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com",
        "http://example.com:8080/a/b;c=1/?x[]=1&y=%20+a#rc=5",
        "HTTPS://EXAMPLE.com/%2e%41",
        "https://[2001:db8::1]:8443/x",
        "https://10.0.0.1/x",
        "https://example.com/price/$5?cost=$&a=$$",
        "https://example.com/$%7Bid%7D",
        "https://example.com//a///b",
    ],
)
def test_an_address_without_variables_stays_as_it_is(text: str) -> None:
    assert template(text).variables == ()
    assert template(text).expanded(lambda _: None) == text


def test_names_are_found_once_each_and_compared_as_they_are_written() -> None:
    made = template("https://e.com/${b}/${a}?${b}=${ first name }&x=${Vorname-ä.1}")
    assert made.variables == ("b", "a", " first name ", "Vorname-ä.1")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain-._~09", "plain-._~09"),
        ("a b", "a%20b"),
        ("a+b", "a%2Bb"),
        ("a/b", "a%2Fb"),
        ("../../etc", "..%2F..%2Fetc"),
        ("..\\..", "..%5C.."),
        ("%2F", "%252F"),
        ("%2e%2e", "%252e%252e"),
        ("a?b#c&d=e;f", "a%3Fb%23c%26d%3De%3Bf"),
        ("@evil.example:80", "%40evil.example%3A80"),
        ("a\r\nHost: evil", "a%0D%0AHost%3A%20evil"),
        ("nul\0", "nul%00"),
        ("\t\x7f", "%09%7F"),
        ("ü😀", "%C3%BC%F0%9F%98%80"),
        ("'\"<>`|^", "%27%22%3C%3E%60%7C%5E"),
        ("${id}", "%24%7Bid%7D"),
        ("...", "..."),
        ("x" * 2048, "x" * 2048),
        ("\u202e\u2028", "%E2%80%AE%E2%80%A8"),
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "https://e.com/${v}",
        "https://e.com/a/${v}/b",
        "https://e.com/?n=${v}",
        "https://e.com/?${v}=1",
        "https://e.com/#${v}",
    ],
)
def test_a_value_is_encoded_wherever_it_stands(text: str, value: str, written: str) -> None:
    assert expanded(text, v=value) == text.replace("${v}", written)


@pytest.mark.parametrize("text", ["https://e.com/?n=${v}", "https://e.com/#${v}", "https://e.com?${v}"])
@pytest.mark.parametrize("value", ["", ".", ".."])
def test_behind_the_path_a_value_may_be_empty_or_dots(text: str, value: str) -> None:
    assert expanded(text, v=value) == text.replace("${v}", value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("https://e.com/${v}", "."),
        ("https://e.com/${v}", ".."),
        ("https://e.com/a/${v}/b", ".."),
        ("https://e.com/.${v}", "."),
        ("https://e.com/${v}.?x=1", "."),
        ("https://e.com/%2e${v}#x", "."),
        ("https://e.com/${v}${v}", "."),
    ],
)
def test_no_value_makes_a_segment_of_dots(text: str, value: str) -> None:
    message = unresolved(text, v=value)
    assert "${v}" in message
    assert "leads elsewhere" in message


def test_a_segment_is_never_emptied_by_a_value() -> None:
    for text in ("https://e.com/${v}", "https://e.com/a/${v}/b", "https://e.com/a/${v}${v}?x=1"):
        assert "would be empty by a value of ${v}" in unresolved(text, v="")
    assert expanded("https://e.com/x-${v}//b", v="") == "https://e.com/x-//b"


def test_a_value_that_lacks_is_named() -> None:
    message = unresolved("https://e.com/${id}?x=${shoe size}", id="1")
    assert "${shoe size} has no value" in message


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb"])
@pytest.mark.parametrize("text", ["https://e.com/${v}", "https://e.com/?n=${v}"])
def test_half_a_character_fails_in_words(text: str, value: str) -> None:
    assert "${v} holds half a character" in unresolved(text, v=value)


def test_an_address_has_a_bound_and_the_longest_value_is_named() -> None:
    text = "https://e.com/?a=${a}&b=${b}"
    room = MAX_URL - len(text.replace("${a}", "").replace("${b}", ""))
    assert len(expanded(text, a="x" * (room - 1), b="y")) == MAX_URL
    message = unresolved(text, a="x" * room, b="y")
    assert f"{MAX_URL + 1} characters" in message
    assert "${a}" in message
    # Each character of the longest values takes twelve of the address.
    assert "${b}" in unresolved(text, a="x", b="😀" * 2048)


@pytest.mark.parametrize(
    "text",
    [
        "https://${host}/",
        "https://${host}",
        "https://api.${host}/x",
        "https://example.com${path}",
        "https://example.com:${port}/",
        "https://${user}@example.com/",
        "https://user:${password}@example.com/",
        "${url}",
        "${scheme}://example.com/",
        "https:${x}//example.com/",
        "https:/${x}/example.com/",
        "https://[${x}]/",
    ],
)
def test_no_value_chooses_where_backhaul_connects(text: str) -> None:
    message = refusal(text)
    assert "in front of the path" in message


def test_why_is_said() -> None:
    with pytest.raises(BackhaulError) as refused:
        template("https://${host}/")
    assert "who can set a value must not choose where Backhaul connects" in refused.value.fix


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("https://e.com/${}", "no name"),
        ("https://e.com/${", "begins at character 15 has no end"),
        ("https://e.com/${id", "has no end"),
        ("https://e.com/?x=$${id", "begins at character 19"),
        ("https://e.com/${a${b}}", "inside of its name"),
        ("https://e.com/${a{b}", "inside of its name"),
        ("https://e.com/${a}}", "'}' cannot stand"),
        ("https://e.com/{id}", "'{' cannot stand"),
        ("https://e.com/$" + "{" + "x" * 200 + "}", "more than 128"),
        ("https://e.com/${" + "x" * 129 + "}", "1 to 128 characters"),
        ("https://e.com/a b", "' ' cannot stand"),
        ("https://e.com/a\n", "cannot stand"),
        ("https://e.com/\0", "cannot stand"),
        ("https://e.com/ü", "'ü' cannot stand"),
        ("https://e.com/\ud800", "cannot stand"),
        ("https://bücher.example/", "cannot stand"),
        ("https://e.com\\@evil.example/", "cannot stand"),
        ("https://e.com/%", "'%' cannot stand"),
        ("https://e.com/%2", "'%' cannot stand"),
        ("https://e.com/%zz", "'%' cannot stand"),
        ("https://e.com/%${id}", "'%' cannot stand"),
        ("https://e.com/%2${id}", "'%' cannot stand"),
        ("", "does not begin with"),
        ("e.com/x", "does not begin with"),
        ("//e.com/x", "does not begin with"),
        ("ftp://e.com/x", "does not begin with"),
        ("javascript:alert(1)", "does not begin with"),
        ("https:e.com", "does not begin with"),
        ("https:///x", "no host"),
        ("https://?x=1", "no host"),
        ("https://:443/", "no host"),
        ("https://e.com:/", "no good port"),
        ("https://e.com:0/", "no good port"),
        ("https://e.com:65536/", "no good port"),
        ("https://e.com:80:80/", "no host that can be read"),
        ("https://e%41.com/", "no host that can be read"),
        ("https://e$.com/", "no host that can be read"),
        ("https://[::1/", "no host that can be read"),
        ("https://[::1]x/", "no host that can be read"),
        ("https://anna:secret@e.com/", "user's name"),
        ("https://anna@e.com", "user's name"),
        ("https://e.com/a/../b", "leads elsewhere"),
        ("https://e.com/./b", "leads elsewhere"),
        ("https://e.com/%2E%2e/b", "leads elsewhere"),
        ("https://e.com/..", "leads elsewhere"),
        ("https://e.com/" + "x" * MAX_TEMPLATE, "more than 4096"),
        ("https://e.com/?" + "${a}" * (MAX_VARIABLES + 1), "more than 50 variables"),
    ],
)
def test_what_is_no_address_is_refused_in_words(text: str, says: str) -> None:
    assert says in refusal(text)


@pytest.mark.parametrize("name", ["event.knd", "event.", "event.vars.", "event.attributes.", "event.raw", "event.Kind"])
def test_a_field_that_there_is_not_is_refused(name: str) -> None:
    assert f"${{{name}}} can never have a value" in refusal(f"https://e.com/${{{name}}}")


def test_names_that_can_never_exist_for_what_is_told_are_refused() -> None:
    for name in ("memberId", "member.first_name", "event.kind", "event.vars.x"):
        assert "can never have a value" in refusal(f"https://e.com/${{{name}}}", types="communication.completed")
    for name in ("id", "first_name", "environment.shop", "batchId", "communicationId", "event.error_code"):
        assert "can never have a value" in refusal(f"https://e.com/${{{name}}}", types="audit.digest")


def test_names_that_may_exist_are_not_refused() -> None:
    parse("https://e.com/${batchId}/${communicationId}?shop=${shop}&n=${event.attributes.members}", COMPLETED)
    parse("https://e.com/${event.attributes.hash}?${event.id}=${event.type}", DIGESTS)
    parse("https://e.com/${memberId}/${anything at all}", [*COMPLETED, *MESSAGES])


def _sane(value: str) -> bool:
    return value not in {"", ".", ".."}


@settings(max_examples=50)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(_sane),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
)
def test_whatever_the_values_the_address_keeps_its_form(segment: str, value: str, name: str) -> None:
    url = expanded("https://example.com:8443/a/${s}/b?${n}=${v}&z=1#${v}", s=segment, v=value, n=name)
    split = urlsplit(url)
    assert (split.scheme, split.netloc) == ("https", "example.com:8443")
    assert [unquote(part) for part in split.path.split("/")] == ["", "a", segment, "b"]
    assert parse_qsl(split.query, keep_blank_values=True) == [(name, value), ("z", "1")]
    assert unquote(split.fragment) == value
    assert url.isascii()
    assert url.isprintable()
