"""The version before comes out of git's history, once; and where it cannot, that is said."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from upgrade.earlier import BEFORE, MissingError, checked_out

INSTALL = "echo installed >> .venv/installed"
VENV = """#!/bin/sh
mkdir -p "$3/bin" && touch "$3/bin/python"
"""
"""Makes what is enough of a virtual environment here: a real one takes seconds."""


def _git(folder: Path, *arguments: str) -> str:
    own = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com", "-c", "commit.gpgsign=false"]
    command = [shutil.which("git") or "git", "-C", str(folder), *own, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  # what is written here
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """With two commits, of which the first has a file of its own."""
    folder = tmp_path / "clone"
    (folder / "tools").mkdir(parents=True)
    (folder / "tools" / "install.sh").write_text(INSTALL)
    (folder / "said").write_text("before")
    _git(folder, "init", "--quiet")
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "--message", "before")
    (folder / "said").write_text("after")
    _git(folder, "commit", "--quiet", "--all", "--message", "after")
    return folder


@pytest.fixture
def python(tmp_path: Path) -> str:
    """A program that is asked for a virtual environment."""
    program = tmp_path / "python"
    program.write_text(VENV)
    program.chmod(0o755)
    return str(program)


def test_a_version_is_installed_once_beside_the_present_one(clone: Path, python: str, tmp_path: Path) -> None:
    before = _git(clone, "rev-parse", "HEAD~1")
    folder = checked_out(before, root=clone, place=tmp_path / "tools", python=python)
    assert (folder / "said").read_text() == "before"
    assert (folder / ".venv" / "bin" / "python").exists()
    assert checked_out(before, root=clone, place=tmp_path / "tools", python=python) == folder
    assert (folder / ".venv" / "installed").read_text() == "installed\n"
    assert (clone / "said").read_text() == "after"
    assert not _git(clone, "status", "--porcelain")


def test_what_was_not_installed_to_its_end_is_installed_again(clone: Path, python: str, tmp_path: Path) -> None:
    (clone / "tools" / "install.sh").write_text(f'[ -e "$BEFORE_READY" ] || exit 1\n{INSTALL}\n')
    _git(clone, "commit", "--quiet", "--all", "--message", "needs something")
    commit = _git(clone, "rev-parse", "HEAD")
    ready = tmp_path / "ready"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEFORE_READY", str(ready))
        with pytest.raises(MissingError, match="could not be installed"):
            checked_out(commit, root=clone, place=tmp_path / "tools", python=python)
        ready.touch()
        folder = checked_out(commit, root=clone, place=tmp_path / "tools", python=python)
        assert (folder / ".venv" / "installed").exists()


def test_a_clone_without_the_commit_says_how_to_get_it(clone: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=f"does not have {BEFORE[:12]}; git fetch --unshallow"):
        checked_out(BEFORE, root=clone, place=tmp_path / "tools")


def test_what_is_no_clone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(MissingError, match="This is no clone"):
        checked_out(BEFORE, root=tmp_path, place=tmp_path / "tools")


def test_no_git_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="no git here"):
        checked_out(BEFORE, root=tmp_path, place=tmp_path / "tools")
