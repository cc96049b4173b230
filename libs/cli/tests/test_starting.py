"""What is asked of the command line before it asks anything: help, mistakes, and how fast it is there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
from backhaul_cli.__main__ import main
from backhaul_cli.app import app
from backhaul_cli.entry import run
from backhaul_cli.failing import Code

SLOW = {"backhaul_client", "httpx", "msgspec", "rich", "anyio", "ssl", "asyncio", "json", "tempfile"}
WITHOUT_JSON = {
    "audits get", "export", "import-rpi", "keys remove", "profile add", "profile remove", "profile use",
    "suppressions export", "up",
}  # fmt: skip
"""They write a file, or nothing."""


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        full = f"{name} {word}".strip()
        if hasattr(command, "commands"):
            yield from commands(command, full)
        else:
            yield full, command


ALL = dict(commands(typer.main.get_command(app)))


def test_the_help_loads_nothing_that_it_does_not_need() -> None:
    program = (
        "import sys; from backhaul_cli.__main__ import main; code = main(['--help']); "
        "loaded = {name.partition('.')[0] for name in sys.modules}; "
        f"print(sorted({SLOW!r} & loaded), len(sys.modules), code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603  # this Python
    loaded, number, code = done.stderr.rsplit(maxsplit=2)
    assert "dead-letters" in done.stdout
    assert (loaded, code) == ("[]", "0")
    # They are 180; with httpx it would be seven hundred.
    assert int(number) < 250


def test_ctrl_c_while_it_is_loaded_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "typer").mkdir()
    (tmp_path / "typer" / "__init__.py").write_text("raise KeyboardInterrupt")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from backhaul_cli.entry import run; run()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603  # this Python
    assert (done.returncode, done.stdout, done.stderr) == (Code.INTERRUPTED, "", "")


def test_the_console_script_begins_where_ctrl_c_is_heard() -> None:
    (script,) = entry_points(group="console_scripts", name="backhaul")
    assert script.load() is run


@pytest.mark.parametrize("name", ALL)
def test_each_command_says_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert f"Usage: backhaul {name}" in said
    assert max(map(len, said.splitlines())) <= 80
    assert all(parameter.help for parameter in ALL[name].params), "each option and argument is explained"
    assert ("--json" in said) != (name in WITHOUT_JSON)


def test_no_secret_is_an_argument() -> None:
    names = {option for command in ALL.values() for parameter in command.params for option in parameter.opts}
    assert "--profile" in names
    # What is there asks for one, or names a file.
    assert {name for name in names if "key" in name or "secret" in name or "token" in name} <= {
        "key",
        "--secret",
        "--secrets",
        "--signing-key",
        "--keys",
        "--keyring",
    }
    (with_secret,) = (one for one in ALL["channels add"].params if "--secret" in one.opts)
    assert with_secret.is_flag


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mesage"], "Did you mean 'message', 'messages'?"),
        (["messages", "--form", "2d"], "--form"),
        (["messages", "--from", "2x"], "--from"),
        (["messages", "--limit", "0"], "--limit"),
        (["message"], "ID"),
        (["dead-letters", "replay"], "Name dead letters"),
        (["stats", "--by", "colour"], "colour"),
        (["replay", "run", "Twilio"], "--from"),
        (["messages"], "backhaul profile add"),
        (["profile", "use", "x"], "backhaul profile add"),
        (["diff", "missing.json"], "missing.json"),
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in list(os.environ):
        if name.startswith("BACKHAUL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("backhaul: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


def test_a_document_that_is_none_is_not_repeated(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_text('{"acme/Twilio": "0123456789abcdef"')
    assert main(["diff", str(file)]) == 2
    said = capsys.readouterr().err
    assert "line 1" in said
    assert "0123456789abcdef" not in said


def test_help_that_nobody_reads_to_its_end_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "backhaul_cli", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:  # fmt: skip
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 0
