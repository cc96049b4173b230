"""Each text that a visitor reads is marked, so that it can be translated."""

from __future__ import annotations

import re

import pytest
from backhaul_console.rendering import environment

_TEMPLATES = [name for name in environment().list_templates() if name.endswith(".html")]
_WORDS = re.compile(r"[^\W\d_]{2,}")
_MARKUP = re.compile(r"<!--.*?-->|<[^<>]*?>|<[^<>]*$|^[^<>]*>", re.DOTALL)
_SAID = re.compile(r'(?:alt|aria-label|placeholder|title)="([^"]*)"')
_NAMES = {"Backhaul", "utf", "doctype"}
"""What is the same in each language."""


@pytest.mark.parametrize("name", _TEMPLATES)
def test_a_template_has_no_text_that_is_not_marked(name: str) -> None:
    made = environment()
    assert made.loader is not None
    source = made.loader.get_source(made, name)[0]
    inside = False
    bare: list[str] = []
    # Behind an expression within a tag the rest of that tag comes as data again: one text, with a mark for each.
    text = ""
    for _, kind, value in made.lex(source):
        if kind == "block_begin":
            text += "\x00"
        elif kind == "name" and value in ("trans", "endtrans"):
            inside = value == "trans"
        elif kind == "data" and not inside:
            text += value
        elif kind == "variable_begin":
            text += "\x00"
    bare += _SAID.findall(text)
    bare += _MARKUP.sub(" ", text).split("\x00")
    found = {word for part in bare for word in _WORDS.findall(part)} - _NAMES
    assert not found, f"{name}: mark with _(…) or {{% trans %}}: {sorted(found)}"
