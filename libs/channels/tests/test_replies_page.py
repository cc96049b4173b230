"""docs/replies.md tells what the tables hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from backhaul_channels import ConsentAction, LikelyStop, ReplySettings
from backhaul_channels.replies.classify import MAX_LIKELY, MAX_TEXT
from backhaul_channels.replies.keywords import KEYWORDS, LANGUAGES, MISSPELLINGS
from backhaul_channels.replies.settings import AddedKeywords

PAGE = (Path(__file__).parents[3] / "docs" / "replies.md").read_text("utf-8")
ROWS = {
    cells[0]: cells[1:] for line in PAGE.splitlines() if line.startswith("| ") and (cells := line[2:-2].split(" | "))
}


def test_each_keyword_is_on_the_page_under_its_meaning() -> None:
    meanings = {
        "STOP: `opt_out`": ConsentAction.OPT_OUT,
        "START: `opt_in`": ConsentAction.OPT_IN,
        "HELP: `help`": ConsentAction.HELP,
    }
    assert {action: re.findall("`([^`]+)`", ROWS[row][0]) for row, action in meanings.items()} == {
        action: list(words) for action, words in KEYWORDS.items()
    }


def test_each_misspelling_is_on_the_page() -> None:
    told = {word: re.findall("`([^`]+)`", ROWS[f"`{word}`"][0]) for word in MISSPELLINGS}
    assert told == {word: list(words) for word, words in MISSPELLINGS.items()}


@pytest.mark.parametrize("name", LANGUAGES)
def test_each_language_is_on_the_page_and_its_verified_words_are_bold(name: str) -> None:
    language = LANGUAGES[name]
    told = [", ".join(f"**{word}**" if word in language.verified else word for word in words) for words in (
        language.keywords[action] for action in (ConsentAction.OPT_OUT, ConsentAction.OPT_IN, ConsentAction.HELP)
    )]  # fmt: skip
    assert ROWS[f"`{name}`"] == told
    assert f"`{name}`" in ROWS["`languages`"][1]


def test_each_setting_is_on_the_page_with_its_default() -> None:
    fields = ReplySettings.model_fields
    assert {name for name in ROWS if name.strip("`") in fields} == {f"`{name}`" for name in fields}
    for name in ("likely_stop", "capture_survey_responses", "window_days"):
        default = fields[name].default
        shown = default.value if isinstance(default, LikelyStop) else str(default).lower()
        assert ROWS[f"`{name}`"][0] == f"`{shown}`"
    assert all(f"`{name}`" in ROWS["`added`"][1] for name in AddedKeywords.model_fields)


def test_the_limits_are_on_the_page() -> None:
    assert f"more than {MAX_TEXT:,} characters" in PAGE
    assert f"five words and {MAX_LIKELY} characters" in PAGE
