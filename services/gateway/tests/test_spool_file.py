"""The spool's file, whatever happened to it: what it serves is what was kept, whole, or it says what is not."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from backhaul_gateway.spool.file import NAME, TROUBLE, Kept, SpoolFile, SpoolTakenError, is_damage
from backhaul_gateway.spool.rescue import rescued
from backhaul_gateway.spool.shares import Shares

ALL = 1 << 30


def row(number: int, size: int = 50) -> Kept:
    body = f"{number}:".encode() + bytes([number % 256]) * size
    return Kept(f"callbacks.path{number % 3}.twilio", f"id-{number}", f"00-{number:032x}-{1:016x}-01", number, body)


def number_of(kept: Kept) -> int:
    return int(kept.callback_id.removeprefix("id-"))


def contents(file: SpoolFile) -> list[Kept]:
    return list(file.after(0, 1_000_000, ALL).rows.values())


def test_what_is_kept_is_there_after_a_restart_in_its_order(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "spool")
    file.append(row(number) for number in range(10))
    file.append([row(10)])
    file.close()
    file = SpoolFile(tmp_path / "spool")
    found = file.after(0, 1_000_000, ALL)
    assert [*found.rows.values()] == [row(number) for number in range(11)]
    assert found.damaged == []
    assert sorted(file.held()) == [
        (f"callbacks.path{path}.twilio", len(some), sum(one.size for one in some), path)
        for path in range(3)
        if (some := [row(number) for number in range(path, 11, 3)])
    ]
    file.remove(list(found.rows)[:4])
    assert contents(file) == [row(number) for number in range(4, 11)]
    # Parts, by rows and by bytes.
    position = list(found.rows)[5]
    assert [*file.after(position, 2, ALL).rows.values()] == [row(6), row(7)]
    assert [*file.after(position, 100, 2 * row(6).size).rows.values()] == [row(6), row(7)]
    file.close()


def test_it_is_nobodys_but_the_gateways_and_one_process_has_it(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "spool"
    file = SpoolFile(directory)
    file.append([row(1)])
    assert directory.stat().st_mode & 0o077 == 0
    assert {path.stat().st_mode & 0o077 for path in directory.iterdir()} == {0}
    with pytest.raises(SpoolTakenError, match="give each gateway a directory of its own"):
        SpoolFile(directory)
    file.close()
    SpoolFile(directory).close()


def test_one_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    SpoolFile(tmp_path).close()
    database = sqlite3.connect(tmp_path / NAME)
    database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(SpoolTakenError, match="of format 2, and this version knows 1"):
        SpoolFile(tmp_path)


def test_all_of_a_transaction_or_none(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path)
    file.append([row(1)])
    wrong = row(3)._replace(encoded="no bytes")  # type: ignore[arg-type]  # what sqlite refuses
    with pytest.raises((sqlite3.Error, TypeError)):
        file.append([row(2), wrong])
    file.append([row(4)])
    assert contents(file) == [row(1), row(4)]
    file.close()


WRITER = """
import sys
from pathlib import Path
from backhaul_gateway.spool.file import Kept, SpoolFile
file = SpoolFile(Path(sys.argv[1]))
number = 0
while True:
    rows = [Kept("callbacks.a.twilio", f"id-{number + n}", "", 1, b"x" * 3000) for n in range(20)]
    file.append(rows)
    number += 20
    print(number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("acknowledged", [1, 3, 17])
def test_a_process_that_is_killed_has_lost_nothing_that_it_acknowledged(tmp_path: Path, acknowledged: int) -> None:
    writer = subprocess.Popen(  # noqa: S603  # this interpreter
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    last = 0
    for _ in range(acknowledged):
        last = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read().split("\n")
    writer.wait()
    writer.stdout.close()
    last = max([last, *(int(one) for one in rest[:-1])])
    file = SpoolFile(tmp_path)
    found = contents(file)
    assert [one.callback_id for one in found] == [f"id-{number}" for number in range(len(found))]
    assert last <= len(found) <= last + 20
    assert len(found) % 20 == 0
    file.close()


def test_whatever_the_power_cut_off_the_log_what_is_served_is_a_beginning_of_what_was_kept(tmp_path: Path) -> None:
    """Each length of SQLite's log that a power cut may leave, and one whose last pages were written as nonsense."""
    kept = tmp_path / "kept"
    file = SpoolFile(kept)
    for number in range(8):
        file.append([row(number, 1500)])
    log = f"{NAME}-wal"
    whole = (kept / log).read_bytes()
    rng = random.Random(7)  # noqa: S311  # the same bytes each time
    served: set[int] = set()
    for length in sorted({0, len(whole), *(rng.randrange(len(whole)) for _ in range(60))}):
        for tail in (b"", rng.randbytes(900)):
            torn = tmp_path / f"torn-{length}{bool(tail)}"
            torn.mkdir()
            shutil.copy(kept / NAME, torn / NAME)
            (torn / log).write_bytes(whole[:length] + tail)
            again = SpoolFile(torn)
            found = contents(again)
            assert found == [row(number, 1500) for number in range(len(found))]
            again.append([row(99)])
            assert contents(again)[-1] == row(99)
            again.close()
            served.add(len(found))
    file.close()
    assert served == set(range(9))


def test_what_the_disk_has_turned_is_told_of_and_never_served(tmp_path: Path) -> None:
    """Bytes that change anywhere in the file. Whatever SQLite makes of that, no row comes that was not kept so."""
    kept = tmp_path / "kept"
    file = SpoolFile(kept)
    file.append(row(number, 700) for number in range(60))
    file.close()
    whole = (kept / NAME).read_bytes()
    good = {number: row(number, 700) for number in range(60)}
    rng = random.Random(11)  # noqa: S311  # the same bytes each time
    told = noticed = 0
    for attempt in range(80):
        turned = bytearray(whole)
        for _ in range(rng.choice([1, 4, 200])):
            turned[rng.randrange(100, len(turned))] ^= 1 << rng.randrange(8)
        directory = tmp_path / str(attempt)
        directory.mkdir()
        (directory / NAME).write_bytes(turned)
        try:
            with closing(SpoolFile(directory)) as again:
                found = again.after(0, 1_000_000, ALL)
        except SpoolTakenError:
            continue  # Its format was turned.
        except TROUBLE as exc:
            noticed += is_damage(exc)
            continue
        for one in found.rows.values():
            assert good[number_of(one)] == one
        told += bool(found.damaged)
    assert told > 10
    assert noticed > 5


@pytest.mark.parametrize("what", ["nonsense", "a page", "its head"])
def test_of_a_file_that_is_no_database_any_more_what_can_be_read_is_kept(tmp_path: Path, what: str) -> None:
    file = SpoolFile(tmp_path)
    file.append(row(number, 700) for number in range(200))
    file.close()
    path = tmp_path / NAME
    if what == "nonsense":
        path.write_bytes(b"nonsense" * 5000)
    else:
        turned = bytearray(path.read_bytes())
        start = 4096 * 9 if what == "a page" else 0
        turned[start : start + 4096] = bytes(4096)
        path.write_bytes(turned)
    again, saved = rescued(tmp_path)
    found = contents(again)
    assert len(found) == saved
    assert [number_of(one) for one in found] == sorted(number_of(one) for one in found)
    assert all(row(number_of(one), 700) == one for one in found)
    assert (180 < saved < 200) if what == "a page" else saved == 0
    assert len([*tmp_path.glob(f"damaged-*/{NAME}")]) == 1
    again.append([row(1000)])
    assert contents(again)[-1] == row(1000)
    again.close()


def test_an_empty_file_gives_its_room_back(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path)
    file.append(row(number, 1_000_000) for number in range(30))
    file.remove(file.after(0, 100, ALL).rows)
    assert (tmp_path / NAME).stat().st_size + (tmp_path / f"{NAME}-wal").stat().st_size > 30_000_000
    file.shrink()
    assert (tmp_path / NAME).stat().st_size + (tmp_path / f"{NAME}-wal").stat().st_size < 100_000
    file.append([row(1)])
    assert contents(file) == [row(1)]
    file.close()


def test_what_is_of_one_subject_is_found_among_the_others(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path, by_subject=True)
    file.append(row(number) for number in range(12))
    found = file.after(0, 2, ALL, row(1).subject).rows
    assert [*found.values()] == [row(1), row(4)]
    assert [*file.after(max(found), 100, ALL, row(1).subject).rows.values()] == [row(7), row(10)]
    assert not file.after(0, 100, ALL, "callbacks.path9.twilio").rows
    file.close()


def test_a_subject_that_the_disk_has_changed_is_counted_as_nobodys() -> None:
    shares = Shares(1000)
    shares.count([("nothing", 1, 100, 7), (row(1).subject, 2, 200, 5)])
    assert sorted(shares.subjects) == [row(1).subject, "nothing"]
    assert (shares.since_us, shares.of("path1").callbacks, shares.of("").callbacks) == (5, 2, 1)
    shares.take(row(1)._replace(subject="nothing"))
    assert (shares.all.callbacks, shares.of("").callbacks) == (2, 0)
