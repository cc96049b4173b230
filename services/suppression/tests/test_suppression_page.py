"""docs/suppression.md tells what the tables hold."""

from __future__ import annotations

from pathlib import Path

from backhaul_suppression.model import Kind, Purpose
from backhaul_suppression.rules import BLOCKS, EVIDENCE_BEFORE, LIFTING, RULES, Lifting, Who

PAGE = (Path(__file__).parents[3] / "docs" / "suppression.md").read_text("utf-8")
WORDS = {Lifting.YES: "yes", Lifting.NO: "no", Lifting.WITH_EVIDENCE: "with evidence"}


def table(section: str) -> list[list[str]]:
    """The cells of the section's table, its head first."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) > 2, f"there is no table in {section!r}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def test_who_may_lift_what() -> None:
    head, *rows = table("Who may lift what")
    assert head == ["kind", *Who, "rule"]
    assert rows == [
        [f"`{kind}`", *(WORDS[LIFTING[kind, who]] for who in Who), f"`{RULES[kind].name}`"] for kind in Kind
    ]
    assert f"`{EVIDENCE_BEFORE.name}`" in PAGE


def test_what_blocks_what() -> None:
    head, *rows = table("What blocks what")
    assert head == ["kind", *Purpose]
    assert rows == [
        [f"`{kind}`", *("blocks" if purpose in BLOCKS[kind] else "" for purpose in Purpose)] for kind in Kind
    ]


def test_every_kind_that_events_say_is_told() -> None:
    told = {row[1].strip("`") for row in table("What events say")[1:]}
    assert told == {*Kind} - {Kind.MANUAL, Kind.LEGAL}
