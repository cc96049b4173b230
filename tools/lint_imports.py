"""Runs import-linter with the contracts of pyproject.toml, in which a glob of folders stands for their packages.

import-linter's own wildcards stand for whole modules, not for the ends of names, so ``backhaul_*`` is beyond them.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parent.parent


def packages(glob: str, root: Path = ROOT) -> Iterator[tuple[str, Path]]:
    """The package of every folder that ``glob`` finds and that declares one, with where its modules are."""
    for project in sorted(root.glob(f"{glob}/pyproject.toml")):
        name = str(tomllib.loads(project.read_text())["project"]["name"]).replace("-", "_")
        yield name, project.parent / "src" / name


def expanded(entry: str, root: Path = ROOT) -> list[str]:
    """The modules that ``entry`` stands for: itself, unless it begins with a glob of folders."""
    if not (found := re.fullmatch(r"(\w+/\*)((?:\.\w+)*)", entry)):
        return [entry]
    glob, module = found.groups()
    inside = module.lstrip(".").replace(".", "/")
    return [
        name + module
        for name, base in packages(glob, root)
        if not inside or (base / inside).is_dir() or (base / f"{inside}.py").is_file()
    ]


def configuration(root: Path = ROOT) -> dict[str, Any]:
    """import-linter's configuration, with the globs of its lists expanded."""
    given: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    for table in (given, *given["contracts"]):
        for key, value in table.items():
            if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
                table[key] = [module for entry in value for module in expanded(entry, root)]
    return given


def main() -> int:
    """What import-linter answers: 0 when every contract is kept."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(as_toml(configuration()))
        file.flush()
        return lint_imports(config_filename=file.name, no_logo=True)


def as_toml(configuration: dict[str, Any]) -> str:
    """The tables of ``configuration``. JSON's strings, lists and truth values are TOML's too."""
    lines = ["[tool.importlinter]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in configuration.items() if key != "contracts"]
    for contract in configuration["contracts"]:
        lines.append("[[tool.importlinter.contracts]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in contract.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
