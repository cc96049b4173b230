"""Runs pytest with what it is given, and once more those few tests that failed, with nothing beside them.

    python tools/run_tests.py -n 4 -m "not timed" libs services

Thousands of tests on real servers, beside each other on two cores, meet a machine that stands still now and then, and
one fails that never fails otherwise. What is wrong with the code fails twice. Whatever passed only alone is named
at the end, since it is a fault of the test or a race of the code, and is to be mended either way.

Exits as pytest does: 0 where every test passed at last.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

MAX_FILES_AGAIN = 10
"""Failures in more files than these are no accident of the machine, and are not run again. Not so many tests: where a
service that a file's tests share did not start, each of them fails."""
_TESTS_FAILED = 1  # pytest's exit code; the others say that it was interrupted, or used in a wrong way.


def run_tests(arguments: Sequence[str], folder: Path, run: Callable[[Sequence[str]], int]) -> int:
    """Run them with ``run``, which calls pytest and gives its exit code; ``folder`` is empty, and for its caches."""
    code = run(["-o", f"cache_dir={folder / 'first'}", *arguments])
    if code != _TESTS_FAILED:
        return code
    failed = sorted(json.loads((folder / "first/v/cache/lastfailed").read_text()))
    files = {test.partition("::")[0] for test in failed}
    if len(files) > MAX_FILES_AGAIN:
        print(f"{len(failed)} tests failed, in {len(files)} files: too many to be run again.", flush=True)
        return code
    print("\nOnce more, alone:", *failed, sep="\n  ", flush=True)
    # Its servers must be new ones, and no plugin of the first run may still stand.
    code = run(["-o", f"cache_dir={folder / 'alone'}", *failed])
    if code == 0:
        print("\nPassed only alone, so something is to be mended:", *failed, sep="\n  ", flush=True)
    return code


def _pytest(arguments: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode  # noqa: S603  # our own


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    with tempfile.TemporaryDirectory(prefix="backhaul-tests-") as folder:
        sys.exit(run_tests(sys.argv[1:], Path(folder), _pytest))
