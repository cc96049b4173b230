"""Children end with their parent, and are stopped in bounded time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from backhaul_local.process import Child, describe_exit, tail

pytestmark = pytest.mark.slow

PARENT = """
import sys, threading
from pathlib import Path
from backhaul_local.mongod import MongoConfig, MongoServer
from backhaul_local.nats_server import NatsConfig, NatsServer

folder = Path(sys.argv[1])
servers = [MongoServer(MongoConfig(data_dir=folder / "m")), NatsServer(NatsConfig(data_dir=folder / "n"))]
for server in servers:
    server.start_blocking()
print(*(server.pid for server in servers), flush=True)
threading.Event().wait()
"""

STUBBORN = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
)


def start(tmp_path: Path, program: str) -> Child:
    return Child([sys.executable, "-c", program], env=os.environ, cwd=None, log_path=tmp_path / "log")


def wait_for_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in tail(path):  # A file that grows gives no event.
        assert time.monotonic() < deadline, tail(path)
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
def test_children_end_when_the_parent_is_killed(data_dir: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:  # noqa: S603  # the program above.
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        assert all(child.is_running() for child in children)
        parent.kill()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


def test_stop_is_by_force_when_nothing_else_helps(tmp_path: Path) -> None:
    child = start(tmp_path, STUBBORN)
    wait_for_text(child.log_path, "deaf")
    assert child.stop(grace=0.2) is False
    assert child.returncode == -signal.SIGKILL
    assert child.stop(grace=0.2) is True, "stopping what has ended already is no error"


async def test_giving_up_the_wait_takes_nothing_from_others(tmp_path: Path) -> None:
    child = start(tmp_path, STUBBORN)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(child.wait_async(), timeout=0.05)
    waiting = asyncio.create_task(child.wait_async())
    child.kill()
    assert await waiting == -signal.SIGKILL


def test_missing_program_is_named(tmp_path: Path) -> None:
    child = Child(["no-such-program"], env=os.environ, cwd=None, log_path=tmp_path / "log")
    assert child.wait(10) == 1
    assert "Cannot run no-such-program" in tail(child.log_path)


def test_tail_begins_with_a_whole_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_text("".join(f"line {number}\n" for number in range(1_000)))
    assert tail(log, limit=30) == "line 997\nline 998\nline 999\n"


@pytest.mark.parametrize(("code", "text"), [(0, "exit code 0"), (-9, "signal SIGKILL"), (-63, "signal 63")])
def test_exit_is_described(code: int, text: str) -> None:
    assert describe_exit(code) == text
