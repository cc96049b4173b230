"""``make fuzz``: each adapter against bodies that nobody thought of. See ``fuzz_target``.

Bodies are found by coverage with atheris, where there is a wheel of it; elsewhere hypothesis makes them of the cases.
What fails is added to the provider's corpus, so that ``make test`` fails until it is mended. ``--keep`` also adds what
reaches code that nothing of the corpus did.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz_target import Target

MAX_BODY_BYTES = 8192
MAX_SECONDS_A_BODY = 10
MAX_RSS_MB = 2048
MAX_KEPT = 300
"""Lines of a corpus, unless more of them once failed."""

MAX_KEPT_BYTES = 1024
_GRACE_S = 60.0


def main(arguments: Sequence[str]) -> int:
    """0 where nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("providers", nargs="*", help="which; all where none is named")
    parser.add_argument("--seconds", type=int, default=300, help="how long each adapter is tried; 300")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many side by side")
    parser.add_argument("--keep", action="store_true", help="add what reaches new code to the corpus")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    if told.work is not None:
        return try_one(told.providers[0], told.work, told.seconds)
    from backhaul_channels import load_adapters  # the one that fuzzes imports it under instruments

    names = told.providers or sorted(load_adapters())
    return try_all(names, told.seconds, told.jobs, keep=told.keep)


def try_all(names: Sequence[str], seconds: int, jobs: int, *, keep: bool) -> int:
    """Try each adapter in a process of its own, ``jobs`` at once."""
    print(f"{'atheris' if find_spec('atheris') else 'hypothesis'}, {seconds} s each: {', '.join(names)}", flush=True)
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(jobs) as pool:
        failed = list(pool.map(lambda name: _try(name, Path(work) / name, seconds, keep=keep), names))
    return int(any(failed))


def _try(name: str, work: Path, seconds: int, *, keep: bool) -> bool:
    from fuzz_target import corpus_file, corpus_of  # the child imports it under instruments

    work.mkdir()
    command = [sys.executable, __file__, name, "--seconds", str(seconds), "--work", str(work)]
    child = subprocess.run(  # noqa: S603  # this very file
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=3 * seconds + _GRACE_S, check=False
    )
    output = child.stdout.decode("utf-8", "replace")
    found = [path.read_bytes() for path in sorted(work.glob("failed-*"))]
    reached = sorted((work / "found").glob("*"), key=lambda path: path.stat().st_size) if keep else []
    new = [path.read_bytes() for path in reached if path.stat().st_size <= MAX_KEPT_BYTES]
    if found or new:
        old = corpus_of(name)
        corpus = list(dict.fromkeys([*found, *old, *new]))[: max(MAX_KEPT, len(found) + len(old))]
        lines = "".join(f"{base64.b64encode(body).decode()}\n" for body in corpus)
        corpus_file(name).write_text(lines, "ascii")
    runs = re.search(r"Done (\d+) runs", output)
    failed = bool(found) or child.returncode != 0
    result = f"{'FAILED' if failed else 'nothing found'}, {len(new)} that reach further code"
    print(f"{name}: {runs[1] if runs else 'an unknown number of'} bodies, {result}", flush=True)
    if failed:
        print(output[-4000:], flush=True)
    return failed


def try_one(name: str, work: Path, seconds: int) -> int:
    """Try one adapter in this process; atheris ends the process by itself."""
    if find_spec("atheris"):
        return _by_coverage(name, work, seconds)
    return _by_hypothesis(_target(name), work, seconds)


def _target(name: str) -> Target:
    from backhaul_channels import load_adapters  # under instruments
    from fuzz_target import Target  # as above

    return Target(load_adapters()[name])


def _by_coverage(name: str, work: Path, seconds: int) -> int:
    import atheris  # not everywhere

    with atheris.instrument_imports(include=["backhaul_channels"]):
        importlib.import_module("backhaul_channels")
        target = _target(name)
    seeds, found, words = work / "seeds", work / "found", work / "words"
    seeds.mkdir()
    found.mkdir()
    for n, body in enumerate(target.seeds()):
        (seeds / str(n)).write_bytes(body)
    quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in sorted(target.words()))
    words.write_text("".join(f'"{word}"\n' for word in quoted))
    options = [f"-max_len={MAX_BODY_BYTES}", f"-timeout={MAX_SECONDS_A_BODY}", f"-rss_limit_mb={MAX_RSS_MB}"]
    options += [f"-artifact_prefix={work}/failed-", f"-dict={words}"]
    options.append(f"-max_total_time={seconds}")
    atheris.Setup([sys.argv[0], *options, str(found), str(seeds)], target.check)
    atheris.Fuzz()
    return 0


def _by_hypothesis(target: Target, work: Path, seconds: int) -> int:
    from hypothesis import given, seed, settings  # not needed where atheris runs
    from hypothesis import strategies as st  # as above

    bodies = list(target.seeds())
    words = [word.encode() for word in sorted(target.words())]

    @st.composite
    def spoiled(draw: st.DrawFn) -> bytes:
        body = draw(st.sampled_from(bodies))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(body)))
            body = (
                body[:at] + draw(st.binary(max_size=8) | st.sampled_from(words)) + body[at + draw(st.integers(0, 16)) :]
            )
        return body[:MAX_BODY_BYTES]

    last = b""
    tried = 0

    def check(body: bytes) -> None:
        nonlocal last, tried
        last = body
        tried += 1
        target.check(body)

    ends = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < ends:
        rounds += 1
        try:
            seed(rounds)(settings(max_examples=2000, deadline=None, database=None)(given(spoiled())(check)))()
        except Exception:
            # Hypothesis runs the smallest one that fails last.
            (work / f"failed-{rounds}").write_bytes(last)
            raise
    print(f"Done {tried} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
