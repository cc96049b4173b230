"""`python -m backhaul_local up` as a user runs it, with stand-ins under the real services' module names."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from backhaul_local.settings import default_ports
from backhaul_local.stack import clean_environment
from backhaul_local.state import admin_header_path, admin_token_path, credentials_path, running_path

pytestmark = pytest.mark.slow

STAND_INS = Path(__file__).parent / "stand_ins"
SHIM = """
import os, runpy
os.environ[{wanted!r}] = os.environ[{given!r}]
runpy.run_module({module!r}, run_name="__main__")
"""

Up = subprocess.Popen[str]
StartUp = Callable[..., Up]


@pytest.fixture
def start_up(data_dir: Path, tmp_path: Path) -> Iterator[StartUp]:
    """Starts `up` on free ports; what a failed test leaves is killed."""
    shims = {
        "backhaul_gateway": {"wanted": "STAND_IN_PORT", "given": "BACKHAUL_GATEWAY_PORT", "module": "stand_in_http"},
        **{
            f"backhaul_{name}": {
                "wanted": "STAND_IN_LISTEN",
                "given": f"BACKHAUL_{name.upper()}_GRPC_LISTEN",
                "module": "stand_in_grpc",
            }
            for name in ("audit", "normalizer", "notifier", "reconciler", "suppression")
        },
    }
    for module, values in shims.items():
        (tmp_path / f"{module}.py").write_text(SHIM.format(**values))
    started: list[Up] = []

    def start(*flags: str, **environ: str) -> Up:
        env = {
            **clean_environment(),
            # Before the installed packages, so that the stand-ins are found first.
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(STAND_INS)]),
            "BACKHAUL_LOCAL_PORTS": ",".join(f"{name}=0" for name in default_ports()),
            **environ,
        }
        command = [sys.executable, "-m", "backhaul_local", "up", "--data-dir", str(data_dir), *flags]
        up = subprocess.Popen(  # noqa: S603  # the program under test.
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(up)
        return up

    yield start
    for up in started:
        up.kill()
        up.communicate()


def read_until(up: Up, text: str) -> str:
    """The log up to and including the line with the text; fails when the log ends before."""
    assert up.stdout is not None
    seen: list[str] = []
    for line in up.stdout:
        seen.append(line)
        if text in line:
            return "".join(seen)
    pytest.fail(f"{text!r} was never said:\n{''.join(seen)}\n{up.stderr.read() if up.stderr else ''}")


def finish(up: Up) -> tuple[int, str, str]:
    out, err = up.communicate(timeout=30)
    return up.returncode, out, err


def test_up_runs_restarts_what_dies_and_stops_cleanly(start_up: StartUp, data_dir: Path) -> None:
    up = start_up()
    said = read_until(up, "Ctrl-C stops everything.")
    facts = json.loads(running_path(data_dir).read_text())
    gateway_url = facts["gateway_url"]
    assert f"gateway       {gateway_url} " in said
    ports = facts["ports"]
    for name in ("audit", "normalizer", "notifier", "reconciler", "suppression"):
        assert f"{name:<13} 127.0.0.1:{ports[name]['grpc']} " in said
    assert f"certificates are in {data_dir}/tls" in said
    # One column for all names, however long.
    assert len({line.index("│") for line in said.splitlines() if "│" in line}) == 1
    assert str(admin_token_path(data_dir)) in said
    assert f"curl -sS '{gateway_url}/api/postevents?campaign=spring&channelLabel=Twilio'" in said
    if "stand-in speaks HTTP" not in said:  # The log is followed at its own pace.
        said += read_until(up, "stand-in speaks HTTP")
    assert "gateway     │ stand-in speaks HTTP" in said
    assert "\x1b" not in said, "no colours outside of a terminal"
    env = httpx.get(f"{gateway_url}/env").json()
    token = admin_token_path(data_dir).read_text().strip()
    assert env["BACKHAUL_GATEWAY_ADMIN_TOKEN"] == token
    assert env["BACKHAUL_LOG_FORMAT"] == "console"
    for private in (
        admin_token_path(data_dir),
        admin_header_path(data_dir),
        credentials_path(data_dir),
        running_path(data_dir),
    ):
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
    credentials = json.loads(credentials_path(data_dir).read_text())
    passwords = [credentials["nats_password"], credentials["mongo_password"]]
    assert not [one for one in passwords if one in said or one in running_path(data_dir).read_text()]
    assert passwords[0] in env["BACKHAUL_NATS_URL"]
    assert passwords[1] in env["BACKHAUL_MONGO_URI"]

    port = httpx.URL(gateway_url).port
    code, _, err = finish(start_up(BACKHAUL_LOCAL_PORTS="", BACKHAUL_GATEWAY_PORT=str(port)))
    assert code == 1
    assert f"Port {port} (gateway, http) is taken by process" in err
    code, _, err = finish(start_up())
    assert code == 1
    assert f"{data_dir} is in use by process {up.pid}" in err

    children = psutil.Process(up.pid).children()
    assert len(children) == 9
    (gateway,) = [child for child in children if "backhaul_gateway" in child.cmdline()]
    gateway.kill()
    read_until(up, "gateway died (signal SIGKILL); starting it again in 0.5 s")
    read_until(up, "gateway runs again as process")
    read_until(up, "stand-in speaks HTTP")
    children = psutil.Process(up.pid).children()

    up.send_signal(signal.SIGINT)
    code, out, err = finish(up)
    assert (code, err) == (0, "")
    assert "Stopped." in out
    assert [child for child in children if child.is_running()] == []
    assert not running_path(data_dir).exists()

    again = start_up("--no-object-store", BACKHAUL_NATS_URL="nats://127.0.0.1:1", BACKHAUL_PASSED_ON="yes")
    said = read_until(again, "Ctrl-C stops everything.")
    assert "Starting mongod, audit, normalizer, notifier, reconciler, suppression, gateway;" in said
    env = httpx.get(f"{json.loads(running_path(data_dir).read_text())['gateway_url']}/env").json()
    assert env["BACKHAUL_GATEWAY_ADMIN_TOKEN"] == token, "kept between runs"
    assert (env["BACKHAUL_NATS_URL"], env["BACKHAUL_PASSED_ON"]) == ("nats://127.0.0.1:1", "yes")
    again.send_signal(signal.SIGTERM)
    assert finish(again)[0] == 0


def test_up_can_be_ended_while_it_starts(start_up: StartUp) -> None:
    up = start_up()
    read_until(up, "Starting mongod")
    children = psutil.Process(up.pid).children()
    up.send_signal(signal.SIGTERM)
    code, out, _ = finish(up)
    assert code == 0
    assert "Ready" not in out
    assert [child for child in children if child.is_running()] == []


def test_service_that_cannot_start_is_explained(start_up: StartUp) -> None:
    up = start_up("--no-object-store", STAND_IN_FAILS="1")
    code, _, err = finish(up)
    assert code == 1
    assert "gateway ended while starting (exit code 1)" in err
    assert "the setting STAND_IN_FAILS is wrong" in err
    assert "Traceback" not in err


def test_a_start_that_takes_too_long_names_how_to_wait_longer(start_up: StartUp) -> None:
    code, _, err = finish(start_up("--no-object-store", BACKHAUL_LOCAL_START_TIMEOUT_S="0.001"))
    assert code == 1
    assert "was not ready within 0.001 s" in err
    assert err.endswith("let it take longer: BACKHAUL_LOCAL_START_TIMEOUT_S=300 make up\n")


def test_data_folder_that_is_a_file_is_explained(start_up: StartUp, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = finish(start_up("--data-dir", str(tmp_path / "file")))
    assert code == 1
    assert f"{tmp_path / 'file'} cannot hold the data" in err
    assert "Traceback" not in err


def test_up_survives_the_reader_of_its_log(start_up: StartUp, data_dir: Path) -> None:
    up = start_up("--no-object-store")
    read_until(up, "Ctrl-C stops everything.")
    (gateway,) = [child for child in psutil.Process(up.pid).children() if "backhaul_gateway" in child.cmdline()]
    assert up.stdout is not None
    up.stdout.close()
    gateway.kill()  # Makes it say something.
    gateway.wait(timeout=10)
    gateway_url = json.loads(running_path(data_dir).read_text())["gateway_url"]
    deadline = time.monotonic() + 15
    while True:  # The restarted service gives no event to this process.
        with contextlib.suppress(httpx.TransportError):
            # It listens before it is ready: a 503 means that it is on its way.
            if httpx.get(f"{gateway_url}/readyz").status_code == 200:
                break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    up.send_signal(signal.SIGTERM)
    assert up.wait(timeout=30) == 0
