"""A sample's content, changed before it is signed: by paths, or in an editor."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backhaul_cli.failing import FailedError


def overridden(content: Mapping[str, Any], overrides: Sequence[str], *, is_form: bool) -> dict[str, Any]:
    """``content`` with each ``path=value``. A form's fields are texts, and have no parts. In JSON a full stop leads
    into an object, or, before a number, into a list; a value is JSON where it reads as such, and takes no text's
    place."""
    made: dict[str, Any] = json.loads(json.dumps(content))
    for override in overrides:
        path, equals, value = override.partition("=")
        if not equals or not path:
            raise FailedError(f"--override {override!r} is no path and value.", "Say it as --override To=+12025550100")
        *steps, last = [path] if is_form else path.split(".")
        place: Any = made
        for step in steps:
            if isinstance(place, dict) and step not in place:
                place[step] = {}
            place = _step(place, step, path)
            if not isinstance(place, dict | list):
                raise FailedError(f"--override {path}: {step} has no parts.", "backhaul send --preview shows what has.")
        there = _step(place, last, path)
        _put(place, last, value if is_form or isinstance(there, str) else _read(value))
    return made


def _step(place: Any, step: str, path: str) -> Any:
    if isinstance(place, dict):
        return place.get(step)
    if step.isdecimal() and int(step) < len(place):
        return place[int(step)]
    there = f"0 to {len(place) - 1}" if place else "nothing"
    raise FailedError(f"--override {path}: a list has no {step}.", f"It has {there}.")


def _put(place: Any, step: str, value: Any) -> None:
    place[step if isinstance(place, dict) else int(step)] = value


def _read(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def edited(content: Mapping[str, Any], *, is_form: bool) -> dict[str, Any]:
    """``content`` as it was left in the editor that VISUAL or EDITOR names."""
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="backhaul-") as folder:
        file = Path(folder) / "sample.json"
        file.write_text(json.dumps(content, indent=2) + "\n")
        try:
            ended = subprocess.run([*editor, str(file)], check=False).returncode  # noqa: S603  # the user's own editor
        except FileNotFoundError:
            raise FailedError(f"There is no editor {editor[0]!r}.", "Name one in EDITOR.") from None
        if ended:
            raise FailedError(f"The editor ended with {ended}: nothing was sent.")
        try:
            found = json.loads(file.read_text())
        except ValueError as exc:
            raise FailedError(f"What was edited is no JSON: {exc}.", "Nothing was sent.") from None
    if not isinstance(found, dict):
        raise FailedError("What was edited is no object.", "Keep the outermost braces; nothing was sent.")
    if is_form and not all(isinstance(value, str) for value in found.values()):
        raise FailedError("What was edited is a form of texts.", "Put values in quotes; nothing was sent.")
    return found
