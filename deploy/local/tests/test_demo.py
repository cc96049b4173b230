"""`python -m backhaul_local demo` as a user runs it, against the real servers and services."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from backhaul_local.pytest_plugin import StackFactory
from backhaul_local.stack import clean_environment
from backhaul_local.up import example

pytestmark = pytest.mark.slow

Demo = subprocess.Popen[str]


@pytest.fixture
def start_demo(data_dir: Path) -> Iterator[Callable[..., Demo]]:
    """Starts the demo with a folder of its own for temporary files; what a failed test leaves is killed."""
    started: list[Demo] = []

    def start(**environ: str) -> Demo:
        env = {**clean_environment(), "TMPDIR": str(data_dir), "NO_COLOR": "1", **environ}
        command = [sys.executable, "-m", "backhaul_local", "demo"]
        demo = subprocess.Popen(  # noqa: S603  # the program under test.
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(demo)
        return demo

    yield start
    for demo in started:
        demo.kill()
        demo.communicate()


def test_every_figure_is_what_it_must_be(start_demo: Callable[..., Demo], data_dir: Path) -> None:
    # A web proxy that is not there: what runs on this machine must not want to go through one.
    demo = start_demo(http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")
    out, err = demo.communicate(timeout=100)
    assert (demo.returncode, err) == (0, ""), out
    assert re.search(r"✓ All \d+ checks hold", out)
    assert "✗" not in out
    # The printed counts, in the words of a reader: the sum of Acme's messages, the errors, the refusals, the burst.
    assert re.search(r"^\$ backhaul communications show spring-sale$", out, re.MULTILINE)
    assert re.search(r"^Delivered +4\n", out, re.MULTILINE)
    assert re.search(r"^\$ backhaul dead-letters list\n.*\n.* twilio +1 .*MessageSid is missing", out, re.MULTILINE)
    assert "arrived as delivered, queued, sent, queued — ends delivered, counts as Delivered" in out
    assert "30006  Landline or unreachable carrier" in out
    assert re.search(r"“STOP” +understood as opt out", out)
    assert re.search(r"they write STOP +no: stop, [0-9.,]+ ms after the 200 +stop of all, since 20", out)
    assert re.search(r"they write START +allowed, [0-9.,]+ ms after the 200", out)
    assert re.search(r"dan@example\.com .* allowed +no: complaint, unsubscribe", out)
    assert len(re.findall(r" (401|403|404|409) {5}", out)) == 11
    assert re.search(r"crm-5 +Jon +twilio +\+15005550125 +Failed +21610", out)
    assert re.search(r"a delivery is reported late +complete +Delivered 5, Failed 2, InvalidNumber 1, Und", out)
    assert re.search(
        r"^1 .* 503  We are closed\. .*\n(.*\n)*?2 .* 500  We are .*\n(.*\n)*?3 .* 200  Thank", out, re.MULTILINE
    )
    assert re.search(r"it is resumed +3 calls .* queued → sent → delivered", out)
    assert re.search(r"/v1/batches/summer-1  summer-1 is complete: Delivered 5", out)
    assert re.search(
        r"http://10\.0\.0\.5/backhaul +an address of a private network +422 +http\.url: 10\.0\.0\.5 is a", out
    )
    assert re.search(r"200 duplicates +2,000", out)
    assert list(data_dir.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize("moment", ["Starting mongod", "Ready in"])
def test_interrupting_it_leaves_nothing(start_demo: Callable[..., Demo], data_dir: Path, moment: str) -> None:
    demo = start_demo(PYTHONUNBUFFERED="1")
    assert demo.stdout is not None
    assert any(moment in line for line in demo.stdout)
    children = psutil.Process(demo.pid).children()
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=30)
    assert (demo.returncode, err) == (130, "")
    assert "Interrupted" in out
    assert [child for child in children if child.is_running()] == []
    assert list(data_dir.iterdir()) == []


def test_a_service_that_dies_is_named_with_its_log(start_demo: Callable[..., Demo], data_dir: Path) -> None:
    demo = start_demo(PYTHONUNBUFFERED="1")
    assert demo.stdout is not None
    assert any("Ready in" in line for line in demo.stdout)
    (gateway,) = [child for child in psutil.Process(demo.pid).children() if "backhaul_gateway" in child.cmdline()]
    gateway.kill()
    out, err = demo.communicate(timeout=60)
    assert (demo.returncode, err) == (1, "")
    assert "gateway ended by itself (signal SIGKILL); the end of" in out
    (logs,) = data_dir.iterdir()
    assert f"The logs are kept in {logs}" in out
    assert (logs / "gateway.log").exists()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ("soon", "BACKHAUL_LOCAL_START_TIMEOUT_S: 'soon' is not a number of seconds above 0."),
        ("0.001", "If the machine is only busy, let it take longer: BACKHAUL_LOCAL_START_TIMEOUT_S=300 make demo"),
    ],
)
def test_it_starts_for_as_long_as_it_may(start_demo: Callable[..., Demo], seconds: str, said: str) -> None:
    out, err = (demo := start_demo(BACKHAUL_LOCAL_START_TIMEOUT_S=seconds)).communicate(timeout=60)
    assert (demo.returncode, err) == (1, "")
    assert said in out


def test_containers_that_do_not_run_are_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "backhaul_local", "demo", "--compose", str(tmp_path)]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  # the program under test.
    assert (done.returncode, done.stderr) == (1, "")
    assert f"{tmp_path} is no folder of a compose.yaml that has run" in " ".join(done.stdout.split())


@pytest.mark.skipif(shutil.which("curl") is None, reason="the lines are for a shell with curl")
async def test_the_lines_that_up_prints_work(stack_factory: StackFactory, tmp_path: Path) -> None:
    header = tmp_path / "admin-header"
    key_file = tmp_path / "a key"
    async with stack_factory(log_level="info") as stack:
        header.write_text(f"Authorization: Bearer {stack.admin_token}\n")
        lines = "\n".join(example(stack.gateway_url, admin_header=f"@{header}", key_file=str(key_file)))
        # Arguments are seen by every user of the machine: neither credential is one.
        assert stack.admin_token not in lines
        assert "$" not in lines
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", lines, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await shell.communicate()
    # Twilio's answer stands before what became of each callback.
    channel, message, check = out.decode().split("<Response/>\n")
    assert (shell.returncode, err) == (0, b"")
    assert key_file.read_text().startswith("X-Api-Key: bhk_")
    assert json.loads(channel)["provider"] == "twilio"
    read = json.loads(message)
    assert (read["state"], read["fulfilment_state"], read["communication_id"]) == ("delivered", "Delivered", "spring")
    checked = json.loads(check)
    assert checked["verdict"] == "suppressed"
    assert [row["kind"] for row in checked["blocking"]] == ["stop"]
