"""Tables for people, lines of JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from backhaul_cli.output import Column, Output, facts, words
from backhaul_client.adminmodels import ChannelAddress
from backhaul_client.models import Secret

Row = dict[str, str]
NAMES: list[Column[Row]] = [
    Column("name", lambda row: row["name"], folds=True),
    Column("size", lambda row: len(row), right=True),  # noqa: PLW0108  # of its type
]


def test_what_is_piped_is_cut_nowhere_and_has_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).rows([{"name": "x" * 300}, {"name": "delivered"}], NAMES, of="names")
    head, long, short = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "SIZE"]
    assert long == "x" * 300 + "     1"
    assert short.split() == ["delivered", "1"]


def test_nothing_of_a_text_is_markup(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "[red]x[/red] [/] :smile: \x1b[31m https://a.example.com"
    output = Output(as_json=False)
    output.rows([{"name": hostile}], NAMES, of="names")
    output.thing(None, lambda: [facts((hostile, hostile)), words(hostile)])
    output.line(hostile)
    assert capsys.readouterr().out.count("[red]x[/red] [/] :smile: \\x1b[31m https://a.example.com") == 4


def test_json_is_a_line_for_each_row_and_one_for_a_thing(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.rows([{"name": "a\nb"}, {"name": "\x9b"}], NAMES, of="names")
    address = ChannelAddress(label="Twilio", callback_url=Secret("https://a/in/bhi_x"), token_url=None)
    output.thing(address, list)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        {"name": "a\nb"},
        {"name": "\x9b"},
        {"label": "Twilio", "callback_url": "https://a/in/bhi_x", "token_url": None},
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_limit_is_kept_and_what_is_left_is_said_apart(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    taken = 0

    def rows() -> Iterator[dict[str, str]]:
        nonlocal taken
        while True:
            taken += 1
            yield {"name": str(taken)}

    output = Output(as_json=as_json)
    output.rows(rows(), NAMES, of="names", limit=3)
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == (3 if as_json else 4)
    assert taken == 4
    assert said.err == "There are more names: --limit N, or --all.\n"
    output.rows(iter([{"name": "a"}] * 3), NAMES, of="names", limit=3)
    assert capsys.readouterr().err == ""
    output.rows([], NAMES, of="names", limit=3)
    assert capsys.readouterr() == ("", "No names.\n")


def test_what_was_done_before_a_failure_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def steps() -> Iterator[Row]:
        yield {"name": "first"}
        raise ValueError("The second one is bad.")

    with pytest.raises(ValueError, match="second"):
        Output(as_json=True).done(steps(), NAMES, of="names")
    assert capsys.readouterr() == ('{"name":"first"}\n', "")
