"""The page of types and variables says what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from backhaul_notifier.catalogue.types import KINDS, TYPES, EventType
from backhaul_notifier.schedules import DISPATCH, RCS, STANDARD, duration
from backhaul_notifier.variables import FIELDS, OWN, PREFIXES

PAGE = (Path(__file__).parents[3] / "docs" / "event-types.md").read_text()


def rows(head: str) -> list[list[str]]:
    """The cells of the table below ``head``."""
    table = PAGE.split(f"\n| {head} |\n", maxsplit=1)[1].split("\n\n", maxsplit=1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def of(each: EventType) -> str:
    if not each.of_events:
        return "notice"
    words = [KINDS.word(number) for number in sorted(each.kinds)]
    return "every kind" if len(words) == len(KINDS.words) else ", ".join(words)


def test_the_table_of_types() -> None:
    assert rows("type | of | told when") == [[f"`{each.name}`", of(each), each.description] for each in TYPES.values()]


def test_the_table_of_names() -> None:
    assert rows("name | stands for") == [
        *([f"`${{{own.name}}}`", own.text] for own in OWN.values()),
        *([f"`${{{prefix}…}}`", text] for prefix, text in PREFIXES.items()),
    ]


def test_the_table_of_fields() -> None:
    assert rows("field | stands for | of") == [
        [
            f"`${{event.{field.name}}}`",
            field.text,
            " and ".join(word for word, has in (("events", field.of_event), ("notices", field.of_notice)) if has),
        ]
        for field in FIELDS.values()
    ]
    assert all(field.text for field in FIELDS.values())


def test_the_table_of_policies() -> None:
    shown = {
        re.sub("`", "", row[0]): row for row in rows("policy | an attempt takes | success | tried again after | then")
    }
    for policy in (DISPATCH, RCS, STANDARD):
        _, takes, success, after, _ = shown[policy.kind]
        assert takes == f"{policy.timeout_s} s"
        assert success == ("200" if policy.only_200 else "2xx")
        pauses = ", ".join(duration(step) for step in policy.steps_s)
        assert after == (f"{pauses}, and up to a tenth more" if policy.jitter else pauses)
