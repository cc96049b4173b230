"""Fails when the documents' tables that repeat code are not what the code has."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cli_document
from backhaul_common.metrics import catalogue
from backhaul_common.names import CALLBACKS_STREAM, EVENTS_STREAM, callbacks_subject, events_subject
from backhaul_common.settings import CommonSettings
from backhaul_common.tenants import Limits
from backhaul_normalizer.states import FULFILMENT, RANK
from pydantic import SecretStr
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parent.parent
_REPEATED_ERRORS = {"events_wait_too_long", "publish_refused", "tenant_unreadable", "working_interrupted"}
"""Errors that ``Repeated`` says, which is named in one place and told its level in another."""


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


def table(document: str, head: str) -> list[list[str]]:
    """The rows of the document's table whose first column is headed ``head``, backticks and all."""
    found = re.search(
        rf"^\| {re.escape(head)} \|.*\n\|[-|]+\n((?:\|.*\n)*)", (ROOT / document).read_text(), re.MULTILINE
    )
    if found is None:
        raise SystemExit(f"{document} has no table of {head}.")
    return [[column.strip() for column in line.strip("|").split(" | ")] for line in found[1].splitlines()]


def sources() -> str:
    """All that is shipped, in one text."""
    return "\n".join(path.read_text() for glob in ("libs", "services") for path in ROOT.glob(f"{glob}/*/src/**/*.py"))


def named(ending: str) -> set[str]:
    """The values of the constants whose names end so; several endings with a | between them."""
    return set(re.findall(rf'^[A-Z][A-Z_]*_(?:{ending}) = "(\w+)"', sources(), re.MULTILINE))


def error_lines() -> set[str]:
    """The events of the log lines that are errors, also where it is worked out whether they are."""
    return {
        call.args[0].value
        for call in ast.walk(ast.parse(sources()))
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant)
        if isinstance(call.args[0].value, str)
        if any(
            isinstance(way, ast.Attribute) and way.attr == "error"
            for way in ([call.func.body, call.func.orelse] if isinstance(call.func, ast.IfExp) else [call.func])
        )
    }


def checks() -> set[str]:
    """The names of what makes a service unready; a name that is worked out has no row."""
    return set(re.findall(r'readiness\.add\("(\w+)"', sources())) | set(
        re.findall(r'^ +\("(\w+)", self\.\S+\),$', sources(), re.MULTILINE)
    )


def questions() -> set[str]:
    """The paths of what services are asked through the REST API, but for the one item of a list."""
    return {
        "/v1" + re.sub(r"\{(?:\w+_)?id(?::path)?\}", "{id}", path)
        for source in ROOT.glob("services/gateway/src/*/reads/*.py")
        for path in re.findall(r'(?<![.\w])(?:get\(|one = )"(/[^"]+)"', source.read_text())
    }


def spans() -> set[str]:
    """The names of the spans that stand in the code; those that are worked out are for the document alone."""
    return set(re.findall(r'tracing\.(?:span|start)\(\s*"([^"]+)"', sources()))


def states() -> list[list[str]]:
    """Kinds that count alike and follow each other, from the lowest rank up, with what they count as."""
    rows: list[list[str]] = []
    for kind in sorted(RANK, key=RANK.__getitem__):
        counts = FULFILMENT[kind] or "nothing"
        if rows and rows[-1][1] == counts:
            rows[-1][0] += f", {kind.value}"
        else:
            rows.append([kind.value, counts])
    return rows


def targets() -> list[str]:
    """The targets that `make help` lists, in its order."""
    return re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)


def subjects() -> dict[str, str]:
    """Of each stream the subjects, with the words of the document in place of a tenant's."""
    words = {"q": "<queue path>", "c": "<channel>", "k": "<kind>"}
    made = {CALLBACKS_STREAM: callbacks_subject("q", "c"), EVENTS_STREAM: events_subject("q", "c", "k")}
    return {
        stream: ".".join(words.get(token, token) for token in subject.split(".")) for stream, subject in made.items()
    }


def lists() -> Iterator[str]:
    """How the tables that list names differ from the code."""
    architecture, operations = "docs/architecture.md", "docs/operations.md"

    def compared(document: str, head: str, code: object, shows: object) -> Iterator[str]:
        if code != shows:
            yield f"{document}, the table of {head}: {shows}"
            yield f"  It is: {code}"

    def first(document: str, head: str) -> list[str]:
        return [name for row in table(document, head) for name in re.findall(r"`([^`]+)`", row[0])]

    yield from compared(
        architecture, "collection", sorted(named("COLLECTION|OUTBOX")), sorted(first(architecture, "collection"))
    )
    yield from compared(architecture, "stream", sorted(named("STREAM")), sorted(first(architecture, "stream")))
    shows = {row[0].strip("`"): row[1].split("`")[1] for row in table(architecture, "stream")}
    yield from compared(architecture, "stream (subjects)", subjects(), {name: shows.get(name) for name in subjects()})
    yield from compared(
        architecture, "kinds, lowest rank first", states(), table(architecture, "kinds, lowest rank first")
    )
    shown_spans = {name for name in first(architecture, "span") if "<" not in name and not name.endswith(".batch")}
    yield from compared(architecture, "span", sorted(spans()), sorted(shown_spans))
    yield from compared(
        operations,
        "service (names)",
        sorted(checks()),
        sorted({row[1].strip("`") for row in table(operations, "service")}),
    )
    yield from compared(
        "docs/reading.md",
        "`GET`",
        sorted(questions() - {"/v1/dead-letters/{id}"}),
        sorted(name for name in first("docs/reading.md", "`GET`") if name.startswith("/v1/")),
    )
    (errors,) = (row[2] for row in table(operations, "alert") if row[0] == "errors in logs")
    said = set(re.findall(r"`(\w+)`", errors))
    yield from compared(operations, "alert (errors in logs)", sorted(error_lines() | _REPEATED_ERRORS), sorted(said))
    limits = {
        name: str(default)
        for row in table(operations, "limit")
        for name, default in zip(re.findall(r"`(\w+)`", row[0]), row[1].split(", "), strict=True)
    }
    code = {name: str(field.default) for name, field in Limits.model_fields.items()}
    yield from compared(operations, "limit", code, limits)
    yield from compared(
        "README.md", "target", targets(), [name.removeprefix("make ") for name in first("README.md", "target")]
    )


def main() -> int:
    """0 when the tables are right, 1 with a list of what is not otherwise."""
    operations, architecture = "docs/operations.md", "docs/architecture.md"
    wrong = [
        *differences(operations, settings(), shown(operations, "BACKHAUL_", meaning=1, detail=0)),
        *differences(architecture, metrics(), shown(architecture, "backhaul_", meaning=0, detail=1)),
        *lists(),
        *cli_document.differences(),
    ]
    if wrong:
        print("The documents' tables are not what the code has:", *wrong, sep="\n  ")
        return 1
    print("The documents' tables are what the code has.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
