"""The fixtures with real servers, as pytest itself uses them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

KILLS = """
import os
import signal

import pymongo


def name_of(server, name):
    with pymongo.MongoClient(server.uri) as client:
        client[name]["a"].insert_one({})
        return client[name]["a"].count_documents({})


async def test_before(mongo_server, mongo_database):
    assert name_of(mongo_server, mongo_database) == 1


def test_that_it_dies_in(mongo_server, mongo_database):
    os.kill(mongo_server.pid, signal.SIGKILL)
    assert mongo_server._child.wait(60) == -9


def test_after(mongo_server, mongo_database):
    assert name_of(mongo_server, mongo_database) == 1
"""


def test_a_mongod_that_dies_fails_one_test_with_the_reason_and_is_started_again(tmp_path: Path) -> None:
    (tmp_path / "test_kills.py").write_text(KILLS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        "/dev/null",
        "--rootdir",
        ".",
        "-p",
        "backhaul_local.pytest_plugin",
        "-rA",
    ]
    done = subprocess.run(  # noqa: S603  # our own
        [*command, "--asyncio-mode=auto", "-W", "ignore::pytest.PytestUnknownMarkWarning"],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert "3 passed, 1 error" in done.stdout, done.stdout
    assert "ERROR test_kills.py::test_that_it_dies_in - " in done.stdout
    assert "EndedError: mongod has ended (signal SIGKILL)." in done.stdout
