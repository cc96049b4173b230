"""A form that is shown again: what was typed, what is wrong with it, and nothing that is secret."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from backhaul_client import FieldError, InvalidArgumentError, ProblemError, RateLimitedError, UnavailableError
from backhaul_console.forms import MISTYPED, REFUSED, Filled
from backhaul_console.rendering import environment
from bs4 import BeautifulSoup

if TYPE_CHECKING:
    from bs4 import Tag

HOSTILE = '"><script>alert(1)</script>'


def refused(form: Filled, *errors: FieldError) -> Filled:
    return form.refused(InvalidArgumentError(status=422, code="invalid_argument", detail="No.", errors=errors))


def shown(form: Filled) -> Tag:
    source = """{% import "forms.html" as forms with context %}{{ forms.summary(form) }}
        {{ forms.entry(form, "http.url", "Address", hint="Where to.") }}
        {{ forms.entry(form, "password", "P", "password") }}
        {{ forms.area(form, "types", "Types") }}{{ forms.area(form, "key", "Key", secret=true) }}
        {{ forms.choice(form, "method", "Method", [("GET", "get"), ("POST", "post")]) }}
        {{ forms.ticks(form, "scopes", "Opens", [("read", "Read"), ("send", "Send")]) }}
        {{ forms.tick(form, "dry_run", "Only compare") }}"""
    return BeautifulSoup(environment().from_string(source).render(form=form, visit=None), "html.parser")


def one(page: Tag, selector: str) -> Tag:
    (found,) = page.select(selector)
    return found


def test_it_is_shown_with_what_was_typed_and_without_secrets() -> None:
    typed = {
        "http.url": [f" {HOSTILE} "],
        "password": ["geheim"],
        "key": ["geheim"],
        "types": ["\na\n\n b"],
        "method": ["POST"],
    }
    form = Filled({**typed, "scopes": ["read", "x"]})
    page = shown(form)
    assert "geheim" not in str(page)
    assert not page.find("script")
    assert one(page, '[name="http.url"]')["value"] == HOSTILE
    assert one(page, "option[selected]").text == "post"
    assert [box["value"] for box in page.select("input[checked]")] == ["read"]
    assert form.lines("types") == ["a", "b"]
    assert not page.select('[role="alert"]')
    assert form.status == 200


def test_what_is_refused_stands_beside_its_field_and_at_the_top() -> None:
    form = refused(
        Filled({}), FieldError("http.url", "It is no address.", "Begin with https."), FieldError("", "X", "Y")
    )
    page = shown(refused(form, *form.error.errors, FieldError("types[3]", "No type.", "Z")))  # type: ignore[union-attr]  # it has one
    wrong = page.select('[aria-invalid="true"]')
    assert [field["name"] for field in wrong] == ["http.url", "types"]
    for field, said in zip(wrong, ("Where to. It is no address. Begin with https.", "No type. Z"), strict=True):
        about = one(page, f'[id="{field["aria-describedby"]}"]')
        assert " ".join(about.text.split()) == said
    assert [" ".join(row.text.split()) for row in page.select('[role="alert"] li')][1] == "X Y"
    assert form.status == 422


def test_what_is_wrong_with_boxes_of_one_name_is_said_once() -> None:
    page = shown(refused(Filled({"scopes": ["send"]}), FieldError("scopes", "Too few.", "Tick read.")))
    assert [" ".join(found.text.split()) for found in page.select("small .refusal")] == ["Too few. Tick read."]
    about = one(page, f'[id="{one(page, "fieldset")["aria-describedby"]}"]')
    assert "Too few." in about.text
    boxes = page.select('input[name="scopes"]')
    assert [box["aria-invalid"] for box in boxes] == ["true", "true"]
    assert [box.has_attr("checked") for box in boxes] == [False, True]
    assert not one(page, 'input[name="dry_run"]').has_attr("aria-invalid")


@pytest.mark.parametrize("error", [RateLimitedError, UnavailableError])
def test_what_was_posted_and_could_not_be_taken_now_comes_back_as_it_was_typed(error: type[ProblemError]) -> None:
    assert issubclass(error, REFUSED)
    assert not issubclass(error, MISTYPED), "an empty list would be shown in place of one that nobody could read"
    form = Filled({"types": ["message.sent"]}).refused(error(status=503, code="away", detail="Later."))
    assert form.status == 503
    page = shown(form)
    assert "message.sent" in one(page, 'textarea[name="types"]').text
    assert "Later." in one(page, '[role="alert"]').text


@pytest.mark.parametrize("typed", ["-1", "1.5", "x", "٣", "9" * 40])
def test_what_is_no_number_is_refused_as_the_api_would(typed: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        Filled.of(rate_per_s=typed).number("rate_per_s")
    assert (refusal.value.field, refusal.value.status) == ("rate_per_s", 422)


def test_times_are_utc_where_nothing_else_is_said() -> None:
    form = Filled.of(day="2026-03-01", exact="2026-03-01T12:00:00+02:00", shown="2026-03-01 12:00:00 UTC", bad="soon")
    assert form.moment("day") == datetime(2026, 3, 1, tzinfo=UTC)
    assert form.moment("exact") == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert form.moment("shown") == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert form.moment("none") is None
    ago = Filled.of(ago="2h").moment("ago")
    assert ago is not None
    assert abs(datetime.now(UTC) - timedelta(hours=2) - ago) < timedelta(minutes=1)
    with pytest.raises(InvalidArgumentError) as refusal:
        form.moment("bad")
    assert refusal.value.field == "bad"


def test_what_stands_in_it_before_is_one_to_a_line() -> None:
    form = Filled.of(types=("a", "b"), rate=5, none=None, zero=0)
    assert (form["types"], form["rate"], form["none"], form["zero"]) == ("a\nb", "5", "", "")
    assert form.number("zero", 7) == 7
