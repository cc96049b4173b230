"""Prints the packages whose unit tests a change since main may break: its own, and those that depend on them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_DOCUMENTS = "deploy/local"
"""Whose tests read the documents."""


def packages(root: Path = ROOT) -> dict[str, set[str]]:
    """The folder of every package, with those of the packages of this repository that it declares."""
    projects = {
        str(project.parent.relative_to(root)): tomllib.loads(project.read_text())["project"]
        for glob in ("proto", "libs/*", "services/*", "deploy/*")
        for project in root.glob(f"{glob}/pyproject.toml")
    }
    folders = {project["name"]: folder for folder, project in projects.items()}
    return {
        folder: {folders[name] for name in project["dependencies"] if name in folders}
        for folder, project in projects.items()
    } | {
        # They have tests, and are no packages.
        "deploy/k8s": {folder for folder in projects if folder.startswith("services/")},
        "deploy/observability": {"libs/common"},
    }


def affected(changed: Iterable[str], depends: Mapping[str, set[str]]) -> list[str]:
    """The packages that the changed files may break; ``changed`` are paths from the root.

    All of them, when a file of no package changed: settings of the tools, the lock, a tool.
    """
    found: set[str] = set()
    for path in changed:
        if owner := next((folder for folder in depends if path.startswith(f"{folder}/")), None):
            found.add(owner)
        elif path.endswith(".md"):
            found.add(_DOCUMENTS)
        elif not path.startswith(("tests/", "bench/")):  # Those need servers, all of them.
            return sorted(depends)
    while more := {folder for folder, needs in depends.items() if needs & found} - found:
        found |= more
    return sorted(found)


def changed_since_main() -> list[str]:
    """What differs from where this branch left main, on main itself from the last commit; new files too."""

    def git(*arguments: str) -> list[str]:
        said = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603, S607  # git, with the arguments below
        return said.stdout.split("\0")[:-1] if "-z" in arguments else said.stdout.split()

    (base,) = git("merge-base", "HEAD", "main") if git("branch", "--list", "main") else git("rev-parse", "HEAD")
    return [*git("diff", "--name-only", "-z", base), *git("ls-files", "--others", "--exclude-standard", "-z")]


def main() -> int:
    """0; prints nothing when nothing changed that has unit tests."""
    print(*(folder for folder in affected(changed_since_main(), packages()) if folder != "proto"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
