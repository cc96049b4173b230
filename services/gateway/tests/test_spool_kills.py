"""kill -9 of the process that has the spool, at each of its steps: what it had acknowledged is there, or published."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = """
import json, os, signal, shutil, sqlite3, sys
from pathlib import Path
from backhaul_gateway.spool import file as spool_file
from backhaul_gateway.spool.file import NAME, Kept, SpoolFile
from backhaul_gateway.spool.rescue import rescued

ALL = 1 << 30
spool_file._SHRINKS_FROM_BYTES = 0
# What an audit hook sees besides the statements of SQL: whatever becomes of files and folders.
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "sqlite3.connect"}
connect = sqlite3.connect
left = None  # Steps until the kill; None in the process that looks.


def step(*_):
    global left
    if left is not None:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def connected(*args, **kwargs):
    database = connect(*args, **kwargs)
    database.set_trace_callback(step)
    return database


sqlite3.connect = connected
sys.addaudithook(lambda event, _: step() if event in EVENTS else None)


def say(directory, what, numbers):
    step()
    with open(directory / what, "a") as said:
        said.write("".join(f"{number}\\n" for number in numbers))
    step()


def rows(numbers):
    return [Kept(f"callbacks.path{n % 2}.twilio", f"id-{n}", "", n, b"x" * 100) for n in numbers]


def numbers_of(found):
    return [int(row.callback_id.removeprefix("id-")) for row in found.values()]


def keep_and_drain(directory):
    file = SpoolFile(directory / "spool", by_subject=True)
    for numbers in (range(3), range(3, 5)):
        file.append(rows(numbers))
        say(directory, "acknowledged", numbers)
    position = 0
    while found := file.after(position, 2, ALL).rows:
        say(directory, "published", numbers_of(found))
        file.remove(list(found))
        if not position:
            file.append(rows([5]))
            say(directory, "acknowledged", [5])
        position = max(found)
    file.shrink()
    file.append(rows([6]))
    say(directory, "acknowledged", [6])
    file.close()


def damage_and_rescue(directory):
    shutil.copytree(directory.parent / "damaged", directory / "spool")
    global left
    left = START
    file, _ = rescued(directory / "spool", by_subject=True)
    file.append(rows([1000]))
    say(directory, "acknowledged", [1000])
    file.close()


def read(directory, what):
    path = directory / what
    return [int(line) for line in path.read_text().split()] if path.exists() else []


base, scenario = Path(sys.argv[1]), {"drain": keep_and_drain, "rescue": damage_and_rescue}[sys.argv[2]]
if scenario is damage_and_rescue:
    file = SpoolFile(base / "damaged")
    file.append(rows(range(120)))
    file.close()
    whole = bytearray((base / "damaged" / NAME).read_bytes())
    whole[4096 * 3 : 4096 * 4] = bytes(4096)
    (base / "damaged" / NAME).write_bytes(whole)
START = 0
while True:
    directory = base / str(START)
    directory.mkdir()
    child = os.fork()
    if not child:
        left = START if scenario is keep_and_drain else None
        scenario(directory)
        os._exit(0)
    _, how = os.waitpid(child, 0)
    try:
        file = SpoolFile(directory / "spool", by_subject=True)
    except sqlite3.DatabaseError:  # It is damaged still, and rescued again.
        file, _ = rescued(directory / "spool", by_subject=True)
    found = file.after(0, 1000, ALL)
    file.close()
    kept = numbers_of(found.rows)
    print(json.dumps([kept, read(directory, "acknowledged"), read(directory, "published"), len(found.damaged)]))
    if not os.WIFSIGNALED(how):
        assert os.WEXITSTATUS(how) == 0
        break
    START += 1
"""


def _killed(tmp_path: Path, scenario: str) -> list[tuple[list[int], list[int], list[int]]]:
    """What is kept, was acknowledged and was published, for a kill before each step, and for none."""
    done = subprocess.run(  # noqa: S603  # this interpreter
        [sys.executable, "-c", STEPS, str(tmp_path), scenario], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert not any(damaged for *_, damaged in found)
    return [(kept, acknowledged, published) for kept, acknowledged, published, _ in found]


@pytest.mark.slow
def test_at_each_step_of_keeping_and_draining(tmp_path: Path) -> None:
    found = _killed(tmp_path, "drain")
    assert len(found) > 40
    for kept, acknowledged, published in found:
        assert kept == sorted(set(kept))
        assert set(acknowledged) <= {*kept, *published}
        # What is published again is no more than what was on its way.
        assert len({*kept} & {*published}) <= 2
    assert found[-1] == ([6], [*range(7)], [*range(6)])


@pytest.mark.slow
def test_at_each_step_of_a_rescue(tmp_path: Path) -> None:
    found = _killed(tmp_path, "rescue")
    assert len(found) > 20
    readable = {*found[-1][0]} - {1000}
    assert 60 < len(readable) < 120
    for kept, acknowledged, _ in found:
        assert kept == sorted(set(kept))
        assert {*kept} - {1000} == readable
        assert {*acknowledged} <= {*kept}
