"""The providers that docs/adding-a-channel.md builds, extracted as a reader would copy them, pass the suite."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import backhaul_channels
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PAGE = ROOT / "docs" / "adding-a-channel.md"
_FILE = re.compile(r"^##+ `providers/([a-z]+)/([^`]+)`$.*?^```[a-z]+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def extract(page: str, into: Path) -> set[str]:
    """Write the page's files below the providers in ``into``; the providers' names."""
    names = set()
    for provider, name, content in _FILE.findall(page):
        path = into / provider / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
        names.add(provider)
    return names


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the library that has the page's providers beside its own."""
    into = tmp_path_factory.mktemp("library")
    (source,) = backhaul_channels.__path__
    shutil.copytree(source, into / "backhaul_channels", ignore=shutil.ignore_patterns("__pycache__"))
    assert extract(PAGE.read_text("utf-8"), into / "backhaul_channels" / "providers") == {"acme", "plainsms"}
    return into


def run(copy: Path, *arguments: str) -> str:
    ran = subprocess.run(  # noqa: S603  # our own interpreter and files
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    return ran.stdout


@pytest.mark.slow
def test_the_conformance_suite_passes_over_the_pages_providers(copy: Path) -> None:
    tests = [str(path) for path in sorted(HERE.glob("test_conformance_*.py"))]
    told = run(copy, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", "acme or plainsms", "--no-header", *tests)
    passed = [line for line in told.splitlines() if " PASSED" in line]
    assert sum("plainsms" in line for line in passed) >= 12
    (said,) = re.findall(r"^(\d+) passed", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sum("acme" in line for line in passed) == int(said), "what the page says that the suite prints"
    assert "skipped" not in told


def test_the_pages_code_is_held_to_the_same_rules_as_all_other(copy: Path) -> None:
    providers = copy / "backhaul_channels" / "providers"
    folders = [str(providers / name) for name in ("acme", "plainsms")]
    config = str(ROOT / "pyproject.toml")
    run(copy, "-m", "ruff", "check", "--no-cache", "--config", config, *folders)
    run(copy, "-m", "ruff", "format", "--no-cache", "--check", "--config", config, *folders)
