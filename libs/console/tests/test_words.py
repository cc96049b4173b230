"""The API's words as people read them."""

from __future__ import annotations

from backhaul_console.rendering import NOTHING
from backhaul_console.words import words


def test_a_word_is_read_by_what_it_is_of() -> None:
    assert words("cannot_be_told", "silence") == words("cannot_be_told") == "cannot be told"
    assert (words("none", "silence"), words("none")) == ("callbacks come", "none")
    assert (words("off", "verification"), words("off")) == ("not verified", "off")


def test_what_is_not_known_stays_as_it_is() -> None:
    assert words("a_newer_word", "silence") == "a_newer_word"
    assert words("<b>") == "<b>"
    assert words(None) == words("") == NOTHING
