"""tools/test_containers.sh, with stand-ins for podman, leaves nothing behind and says by its exit code how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "test_containers.sh"
pytestmark = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="the script is for root on Linux")


def environment(tmp_path: Path, podman: str) -> Mapping[str, str]:
    """Where podman is the shell script ``podman``, and temporary folders are in tmp_path/made."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "made").mkdir()
    for name, text in (("podman", podman), ("runc", "exit 1"), ("debootstrap", "exit 1")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    own = {name: value for name, value in os.environ.items() if not name.startswith("CONTAINERS_")}
    return own | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "TMPDIR": f"{tmp_path}/made"}


def test_what_cannot_run_here_is_skipped_where_nothing_can_be_tidied_either(tmp_path: Path) -> None:
    env = environment(tmp_path, "exit 125")
    done = subprocess.run(["sh", SCRIPT], env=env, capture_output=True, text=True, check=False)  # noqa: S603, S607  # our own script
    assert done.returncode == 0, done.stderr
    assert "skipped: podman cannot run a container here" in done.stdout
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, ending: signal.Signals) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    podman = f'[ "$1" != run ] || {{ echo >"{started}"; exec sleep 60; }}'
    # What ignores a signal itself, as what nohup started does, would have the script ignore it.
    command = ["env", "--default-signal=INT,TERM,HUP", "sh", str(SCRIPT)]
    env = environment(tmp_path, podman)
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, process_group=0) as process:  # noqa: S603  # our own script
        started.read_text()
        assert list((tmp_path / "made").iterdir())
        # As a terminal and timeout send it: to all of them.
        os.killpg(process.pid, ending)
        assert process.wait(60) == (130 if ending == signal.SIGINT else 143)
    assert list((tmp_path / "made").iterdir()) == []
