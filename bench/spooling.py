"""What the spool takes while NATS is away, and gives when it is back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
from generators import RawSockets, write_for
from installation import Installation
from report import Report

_TENANT = "spooled"
_FIRST = 64
_LOOK_S = 0.02
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class _Round:
    """Callbacks a second by the clock; CPU seconds of the gateway for each of them, the direct way and by the spool."""

    kept_s: float
    drained_s: float
    direct_cpu_s: float
    kept_cpu_s: float
    drained_cpu_s: float


async def measure(site: Installation, report: Report, *, rounds: int, callbacks: int) -> None:
    """``spool_…``, by as many ``callbacks`` each way and round."""
    await site.ensure("gateway")
    await site.stop("normalizer")
    key = await site.register(_TENANT)
    measured = [await _round(site, key, callbacks) for _ in range(rounds)]
    note = f"{callbacks} posted as fast as they are answered, NATS killed"
    report.add("spool_kept_s", [one.kept_s for one in measured], "callbacks/s", note=note)
    note = "NATS is back, and nothing else comes"
    report.add("spool_drained_s", [one.drained_s for one in measured], "callbacks/s", note=note)
    both = [(one.kept_cpu_s + one.drained_cpu_s) / one.direct_cpu_s for one in measured]
    note = "CPU of the gateway, keeping and draining, over the direct way"
    report.add("spool_cpu_vs_direct", both, "ratio", note=note)
    report.add("spool_kept_cpu_us", [one.kept_cpu_s * 1e6 for one in measured], "us / callback")
    report.add("spool_drained_cpu_us", [one.drained_cpu_s * 1e6 for one in measured], "us / callback")
    report.add("spool_direct_cpu_us", [one.direct_cpu_s * 1e6 for one in measured], "us / callback")


async def _round(site: Installation, key: str, count: int) -> _Round:
    nats = site.stack.member("nats")
    file = write_for(site.folder / "spooled.requests", site.traffic.twilio(count), key)
    few = write_for(site.folder / "first.requests", site.traffic.twilio(_FIRST), key)
    direct, _ = await _posted(site, file)
    await nats.kill()
    try:
        # These find out that it is away.
        await RawSockets().once(few, site.gateway_port)
        kept, kept_s = await _posted(site, file)
    finally:
        before = site.meter.read()
        await nats.start()
    drained, drained_s = await _drained(site)
    return _Round(
        kept_s=count / kept_s,
        drained_s=drained / drained_s,
        direct_cpu_s=direct / count,
        kept_cpu_s=kept / count,
        drained_cpu_s=site.meter.read().since(before)["gateway"] / drained,
    )


async def _posted(site: Installation, file: Path) -> tuple[float, float]:
    """CPU seconds of the gateway, and seconds by the clock, that the requests of ``file`` take."""
    before = site.meter.read()
    loaded = await RawSockets().once(file, site.gateway_port)
    return site.meter.read().since(before)["gateway"], loaded.seconds


async def _drained(site: Installation) -> tuple[int, float]:
    """How many callbacks leave the spool, and in how many seconds from when the first one goes."""
    async with asyncio.timeout(_PATIENCE_S), httpx.AsyncClient() as http:
        whole = left = await _left(site, http)
        began = time.perf_counter()
        while left:
            now = time.perf_counter()
            left = await _left(site, http)
            if left == whole:
                began = now
            await asyncio.sleep(_LOOK_S)
        return whole, time.perf_counter() - began


async def _left(site: Installation, http: httpx.AsyncClient) -> int:
    text = (await http.get(f"{site.stack.gateway_url}/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("backhaul_gateway_spool_callbacks")]
    return int(float(line.rpartition(" ")[2]))
