"""What a run of pytest does with kept fixtures, by what a small one of its own writes down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
import os, sys
from pathlib import Path
import pytest
sys.path.insert(0, {folder!r})
from keeping import Keeping

def pytest_configure(config):
    config.pluginmanager.register(Keeping(("first", "second", "broken"), start_s=60))

def say(word):
    with Path({log!r}).open("a") as log:
        log.write(f"{{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}} {{word}}\\n")

@pytest.fixture
def said():
    yield say
    say("after")

@pytest.fixture(scope="session")
def server():
    yield
    say("server ends")

@pytest.fixture(scope="session")
def first(server):
    say("first begins")
    yield
    say("first ends")

@pytest.fixture
def through_first(first):
    yield

@pytest.fixture(scope="session")
def second(server):
    say("second begins")
    yield
    say("second ends")

@pytest.fixture(scope="session")
def broken(server):
    say("broken begins")
    raise OSError
"""

TESTS = """
def test_first(said, through_first, request):
    said("first")
    limits = [mark.args[0] for mark in request.node.iter_markers("timeout")]
    assert limits == [180.0]

def test_alone(said, server): said("alone")
def test_second(said, second): said("second")
def test_first_again(said, first, request):
    said("first")
    assert not list(request.node.iter_markers("timeout"))
def test_second_again(said, second): said("second")
def test_broken(said, broken): said("never")
def test_broken_again(said, broken): said("never")
def test_alone_again(said): said("alone")
"""


def run(folder: Path, *arguments: str) -> list[str]:
    """The lines of what was said, in order."""
    log = folder / "said.log"
    (folder / "conftest.py").write_text(CONFTEST.format(folder=str(Path(__file__).parent), log=str(log)))
    (folder / "test_few.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\ntimeout = 120\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    # Without the plugins that it does not need it starts in a tenth of the time.
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugins = ("-p", "xdist.plugin", "-p", "pytest_timeout")
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    assert "6 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    return log.read_text().splitlines()


def test_a_kept_fixture_ends_with_the_last_test_that_uses_it(tmp_path: Path) -> None:
    said = [line.removeprefix("alone ") for line in run(tmp_path)]
    assert said == [
        *("alone", "after") * 2,
        "broken begins",
        *("first begins", *("first", "after") * 2, "first ends"),
        *("second begins", *("second", "after") * 2, "second ends", "server ends"),
    ]


@pytest.mark.slow
def test_so_it_does_in_each_of_several_processes(tmp_path: Path) -> None:
    said = run(tmp_path, "-n", "2", "--dist", "loadscope")
    for name in ("first", "second"):
        assert len([line for line in said if line.endswith(f"{name} begins")]) == 1
        # The process that has it does nothing else until it has ended it.
        worker = next(line.split()[0] for line in said if line.endswith(f"{name} begins"))
        own = [line.removeprefix(f"{worker} ") for line in said if line.startswith(f"{worker} ")]
        begins = own.index(f"{name} begins")
        assert own[begins : begins + 6] == [f"{name} begins", *(name, "after") * 2, f"{name} ends"]
