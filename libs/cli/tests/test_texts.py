"""No text moves, hides or reorders what a terminal shows; JSON still means the same."""

from __future__ import annotations

import json
import shlex
import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from backhaul_cli.output import encoded
from backhaul_cli.texts import age, command, exact, plain, plain_json, shown
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
JOINERS = "\u200c\u200d"
"""They belong to words of some languages, and to pictures."""


@given(st.text(st.characters()))
def test_what_is_shown_holds_nothing_that_is_not_to_be_seen(text: str) -> None:
    for one in plain(text):
        assert unicodedata.category(one) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(one) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def test_what_anybody_can_read_stays_as_it_is() -> None:
    for text in ("Grüße, 50 % [red]off[/red] :smile: \\x1b", "שלום", "你好", f"می{JOINERS}خواهم"):
        assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, said: str) -> None:
    assert plain(text) == said


@given(st.dictionaries(st.text(), st.text()))
def test_json_means_the_same_and_holds_no_control(value: dict[str, str]) -> None:
    text = plain_json(encoded(value))
    assert json.loads(text) == value
    assert plain(text) == text


def test_values_read_as_people_write_them() -> None:
    assert [shown(value) for value in (None, True, False, 0, 0.5, ("a", "b"), {"a": None, "b": 1}, "x\ny")] == [
        "", "yes", "no", "0", "0.5", "a, b", "a=, b=1", "x\\ny",
    ]  # fmt: skip
    assert exact(NOW.astimezone()) == "2026-11-28 09:00:00.000Z"
    ages = [
        age(NOW - timedelta(seconds=seconds), NOW) for seconds in (-5, 0, 59, 60, 3_599, 3_600, 86_399, 86_400, 9e6)
    ]
    assert ages == ["0s", "0s", "59s", "1m", "59m", "1h", "23h", "1d", "104d"]
    assert age(None, NOW) == ""


@pytest.mark.parametrize("given", ["Twilio", "Outbound Delivery", "it's", "x'; rm -rf ~ #", "$(id)", "-rf", "", "é"])
def test_a_command_that_is_suggested_names_one_thing_whatever_that_is_called(given: str) -> None:
    words = shlex.split(
        command("channels add", given, secret=True, profile="a b", from_="", to=None, dry_run=False, after=0)
    )
    assert words[:3] == ["backhaul", "channels", "add"]
    options = ["--secret", "--profile", "a b", "--after", "0"]
    assert words[3:] in ([given, *options], [*options, "--", given])
    assert (words[-2] == "--") == given.startswith("-")
