"""Where the data of tests' servers lies, and that nothing stays of a session that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from backhaul_local.scratch import remove_abandoned, scratch

LONG_AGO = (1_700_000_000, 1_700_000_000)


def test_it_lies_in_memory_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    with scratch(tmp_path, min_room_bytes=1) as folder:
        (folder / "data").write_text("some")
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    for place, room in ((tmp_path, 1 << 62), (tmp_path / "nowhere", 1)):
        with scratch(place, min_room_bytes=room) as folder:
            assert tmp_path not in folder.parents


def test_it_lies_where_tmpdir_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/anywhere")
    with scratch(tmp_path, min_room_bytes=1) as folder:
        assert tmp_path not in folder.parents


def test_what_a_killed_session_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    program = "import sys, time; from pathlib import Path; from backhaul_local.scratch import scratch\n"
    program += "with scratch(Path(sys.argv[1]), min_room_bytes=1) as folder: print(folder, flush=True); time.sleep(60)"
    env = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    command = [sys.executable, "-c", program, str(tmp_path)]
    other = tmp_path / "another"
    other.mkdir()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as session:  # noqa: S603  # the module itself
        assert session.stdout is not None
        folder = Path(session.stdout.readline().strip())
        for one in (folder, other):
            os.utime(one, LONG_AGO)
        remove_abandoned(tmp_path)
        assert folder.exists(), "it is in use"
        session.send_signal(signal.SIGKILL)
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [other]
    with scratch(tmp_path, min_room_bytes=1) as young:
        pass
    young.mkdir()
    remove_abandoned(tmp_path)
    assert young.exists(), "whoever made it may be about to lock it"
