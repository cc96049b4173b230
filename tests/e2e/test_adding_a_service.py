"""The service that docs/adding-a-service.md builds, extracted as a reader would copy it, installed, and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from backhaul_local.mongod import MongoServer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-a-service.md"
MAX_LINES = 250
_BLOCK = re.compile(r"^### (`([^`]+)`(, at its end)?|.*)$\n+^```[a-z]+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(tree: Path, *command: str, **environ: str) -> str:
    """What ``command`` says in ``tree``, with whose Python its programs begin."""
    bin_folders = f"{tree}/.venv/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": bin_folders, "PYTHONDONTWRITEBYTECODE": "1", **environ}
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)  # noqa: S603  # given by the tests below
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the page's files in it, and a ``.venv`` in which its packages are installed."""
    kept = shutil.ignore_patterns(".*", "__pycache__", "node_modules")
    copy = Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("adding") / "repository", ignore=kept))
    for _, name, at_its_end, content in _BLOCK.findall(PAGE.read_text()):
        if not name:
            (copy / "page.diff").write_text(content)
            run(copy, "git", "apply", "page.diff")
            continue
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.read_text() + "\n\n" + content if at_its_end else content)
    run(copy, "sh", "proto/generate.sh", PYTHON=sys.executable)
    environment = copy / ".venv"
    venv.create(environment, symlinks=True)
    # What others have made is there already; every package of the repository is installed from the copy.
    site = sysconfig.get_path("purelib", "venv", {"base": str(environment)})
    (Path(site) / "others.pth").write_text(sysconfig.get_path("purelib"))
    packages = [
        f"--editable={project.parent}"
        for folder in ("proto", "libs/*", "services/*", "deploy/local")
        for project in copy.glob(f"{folder}/pyproject.toml")
    ]
    pip = (sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet")
    run(copy, *pip, "--no-deps", "--no-build-isolation", "--ignore-installed", *packages)
    return copy


def test_the_page_is_short() -> None:
    """Its nouns are all that is in it."""
    lines = [
        line for _, _, _, content in _BLOCK.findall(PAGE.read_text()) for line in content.splitlines() if line.strip()
    ]
    assert len(lines) < MAX_LINES


@pytest.mark.timeout(300)  # It installs a service, and starts a stack of its own.
def test_the_page_s_service_counts_exactly_whatever_happens(
    extracted: Path, mongo_server: MongoServer, mongo_database: str, quick_deletions: None
) -> None:
    story = str(extracted / "tests/e2e/tally_story.py")
    python, path = f"{extracted}/.venv/bin/python", f"{extracted}/tests"
    run(extracted, python, story, mongo_server.uri, mongo_database, PYTHONPATH=path)


def test_the_page_s_code_is_held_to_the_same_rules_as_all_other(extracted: Path) -> None:
    changed = [name for _, name, _, _ in _BLOCK.findall(PAGE.read_text()) if name.endswith(".py")]
    run(extracted, "ruff", "check", "--no-cache", "services/gateway/src", *changed)
    run(extracted, "ruff", "format", "--no-cache", "--check", "services/gateway/src", *changed)
    sources = ("libs/common/src", "services/gateway/src", "services/tally/src")
    run(extracted, "mypy", "--no-error-summary", *sources)
    run(extracted, "python", "tools/lint_imports.py")
    run(extracted, "sh", "tools/buf.sh")
