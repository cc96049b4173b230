"""Writes what docs/cli.md repeats of the command line's own help: exit codes, and each command with its options."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from backhaul_cli.app import app
from backhaul_cli.failing import MEANINGS

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
_BEGINS = "<!-- What follows is made by tools/cli_document.py. -->\n"
_WIDTH = 80
_EVERYWHERE = ("profile", "json")
"""Options of nearly all commands, which the document tells of once."""


def made() -> str:
    """The document as it should be: what is written by hand, and what the help says behind it."""
    by_hand = DOCUMENT.read_text().partition(_BEGINS)[0]
    return by_hand + _BEGINS + "\n".join(["", *_lines()])


def differences() -> list[str]:
    """What is to be done where the document is not what the help says."""
    return [] if made() == DOCUMENT.read_text() else ["docs/cli.md is not the help: run tools/cli_document.py"]


def _lines() -> Iterator[str]:
    yield from ("## Exit codes", "", "| code | means |", "|---|---|")
    yield from (f"| {code.value} | {meaning} |" for code, meaning in MEANINGS.items())
    yield from ("", "## Commands", "", "But for `--profile NAME` and `--json`.", "")
    whole = typer.main.get_command(app)
    with whole.make_context("backhaul", [], resilient_parsing=True, terminal_width=_WIDTH) as context:
        yield from _commands(whole, context)


def _commands(group: Any, context: Any) -> Iterator[str]:
    for name, command in group.commands.items():
        with command.make_context(name, [], parent=context, resilient_parsing=True) as inner:
            if hasattr(command, "commands"):
                yield from (f"### backhaul {name}", "", command.help or "", "")
                yield from _commands(command, inner)
            else:
                command.params = [one for one in command.params if one.name not in _EVERYWHERE]
                command.add_help_option = False
                yield from ("```text", *(line.rstrip() for line in command.get_help(inner).splitlines()), "```", "")


def main() -> int:
    """Writes the document."""
    DOCUMENT.write_text(made())
    return 0


if __name__ == "__main__":
    sys.exit(main())
