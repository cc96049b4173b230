"""The command that verifies copies: what it says, to people and to programs, and that a slip is no attack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from backhaul_audit import verify as command
from backhaul_digests.line import iso
from backhaul_digests.model import Chain, ChainKey
from signed_world import ACME, HOUR_US, SCRIPT, START_US, day

EVENTS = ChainKey(ACME, Chain.EVENTS)
GLOBEX = "globex.0123456789abcdef"


def test_the_command_as_a_program_says_what_is_wrong(tmp_path: Path) -> None:
    world = day()
    file = world.files[EVENTS][1]
    world.objects[file.plan.key] = b"{}\n"
    keys = world.save(tmp_path)
    offline = [sys.executable, "-m", "backhaul_audit.verify", "--offline", str(tmp_path / "copies")]
    done = subprocess.run([*offline, "--keys", str(keys)], capture_output=True, text=True, check=False)  # noqa: S603  # ours
    assert done.returncode == command.INVALID
    detail = "It was changed: it has 5 fewer bytes than the 8 that were signed."
    assert done.stdout.splitlines() == [
        f"File\tbackhaul/{file.plan.key}\tINVALID: hash\t{detail}",
        f"Asked for: the beginning to now; found: {iso(START_US)} to {iso(START_US + 7 * HOUR_US)}.",
        "7/7 digests valid, 4/5 files valid",
    ]
    alone = [sys.executable, str(SCRIPT), str(tmp_path / "copies"), str(keys)]
    done = subprocess.run(alone, capture_output=True, text=True, check=False)  # noqa: S603  # ours
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"File\t{file.plan.key}\tINVALID: hash",
        "7/7 digests valid, 4/5 files valid",
    ]


def test_the_command_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = day()
    keys = world.save(tmp_path)
    arguments = ["--offline", str(tmp_path / "copies"), "--keys", str(keys)]
    asked = ["--from", iso(START_US + HOUR_US), "--to", "2026-01-15T11:00:00+01:00", "--json"]
    assert command.main([*arguments, *asked]) == command.VALID
    *items, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert [item["valid"] for item in items] == [True] * 4
    assert {item["subject"] for item in items} == {"digest", "file"}
    assert set(items[0]) == {"subject", "name", "chain", "valid", "problem", "detail"}
    assert summary == {
        "done": True,
        "digests": 2,
        "valid_digests": 2,
        "files": 2,
        "valid_files": 2,
        "found_from": iso(START_US),
        "found_to": iso(START_US + 2 * HOUR_US),
        "valid": True,
    }
    assert command.main([*arguments, "--verbose"]) == command.VALID
    assert len([line for line in capsys.readouterr().out.splitlines() if "\tvalid" in line]) == 12


def test_the_command_checks_one_tenant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = day()
    world.file(registration=GLOBEX)
    bad = world.digest(registration=GLOBEX)
    world.objects[bad.key] = b"{}"
    arguments = ["--offline", str(tmp_path / "copies"), "--keys", str(world.save(tmp_path))]
    assert command.main([*arguments, "--tenant", "acme"]) == command.VALID
    assert command.main([*arguments, "--tenant", GLOBEX]) == command.INVALID
    assert command.main(arguments) == command.INVALID
    assert command.main([*arguments, "--tenant", "nobody"]) == command.NOT_CHECKED
    assert "no digests found" in capsys.readouterr().out


def test_copies_of_another_bucket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = day()
    arguments = ["--offline", str(tmp_path / "copies"), "--keys", str(world.save(tmp_path))]
    (tmp_path / "own").mkdir()
    assert command.main([*arguments, "--bucket-root", f"backhaul={tmp_path / 'own'}"]) == command.INVALID
    assert capsys.readouterr().out.splitlines()[-1] == "7/7 digests valid, 1/5 files valid"
    (tmp_path / "copies" / "tenants").rename(tmp_path / "own" / "tenants")
    assert command.main([*arguments, "--bucket-root", f"backhaul={tmp_path / 'own'}"]) == command.VALID


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"keys": [{"key_id": "x"}]}', '{"keys": [1]}', "\xff"])
def test_a_key_file_that_is_none(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(text, "latin-1")
    assert command.main(["--offline", str(tmp_path), "--keys", str(keys)]) == command.NOT_CHECKED
    assert capsys.readouterr().err == f"{keys} does not hold keys as /.well-known/backhaul-audit-keys answers them.\n"


def test_arguments_that_make_no_sense(tmp_path: Path) -> None:
    for more in (["--from", "yesterday"], ["--bucket-root", "x"], ["--head", "0f3a"], []):
        with pytest.raises(SystemExit) as ended:
            command.main(["--offline", str(tmp_path), *more])
        assert ended.value.code == command.NOT_CHECKED
    assert command.main(["--offline", str(tmp_path), "--keys", str(tmp_path / "none")]) == command.NOT_CHECKED


@pytest.mark.parametrize(
    ("folder", "keys", "more", "said"),
    [
        ("copies", "keys.json", ["--head", "0f3a"], "a head is 64 hex digits: '0f3a' is not the whole of one"),
        ("copies/digests", "keys.json", [], "copies/digests has no folder digests"),
        ("copies", "none.json", [], "none.json"),
        ("copies", "copies", [], "copies"),
    ],
)
def test_a_slip_of_who_verifies_is_not_taken_for_an_attack(
    tmp_path: Path, folder: str, keys: str, more: list[str], said: str
) -> None:
    """Neither a finding nor a traceback: one line that says what to give instead."""
    day().save(tmp_path)
    given = str(tmp_path / folder), str(tmp_path / keys)
    own = [sys.executable, "-m", "backhaul_audit.verify", "--offline", given[0], "--keys", given[1], *more]
    for one in (own, [sys.executable, str(SCRIPT), *given, *more]):
        done = subprocess.run(one, capture_output=True, text=True, check=False)  # noqa: S603  # ours
        assert (done.returncode, done.stdout) == (command.NOT_CHECKED, "")
        assert said in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_what_is_not_signed_is_not_believed_where_it_lies(tmp_path: Path) -> None:
    """Copies do not tell of which bucket they are, and whoever changed a digest could name any."""
    world = day()
    digest = world.digests_made[EVENTS][1]
    world.objects[digest.key] = world.objects[digest.key].replace(
        b'"digestBucket":"backhaul"', b'"digestBucket":"others"'
    )
    assert world.by_command(tmp_path)[0] == {("digest", digest.key, "signature")}


def test_names_cannot_speak_to_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = day()
    world.objects[f"digests/{EVENTS.id}/\x1b[2J\nFile"] = b""
    assert command.main(["--offline", str(tmp_path / "copies"), "--keys", str(world.save(tmp_path))]) == command.INVALID
    assert "?[2J?File" in capsys.readouterr().out
