"""Prometheus' own tool, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool on this machine: Debian's package prometheus has it"
)


def promtool(*arguments: str | Path) -> None:
    """Run it, and show what it says where it is not content."""
    said = subprocess.run(["promtool", *arguments], capture_output=True, check=False, text=True, timeout=120)  # noqa: S603, S607  # with files of ours
    assert said.returncode == 0, said.stdout + said.stderr
