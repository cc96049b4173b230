"""``backhaul up``: the same program as ``make up``, or what to do where there is none."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from backhaul_cli.__main__ import main
from backhaul_local.settings import default_ports
from backhaul_local.stack import clean_environment


def test_its_options_are_those_of_make_up() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "backhaul_cli", "up", "--", "--port", "pigeon=1"],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
    )
    assert done.returncode != 0
    assert "pigeon" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_ends_it_as_it_ends_make_up(data_dir: Path) -> None:
    ports = ",".join(f"{name}=0" for name in default_ports())
    with subprocess.Popen(  # noqa: S603  # the program under test
        [sys.executable, "-m", "backhaul_cli", "up", "--", "--data-dir", str(data_dir)],
        env={**clean_environment(), "BACKHAUL_LOCAL_PORTS": ports, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stdout is not None
        assert any("Starting mongod" in line for line in up.stdout)
        up.send_signal(signal.SIGINT)
        _, err = up.communicate(timeout=120)
    assert "Traceback" not in err
    assert up.returncode in (0, 130)


def test_elsewhere_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("backhaul_cli.commands.up.find_spec", lambda _name: None)
    assert importlib.util.find_spec("backhaul_local") is not None
    assert main(["up"]) == 2
    said = capsys.readouterr().err
    assert "make setup" in said
    assert said.count("\n") == 1
