"""Two gateways behind the balancer of compose.yaml, upgraded to a second build under load: for run_containers.py."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import httpx
from containers import BUILD, Platform, compose, container, must, run, stop, wait_for

GATEWAYS = ("gateway", "gateway-2")
BALANCER, BALANCER_STATS = "http://127.0.0.1:8000", "http://127.0.0.1:8404"


class Callers:
    """Providers that post over the balancer, half of them by a connection each time; ``outcomes`` is what they got."""

    def __init__(self, platform: Platform) -> None:
        self.outcomes: Counter[str] = Counter()
        self._platform = platform
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._numbers = iter(range(1000, 1_000_000))

    @contextmanager
    def calling(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._call, args=(bool(n % 2),)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def more(self, count: int) -> None:
        goal = self.outcomes.total() + count
        wait_for("", lambda: self.outcomes.total() >= goal)

    def _call(self, keeps: bool) -> None:
        kept = httpx.Limits(max_keepalive_connections=1 if keeps else 0)
        with httpx.Client(base_url=BALANCER, timeout=30.0, trust_env=False, limits=kept) as http:
            while not self._over.wait(0.02):
                with self._lock:
                    number = next(self._numbers)
                try:
                    outcome = str(self._platform.post(number, http, "upgrade"))
                except httpx.HTTPError as exc:
                    outcome = repr(exc)
                with self._lock:
                    self.outcomes[outcome] += 1


def upgrade_gateways(platform: Platform, compose_files: Sequence[str]) -> None:
    """To a second build, one after the other, while callbacks come over the balancer: all are answered, and count."""
    os.environ["BACKHAUL_VERSION"] = "second"
    compose(*compose_files, "--parallel", "1", "--podman-build-args", BUILD, "build", "gateway")
    callers = Callers(platform)
    for gateway in GATEWAYS:
        wait_for(f"the balancer has {gateway}", partial(_is_up, gateway))
    with callers.calling():
        callers.more(100)
        for gateway in GATEWAYS:
            stop(gateway)
            run("podman", "rm", container(gateway))
            callers.more(50)
            compose(*compose_files, "up", "--detach", "--no-build", "--no-deps", "--no-recreate", gateway)
            (described,) = json.loads(run("podman", "inspect", container(gateway)))
            must(described["ImageName"].endswith(":second"), f"{gateway} is of {described['ImageName']}")
            wait_for(f"the balancer has the second build of {gateway}", partial(_is_up, gateway))
            callers.more(50)
    must(set(callers.outcomes) == {"200"}, f"callbacks were answered {dict(callers.outcomes)}")
    sent = callers.outcomes.total()
    wait_for(
        f"{sent} callbacks during the upgrade were answered 200, and count", lambda: platform.counted("upgrade") == sent
    )


def _is_up(gateway: str) -> bool:
    try:
        rows = httpx.get(f"{BALANCER_STATS}/;csv", trust_env=False).text.splitlines()
    except httpx.TransportError:
        return False
    return any(row.startswith(f"gateways,{gateway},") and ",UP," in row for row in rows)
