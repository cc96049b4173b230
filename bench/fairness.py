"""What one tenant notices of another that sends ten times what it may, and has very much that is not processed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
    quiet = [await Probes(site, _QUIET, keys[_QUIET], int(seconds / PROBE_EVERY_S)).run() for _ in range(rounds)]
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
    _report(report, quiet, flooded, backlog)


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


def _report(report: Report, quiet: Sequence[list[Took]], flooded: Sequence[list[Took]], backlog: int) -> None:
    post, readable = (
        [[percentile([getattr(one, name) for one in run], 99) for run in runs] for runs in (quiet, flooded)]
        for name in ("answered_ms", "readable_ms")
    )
    ratios = [[with_ / without for without, with_ in zip(*both, strict=True)] for both in (post, readable)]
    note = (
        f"the greater of POST and readable, of a tenant with {1 / PROBE_EVERY_S:.0f} callbacks/s, while another sends "
        f"{_TIMES} times its limit of {_LIMIT} and has {backlog:,} waiting, over the same alone; all services run"
    )
    report.add("fairness_p99_ratio", [max(both) for both in zip(*ratios, strict=True)], "ratio", aim="≤ 2", note=note)
    for name, of, p99 in (("post", ratios[0], post), ("readable", ratios[1], readable)):
        report.add(f"fairness_{name}_p99_ratio", of, "ratio")
        report.add(f"fairness_{name}_quiet_ms_p99", p99[0], "ms", note="alone")
        report.add(f"fairness_{name}_flood_ms_p99", p99[1], "ms", note="beside the flood")
