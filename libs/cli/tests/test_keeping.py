"""Keys in a keyring: none is in the file of profiles, none goes to another address, and none stays behind."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from answering import Gateway
from backhaul_cli.__main__ import main
from keyfile import FileKeyring

URL = "https://acme.example.com"
KEY = "bhk_0123456789ab_hidden"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The file in which the keyring's entries lie; the profiles lie below the same folder."""
    for name in list(os.environ):
        if name.startswith("BACKHAUL_"):
            monkeypatch.delenv(name)
    file = tmp_path / "keyring.json"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("KEYRING_FILE", str(file))
    before = keyring.get_keyring()
    keyring.set_keyring(FileKeyring())  # type: ignore[no-untyped-call]  # its base has no types
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{KEY}\n"))
    try:
        yield file
    finally:
        keyring.set_keyring(before)


def entries(kept: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    return found


def profiles(kept: Path) -> str:
    return (kept.parent / "backhaul" / "config.toml").read_text()


def add(url: str, *more: str, key: str = KEY) -> int:
    sys.stdin = io.StringIO(f"{key}\n")
    return main(["profile", "add", "acme", "--url", url, *more])


def test_a_key_in_the_keyring_opens_and_is_in_no_file(
    kept: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("BACKHAUL_URL", "BACKHAUL_API_KEY", "BACKHAUL_ADMIN_TOKEN"):
        monkeypatch.delenv(name)
    assert add(gateway.url, "--keyring") == 0
    assert entries(kept) == {f"backhaul acme api_key {gateway.url}": KEY}
    assert KEY not in profiles(kept)
    gateway.says("GET /v1/channels", {"channels": []})
    assert main(["channels", "list"]) == 0
    assert main(["profile", "list", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "name": "acme",
        "url": gateway.url,
        "current": True,
        "has_api_key": True,
        "has_admin_token": False,
        "keyring": True,
    }
    assert KEY not in said.out + said.err


def test_each_credential_lies_where_it_was_asked_for(kept: Path) -> None:
    assert add(URL, "--keyring") == 0
    assert add(URL, "--admin", key="token") == 0
    assert list(entries(kept).values()) == [KEY]
    assert 'admin_token = "token"' in profiles(kept)
    assert add(URL, "--admin", "--keyring", key="other") == 0
    assert sorted(entries(kept).values()) == sorted([KEY, "other"])
    assert "token" not in profiles(kept).replace("admin_token", "")
    # What moves into the file stays in no keyring; neither does what was of another address, or is removed.
    assert add(URL) == 0
    assert list(entries(kept).values()) == ["other"]
    assert add("https://other.example.com", "--keyring") == 0
    assert entries(kept) == {"backhaul acme api_key https://other.example.com": KEY}
    assert main(["profile", "remove", "acme"]) == 0
    assert entries(kept) == {}


def test_a_key_goes_to_no_other_address_than_its_own(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(URL, "--keyring") == 0
    file = kept.parent / "backhaul" / "config.toml"
    file.write_text(profiles(kept).replace("acme.example.com", "evil.example.com"))
    assert main(["channels", "list"]) == 3
    said = capsys.readouterr().err
    assert "https://evil.example.com" in said
    assert KEY not in said


def test_a_keyring_that_does_not_answer_is_said_and_nothing_is_kept(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert add(URL, "--keyring") == 0
    before = profiles(kept)
    kept.write_text("locked")
    capsys.readouterr()
    assert main(["channels", "list"]) == 2
    assert "Unlock it" in capsys.readouterr().err
    assert add(URL, "--keyring", key="other") == 2
    assert profiles(kept) == before
    assert main(["profile", "remove", "acme"]) == 0
    assert "stays in the keyring" in capsys.readouterr().err


def test_where_there_is_no_keyring_it_is_said_what_to_do_instead(kept: Path) -> None:
    none = {**os.environ, "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    add_it = [sys.executable, "-m", "backhaul_cli", "profile", "add", "acme", "--url", URL, "--keyring"]
    done = subprocess.run(add_it, env=none, input=KEY, capture_output=True, text=True, check=False)  # noqa: S603  # ours
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "Leave --keyring out" in done.stderr
    assert KEY not in done.stderr
    assert not (kept.parent / "backhaul").exists()
    # Nor where the package is missing, before anybody is asked for a key.
    program = "import sys; sys.modules['keyring'] = None; from backhaul_cli.__main__ import main; sys.exit(main())"
    without = [sys.executable, "-c", program, *add_it[3:]]
    done = subprocess.run(without, input="", capture_output=True, text=True, check=False)  # noqa: S603  # ours
    assert (done.returncode, "backhaul-cli[keyring]" in done.stderr) == (2, True)
