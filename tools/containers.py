"""Containers of compose.yaml, as podman-compose runs them, and one tenant who uses them: for run_containers.py."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import httpx

BUILD = "--isolation chroot --network host --format docker --quiet"
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


def wait_for(what: str, holds: Any) -> None:  # a function without arguments
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"Not within {_PATIENCE_S:.0f} s: {what}.")
        time.sleep(0.2)
    if what:
        print(f"  {what}", flush=True)


def kill(service: str) -> None:
    """By SIGKILL, and kept dead until it is started: whether podman restarts what dies depends on its version."""
    run("podman", "stop", "--time", "0", container(service))


def stop(service: str) -> None:
    began = time.monotonic()
    run("podman", "stop", "--time", str(int(_STOPPED_WITHIN_S)), container(service))
    (described,) = json.loads(run("podman", "inspect", container(service)))
    code = described["State"]["ExitCode"]
    must(code != _KILLED, f"{service} had to be killed after {time.monotonic() - began:.1f} s")
    print(f"  {service} stopped in {time.monotonic() - began:.1f} s with {code}")


def must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"Wrong: {otherwise}.")


class Platform:
    """One tenant with one channel without verification."""

    def __init__(self, token: str) -> None:
        self._http = httpx.Client(base_url=GATEWAY, timeout=10.0, trust_env=False)
        admin = {"Authorization": f"Bearer {token}"}
        made = self._http.post(
            "/admin/v1/tenants", headers=admin, json={"id": "initech", "name": "Initech", "queue_path": "initech"}
        ).raise_for_status()
        self._key = {"X-Api-Key": made.json()["api_key"]}
        channel = "/admin/v1/tenants/initech/channels/Twilio"
        self._http.put(channel, headers=admin, json={"provider": "twilio", "verification": "off"}).raise_for_status()

    def post(self, number: int, http: httpx.Client | None = None, communication: str = "") -> int:
        """The status of the answer."""
        body = {"AccountSid": f"AC{0:032x}", "MessageSid": f"SM{number:032x}", "MessageStatus": "delivered"}
        body |= {"From": "+15005550006", "To": "+15005550001"}
        address = f"/api/postevents?channelLabel=Twilio&communicationId={communication or 'one'}"
        return (http or self._http).post(address, headers=self._key, data=body).status_code

    def knows(self, number: int) -> bool:
        answer = self._asked(f"/v1/messages/Twilio/SM{number:032x}")
        return answer is not None and answer["state"] == "delivered"

    def counted(self, communication: str) -> int:
        """How many events there are of it."""
        answer = self._asked(f"/v1/communications/{communication}")
        return 0 if answer is None else sum(answer["events"].values())

    def _asked(self, address: str) -> Any:
        """The body of the answer; None where there is none yet, as while a gateway is being replaced."""
        try:
            answer = self._http.get(address, headers=self._key)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == httpx.codes.OK else None
