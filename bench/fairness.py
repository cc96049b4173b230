"""What one tenant notices of another that sends ten times what it may, and has very much that is not processed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from backhaul_client import AsyncAdminClient
from generators import LoadError, RawSockets, write_for
from installation import Installation
from latency import PROBE_EVERY_S, Probes, Took, percentile
from normalized import Normalized
from report import Report

_QUIET, _FLOOD = "quiet", "flood"
_LIMIT = 100
"""Callbacks a second that the flooding tenant may send."""
_TIMES = 10
_GROUP = 100
"""Callbacks of one message of its backlog, as the gateway groups them under load."""
_AT_ONCE = 20_000
_SERVICES = ("gateway", "normalizer", "suppression", "audit", "reconciler", "notifier")


async def measure(site: Installation, report: Report, *, rounds: int, seconds: float, backlog: int) -> None:
    """``fairness_…``: the quiet runs, and then the others, with ``backlog`` callbacks of the other tenant's waiting."""
    await site.ensure("gateway")
    keys = {tenant: await site.register(tenant) for tenant in (_QUIET, _FLOOD)}
    async with AsyncAdminClient(site.stack.gateway_url, site.stack.admin_token) as platform:
        await platform.change_tenant(_FLOOD, limits={"requests_per_second": _LIMIT, "burst": _LIMIT})
    await site.stop("normalizer")
    await site.forget()
    await site.purge_callbacks()
    await site.ensure(*_SERVICES)
    probes = int(seconds / PROBE_EVERY_S)
    quiet = [await Probes(site, _QUIET, keys[_QUIET], probes).run() for _ in range(rounds)]
    with _all_cores_busy():
        busy = [await Probes(site, _QUIET, keys[_QUIET], probes).run() for _ in range(rounds)]
    await site.stop("normalizer")
    site.say(f"a backlog of {backlog:,} callbacks")
    registration = await site.registration(_FLOOD)
    for _ in range(0, backlog, _AT_ONCE):
        posts = site.traffic.twilio(min(_AT_ONCE, backlog))
        stored = site.traffic.stored(_FLOOD, registration, "Twilio", posts, _GROUP)
        await site.prefill(_FLOOD, [("twilio", one) for one in stored])
    floods = [
        write_for(
            site.folder / f"flood-{round_}.requests",
            site.traffic.twilio(int(_LIMIT * _TIMES * (seconds + 1))),
            keys[_FLOOD],
        )
        for round_ in range(rounds)
    ]
    normalized = Normalized(site.stack.service("normalizer"))
    site.stack.service("normalizer").launch()
    await normalized.until(1)
    flooded = []
    for round_, flood in enumerate(floods):
        site.say(f"a flood of {_LIMIT * _TIMES} callbacks/s, round {round_ + 1} of {rounds}")
        flooded.append(await _flooded(site, flood, keys[_QUIET], seconds))
        if (events := normalized.events()) >= backlog:
            raise LoadError(f"{events} were processed before the flood was over, which shows nothing: make it larger.")
    await site.stop("suppression", "audit", "reconciler", "notifier")
    _report(report, quiet, busy, flooded, backlog)


@contextmanager
def _all_cores_busy() -> Iterator[None]:
    """A process for each core that does nothing, and as much of it as it can."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for one in spinning:
            one.kill()
            one.wait()


async def _flooded(site: Installation, flood: Path, key: str, seconds: float) -> list[Took]:
    """The quiet tenant's probes meanwhile."""
    async with asyncio.TaskGroup() as group:
        # What is over the overdraft, too, is refused.
        flooding = group.create_task(
            RawSockets().paced(flood, site.gateway_port, seconds, _LIMIT * _TIMES, refused=("429",))
        )
        probing = group.create_task(Probes(site, _QUIET, key, int(seconds / PROBE_EVERY_S)).run())
    flooding.result()
    return probing.result()


def _report(
    report: Report, quiet: Sequence[list[Took]], busy: Sequence[list[Took]], flooded: Sequence[list[Took]], backlog: int
) -> None:
    note = (
        f"the greater of POST and readable, of a tenant with {1 / PROBE_EVERY_S:.0f} callbacks/s, while another sends "
        f"{_TIMES} times its limit of {_LIMIT} and has {backlog:,} waiting, over the same alone; all services run"
    )
    names = {"post": "answered_ms", "readable": "readable_ms"}
    p99 = {
        name: [[percentile([getattr(one, of) for one in run], 99) for run in runs] for runs in (quiet, busy, flooded)]
        for name, of in names.items()
    }
    over_quiet, over_busy = ([_ratios(runs[2], runs[base]) for runs in p99.values()] for base in (0, 1))
    report.add("fairness_p99_ratio", _greatest(over_quiet), "ratio", aim="≤ 2", note=note)
    floor = "over the same beside a busy loop on each core in place of the flood"
    report.add("fairness_vs_busy_cores", _greatest(over_busy), "ratio", note=floor)
    for (name, runs), of in zip(p99.items(), over_quiet, strict=True):
        report.add(f"fairness_{name}_p99_ratio", of, "ratio")
        for what, figures, told in zip(("quiet", "busy", "flood"), runs, ("alone", "busy cores", "flood"), strict=True):
            report.add(f"fairness_{name}_{what}_ms_p99", figures, "ms", note=told)


def _ratios(runs: Sequence[float], floors: Sequence[float]) -> list[float]:
    return [run / floor for run, floor in zip(runs, floors, strict=True)]


def _greatest(each: Sequence[Sequence[float]]) -> list[float]:
    return [max(ratios) for ratios in zip(*each, strict=True)]
