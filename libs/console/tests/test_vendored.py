"""What others wrote is what it is said to be, and a wheel has all that pages need."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "libs" / "console" / "src" / "backhaul_console"
OWN = {"console.css", "console.js", "icon.svg"}
"""Whatever else of scripts is ours begins with "console-"."""


@pytest.mark.parametrize("folder", [PACKAGE / "static", ROOT / "tests" / "console" / "vendored"])
def test_vendored_files_are_those_of_their_releases(folder: Path) -> None:
    entries = tomllib.loads((folder / "vendored.toml").read_text())["file"]
    for entry in entries:
        assert hashlib.sha256((folder / entry["name"]).read_bytes()).hexdigest() == entry["sha256"], entry["name"]
        licence = (folder / "licences" / f"{entry['package']}.txt").read_text()
        assert {"0BSD": "Zero-Clause BSD", "MIT": "MIT License", "MPL-2.0": "Mozilla Public License"}[
            entry["licence"]
        ] in licence.replace("The MIT License", "MIT License")
    known = {entry["name"] for entry in entries} | OWN | {"vendored.toml"}
    others = {path.name for path in folder.iterdir() if path.is_file() and path.name not in known}
    # A script of a page's own is short enough to be read; what is minified comes from elsewhere, and is listed.
    assert not {name for name in others if ".min." in name}
    for name in others:
        assert max(map(len, (folder / name).read_text().splitlines())) < 400, f"{name} is listed nowhere"


@pytest.mark.slow
def test_a_wheel_has_templates_and_static_files(tmp_path: Path) -> None:
    """An image of the gateway holds what this wheel does, and nothing of the repository."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    built = subprocess.run([*command, str(ROOT / "libs" / "console")], capture_output=True, text=True, check=False)  # noqa: S603  # ours
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = set(wheel.namelist())
    wanted = {
        f"backhaul_console/{path.relative_to(PACKAGE)}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= packed, wanted - packed
    assert {"backhaul_console/templates/base.html", "backhaul_console/static/licences/htmx.org.txt"} <= packed
