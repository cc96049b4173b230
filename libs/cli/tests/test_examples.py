"""Each command's help has an example, which its own options and arguments take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from backhaul_cli.app import app

_ENDS = re.compile(r"\s(?:\|\|?|>|<|&&)\s|;\s|$")
"""Of a command within a line of a shell, or of several examples."""


def commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for part, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {part}")
        else:
            yield f"{name} {part}", command


ALL = dict(commands(typer.main.get_command(app), "backhaul"))


@pytest.mark.parametrize("name", ALL)
def test_a_command_has_an_example_that_it_takes(name: str) -> None:
    command = ALL[name]
    _, found, told = " ".join((command.help or "").split()).partition("Example")
    assert found, f"backhaul {name} has no example."
    examples = [
        _ENDS.split(told[one.start() :])[0] for one in re.finditer(re.escape(f"{name} ") + "|" + name + "$", told)
    ]
    assert examples, told
    for example in examples:
        given = shlex.split(example.removesuffix("."))[len(name.split()) :]
        with command.make_context(name, given) as context:
            assert context.args == []
