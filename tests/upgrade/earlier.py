"""The version before, as it was: its files out of git's history, in a virtual environment of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

BEFORE = "5b20faf0ffb5a60527dd628c2bb162e5c5cc6c53"
"""The version that is upgraded from and gone back to: the first that had all services. A release is named here when
there is one."""


class MissingError(Exception):
    """The version before is not to be had here; says why."""


def checked_out(
    commit: str = BEFORE, *, root: Path = ROOT, place: Path | None = None, python: str = sys.executable
) -> Path:
    """The folder with the files of ``commit``, and with its ``.venv``; made when it is first asked for.

    It lies in ``place``, by default ``.tools``, as other virtual environments that are kept do. Raises MissingError.
    """
    commit = _resolved(commit, root)
    folder = (place or root / ".tools") / f"version-{commit[:12]}"
    complete = folder / ".venv" / ".complete"
    if complete.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = _git(root, "archive", "--format=tar", commit).stdout
    # Not by tarfile, whose older versions, which are supported, know no filter and whose newer ones want one.
    subprocess.run([shutil.which("tar") or "tar", "-x"], cwd=folder, input=files, check=True)  # noqa: S603  # git's own
    for command in ([python, "-m", "venv", ".venv"], ["/bin/sh", "tools/install.sh"]):
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)  # noqa: S603  # fixed
        if done.returncode:
            raise MissingError(f"What {commit[:12]} needs could not be installed: {done.stderr[-500:]}")
    complete.touch()
    return folder


def _resolved(commit: str, root: Path) -> str:
    """The whole of its hash."""
    if shutil.which("git") is None:
        raise MissingError("There is no git here, and so no version before.")
    if _git(root, "rev-parse", "--git-dir").returncode:
        raise MissingError("This is no clone, so there is no version before: git has its history.")
    found = _git(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if found.returncode:
        raise MissingError(f"This clone's history does not have {commit[:12]}; git fetch --unshallow brings all of it.")
    return found.stdout.decode().strip()


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    git = shutil.which("git") or "git"
    return subprocess.run([git, "-C", root, *arguments], capture_output=True, check=False)  # noqa: S603  # as above
