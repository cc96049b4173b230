"""Fails when the documents' tables of settings and of metrics are not what the code has."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backhaul_common.metrics import catalogue
from backhaul_common.settings import CommonSettings
from pydantic import SecretStr
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parent.parent


class Row(NamedTuple):
    """What a table tells of a name, backticks aside. ``detail`` is a setting's default, or a metric's labels."""

    meaning: str
    detail: str


def shown(document: str, names: str, *, meaning: int, detail: int) -> dict[str, Row]:
    """The rows of a document's tables whose first column is a name that begins as the pattern ``names`` says.
    ``meaning`` and ``detail`` count the columns after it."""
    rows: dict[str, Row] = {}
    for line in (ROOT / document).read_text().splitlines():
        if re.match(rf"\| `{names}\w+` \|", line):
            name, *others = (column.strip().replace("`", "") for column in line.strip("|").split(" | "))
            if name in rows:
                raise SystemExit(f"{document} has two rows of {name}.")
            rows[name] = Row(others[meaning], others[detail].rstrip("| "))
    return rows


def settings() -> dict[str, Row]:
    """Every variable that a service reads. Where the code has no description, the document alone has one."""
    modules = (f"backhaul_{project.parent.name}.settings" for project in ROOT.glob("services/*/pyproject.toml"))
    return {
        f"BACKHAUL_{name.upper()}": Row(field.description or "", _default_of(field))
        for module in modules
        for model in vars(importlib.import_module(module)).values()
        if isinstance(model, type) and issubclass(model, CommonSettings)
        for name, field in model.model_fields.items()
    }


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value in (None, "", ()):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def metrics() -> dict[str, Row]:
    """Every metric of the catalogue."""
    return {name: Row(metric.description, ", ".join(metric.labels)) for name, metric in catalogue().items()}


def differences(document: str, code: Mapping[str, Row], table: Mapping[str, Row]) -> Iterator[str]:
    """How a document's table differs from the code. It may go on where a description ends."""
    yield from (f"{document} lacks {name}" for name in sorted(code.keys() - table.keys()))
    yield from (f"{document} has {name}, which there is not" for name in sorted(table.keys() - code.keys()))
    for name in sorted(code.keys() & table.keys()):
        has, shows = code[name], table[name]
        if not shows.meaning.startswith(has.meaning.replace("`", "")) or shows.detail != has.detail:
            yield f"{document} says of {name}: {shows.detail} | {shows.meaning}"
            yield f"  It is: {has.detail} | {has.meaning}"


def main() -> int:
    """0 when the tables are right, 1 with a list of what is not otherwise."""
    operations, architecture = "docs/operations.md", "docs/architecture.md"
    wrong = [
        *differences(operations, settings(), shown(operations, "BACKHAUL_", meaning=1, detail=0)),
        *differences(architecture, metrics(), shown(architecture, "backhaul_", meaning=0, detail=1)),
    ]
    if wrong:
        print("The documents' tables are not what the code has:", *wrong, sep="\n  ")
        return 1
    print("The documents show every setting and every metric.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
