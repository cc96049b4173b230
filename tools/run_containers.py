"""Runs compose.yaml with podman-compose and looks at what must hold of it: the second half of tools/test_containers.sh.

``run_containers.py <folder of compose.yaml>``. Leaves nothing running.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

_BUILD = "--isolation chroot --network host --format docker --quiet"
_PATIENCE_S = 300.0
_STOPPED_WITHIN_S = 10.0
_KILLED = 137

GATEWAY = "http://127.0.0.1:8080"


def run(*command: str, check: bool = True) -> str:
    """What ``command`` says; with ``check``, SystemExit with the end of it where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # podman, with the arguments below
    if check and done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def compose(*arguments: str, check: bool = True) -> str:
    return run("podman-compose", *arguments, check=check)


def container(service: str) -> str:
    return f"backhaul_{service}_1"


def look_at_images(services: list[str]) -> None:
    """Nobody is root, nothing installs anything, and each holds only its own service."""
    for service in services:
        inside = run(
            *("podman", "run", "--rm", "--read-only", "--network", "none", "--entrypoint", "sh"),
            f"localhost/backhaul-{service}:test",
            *("-c", "id -u; ls /opt/backhaul/lib/python3*/site-packages; command -v pip gcc uv || true"),
        ).split()
        _must(inside[0] == "10001", f"{service} is run by user {inside[0]}")
        others = {f"backhaul_{one}" for one in services if one != service} & set(inside)
        _must(not others, f"the image of {service} holds {others}")
        _must(not any(one.endswith(("/pip", "/gcc", "/uv")) for one in inside), f"{service} has build tools")
        config = json.loads(run("podman", "image", "inspect", f"localhost/backhaul-{service}:test"))[0]
        _must("healthcheck" in {key.lower() for key in config}, f"{service} has no HEALTHCHECK")
        title = config["Labels"]["org.opencontainers.image.title"]
        _must(title == f"backhaul-{service}", f"{service} is labelled {title}")
        print(f"  {service}: user 10001, {len(inside)} files of packages, {config['Size'] >> 20} MiB with the base")


def wait_for(what: str, holds: Any) -> None:  # a function without arguments
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"Not within {_PATIENCE_S:.0f} s: {what}.")
        time.sleep(0.5)
    print(f"  {what}")


class Platform:
    """One tenant with one channel without verification."""

    def __init__(self, token: str) -> None:
        self._http = httpx.Client(base_url=GATEWAY, timeout=10.0, trust_env=False)
        admin = {"Authorization": f"Bearer {token}"}
        made = self._http.post(
            "/admin/v1/tenants", headers=admin, json={"id": "acme", "name": "Acme", "queue_path": "acme"}
        ).raise_for_status()
        self._key = {"X-Api-Key": made.json()["api_key"]}
        self._http.put(
            "/admin/v1/tenants/acme/channels/Twilio", headers=admin, json={"provider": "twilio", "verification": "off"}
        ).raise_for_status()

    def post(self, number: int) -> None:
        body = {"AccountSid": f"AC{0:032x}", "MessageSid": f"SM{number:032x}", "MessageStatus": "delivered"}
        body |= {"From": "+15005550006", "To": "+15005550001"}
        answer = self._http.post("/api/postevents?channelLabel=Twilio", headers=self._key, data=body)
        _must(answer.status_code == httpx.codes.OK, f"a callback was answered {answer.status_code} {answer.text}")

    def knows(self, number: int) -> bool:
        answer = self._http.get(f"/v1/messages/Twilio/SM{number:032x}", headers=self._key)
        return answer.status_code == httpx.codes.OK and answer.json()["state"] == "delivered"


def kill(service: str) -> None:
    """By SIGKILL, and kept dead until it is started: whether podman restarts what dies depends on its version."""
    run("podman", "stop", "--time", "0", container(service))


def stop(service: str) -> None:
    began = time.monotonic()
    run("podman", "stop", "--time", str(int(_STOPPED_WITHIN_S)), container(service))
    (described,) = json.loads(run("podman", "inspect", container(service)))
    code = described["State"]["ExitCode"]
    _must(code != _KILLED, f"{service} had to be killed after {time.monotonic() - began:.1f} s")
    print(f"  {service} stopped in {time.monotonic() - began:.1f} s with {code}")


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"Wrong: {otherwise}.")


def story(folder: Path, services: list[str], servers: list[str]) -> None:
    print("Building")
    compose("--parallel", "1", "--podman-build-args", _BUILD, "build", *services)
    look_at_images(services)
    print("Starting")
    # podman-compose does not wait for what has to end before others start, so the order is made here.
    compose("run", "--rm", "--no-deps", "secrets")
    compose("up", "--detach", "--no-build", "--no-deps", *services, *servers)
    compose("run", "--rm", "--no-deps", "servers")
    print(compose("run", "--rm", "--no-deps", "hello"), end="")
    for service in services:
        run("podman", "exec", container(service), "ready")
        (described,) = json.loads(run("podman", "inspect", container(service)))
        _must(described["HostConfig"]["ReadonlyRootfs"], f"{service} can write to its root")
    print("Using")
    platform = Platform((folder / "secrets/kept/admin-token").read_text("utf-8").strip())
    platform.post(1)
    wait_for("a callback became a message's state", lambda: platform.knows(1))
    kill("normalizer")
    platform.post(2)
    run("podman", "start", container("normalizer"))
    wait_for("so did one that came while the normalizer was dead", lambda: platform.knows(2))
    print("Stopping")
    for service in services:
        stop(service)


def main() -> int:
    folder = Path(sys.argv[1])
    os.chdir(folder)
    known = yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))["services"]
    services = sorted(one.parent.name for one in (folder / "../../services").glob("*/pyproject.toml"))
    servers = [
        name
        for name, of in known.items()
        if name not in (*services, "secrets", "servers", "hello") and "profiles" not in of
    ]
    try:
        story(folder, services, servers)
    except SystemExit:
        for service in services:
            print(f"== {service}\n{run('podman', 'logs', '--tail', '5', container(service), check=False)}")
        raise
    finally:
        compose("down", "--volumes", check=False)
    print("All holds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
