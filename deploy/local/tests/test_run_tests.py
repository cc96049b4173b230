"""tools/run_tests.py: which failures are given a second run, and what comes of it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[3] / "tools/run_tests.py"
BESIDE = """
import pathlib

def test_fails_beside_others():
    assert pathlib.Path(__file__).with_name("alone").exists(), "too busy"
"""


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_tests", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pytest:
    """The real one, in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs: list[list[str]] = []
        self.before_second: Callable[[], object] = lambda: None

    def __call__(self, arguments: Sequence[str]) -> int:
        if self.runs:
            self.before_second()
        self.runs.append([argument for argument in arguments if "cache_dir" not in argument and argument != "-o"])
        # What the run that this test is part of has set is not theirs.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
        command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", *arguments]
        return subprocess.run(command, cwd=self.root, env=environment, check=False, capture_output=True).returncode  # noqa: S603  # our own


@pytest.fixture
def run(tmp_path: Path) -> Pytest:
    (tmp_path / "root").mkdir()
    return Pytest(tmp_path / "root")


def test_what_passes_is_run_once(tool: ModuleType, run: Pytest, tmp_path: Path) -> None:
    (run.root / "test_a.py").write_text("def test_passes(): pass")
    assert tool.run_tests(["test_a.py"], tmp_path, run) == 0
    assert run.runs == [["test_a.py"]]


def test_what_fails_only_beside_others_passes_and_is_named(
    tool: ModuleType, run: Pytest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.root / "test_a.py").write_text(BESIDE + "\ndef test_passes(): pass\n")
    run.before_second = (run.root / "alone").touch
    assert tool.run_tests(["-n", "2", "."], tmp_path, run) == 0
    # Alone, and without those that passed.
    assert run.runs == [["-n", "2", "."], ["test_a.py::test_fails_beside_others"]]
    told = capsys.readouterr().out
    assert "something is to be mended:\n  test_a.py::test_fails_beside_others\n" in told


def test_what_fails_twice_fails(
    tool: ModuleType, run: Pytest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.root / "test_a.py").write_text("def test_wrong(): assert 1 == 2\ndef test_passes(): pass\n")
    assert tool.run_tests(["."], tmp_path, run) == 1
    assert run.runs == [["."], ["test_a.py::test_wrong"]]
    assert "mended" not in capsys.readouterr().out


def test_a_fixture_that_failed_and_a_parameter_with_a_space_are_found_again(
    tool: ModuleType, run: Pytest, tmp_path: Path
) -> None:
    (run.root / "test_a.py").write_text(
        "import pathlib, pytest\n"
        "@pytest.fixture\ndef late(): assert pathlib.Path(__file__).with_name('alone').exists()\n"
        "@pytest.mark.parametrize('word', ['a b', 'c'])\ndef test_it(late, word): pass\n"
    )
    run.before_second = (run.root / "alone").touch
    assert tool.run_tests(["."], tmp_path, run) == 0
    assert run.runs[1] == ["test_a.py::test_it[a b]", "test_a.py::test_it[c]"]


def test_failures_in_many_files_are_no_accident(tool: ModuleType, run: Pytest, tmp_path: Path) -> None:
    for number in range(tool.MAX_FILES_AGAIN + 1):
        (run.root / f"test_{number}.py").write_text("def test_wrong(): assert 0\n")
    assert tool.run_tests(["."], tmp_path, run) == 1
    assert len(run.runs) == 1


def test_what_a_file_shares_fails_for_each_of_its_tests_and_is_one_accident(
    tool: ModuleType, run: Pytest, tmp_path: Path
) -> None:
    (run.root / "test_a.py").write_text(
        "import pathlib, pytest\n"
        "@pytest.fixture(scope='module')\ndef late(): assert pathlib.Path(__file__).with_name('alone').exists()\n"
        "@pytest.mark.parametrize('number', range(30))\ndef test_it(late, number): pass\n"
    )
    run.before_second = (run.root / "alone").touch
    assert tool.run_tests(["."], tmp_path, run) == 0
    assert len(run.runs[1]) == 30


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import there_is_no_such_module", 2),  # It could not be collected.
        ("def test_cut(): raise KeyboardInterrupt", 2),
        ("", 5),  # There is no test.
    ],
)
def test_what_is_no_failure_of_a_test_is_not_run_again(
    tool: ModuleType, run: Pytest, tmp_path: Path, text: str, code: int
) -> None:
    (run.root / "test_a.py").write_text(text)
    assert tool.run_tests(["."], tmp_path, run) == code
    assert len(run.runs) == 1
