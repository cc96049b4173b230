"""The gateway alone: verified callbacks answered after the durable acknowledgement, against an empty route."""

from __future__ import annotations

from pathlib import Path

from generators import CONNECTIONS, Generator, Loaded, LoadError, write_for
from installation import Installation
from report import Report
from traffic import EVENTS_A_POST

_ALONE = "normalizer stopped: the generator, the gateway and nats-server share the cores"


async def measure_twilio(
    site: Installation, report: Report, generator: Generator, *, rounds: int, seconds: float
) -> None:
    """``ingest_vs_empty_route`` and what belongs to it: gateway and empty route in turn, with the same bytes."""
    await site.ensure("gateway", "empty_route")
    await site.stop("normalizer")
    key = await site.register("ingest-twilio")
    file = write_for(site.folder / "twilio.requests", site.traffic.twilio(3000), site.host, key)
    await generator.run(file, site.gateway_port, 1)  # Connections, verifiers and memory are there from here on.
    await generator.run(file, site.empty_route_port, 1)
    ours: list[tuple[Loaded, dict[str, float]]] = []
    empty: list[tuple[Loaded, dict[str, float]]] = []
    for _ in range(rounds):
        ours.append(await _gateway_round(site, generator, file, "ingest-twilio", seconds))
        before = site.meter.read()
        loaded = await generator.run(file, site.empty_route_port, seconds)
        empty.append((loaded, _costs(site.meter.read().per_1000(before, loaded.answered), loaded)))
        await site.purge_callbacks()
    pairs = list(zip(ours, empty, strict=True))
    report.add(
        "ingest_vs_empty_route",
        [our.per_second / other.per_second for (our, _), (other, _) in pairs],
        "ratio of requests/s",
        aim="≥ 1.0",
        note=_ALONE,
    )
    report.add(
        "ingest_cpu_vs_empty_route",
        [our["gateway"] / other["empty_route"] for (_, our), (_, other) in pairs],
        "ratio of CPU",
        note="gateway's CPU a callback over the empty route's CPU a request",
    )
    report.add("ingest_twilio_callbacks_s", [one.per_second for one, _ in ours], "callbacks/s")
    report.add("empty_route_requests_s", [one.per_second for one, _ in empty], "requests/s")
    report.add("ingest_twilio_ms_p50", [one.p50_ms for one, _ in ours], "ms", note="at full load")
    report.add("ingest_twilio_ms_p99", [one.p99_ms for one, _ in ours], "ms", note="at full load")
    report.add(
        "load_generator_share",
        [one.cpu_s / one.seconds for one, _ in ours + empty],
        "of a core",
        note="what the generator takes; it limits nothing while it is well below 1",
    )
    report.cost("ingest, Twilio", "callbacks", [cost for _, cost in ours])
    report.cost("empty route", "requests", [cost for _, cost in empty])


async def measure_sendgrid(
    site: Installation, report: Report, generator: Generator, *, rounds: int, seconds: float
) -> None:
    """``ingest_sendgrid_events_per_core_s``."""
    await site.ensure("gateway")
    await site.stop("normalizer")
    key = await site.register("ingest-sendgrid")
    file = write_for(site.folder / "sendgrid.requests", site.traffic.sendgrid(100), site.host, key)
    await generator.run(file, site.gateway_port, 1)
    measured = []
    for _ in range(rounds):
        measured.append(await _gateway_round(site, generator, file, "ingest-sendgrid", seconds))
        await site.purge_callbacks()  # 27 KB a post: a round leaves hundreds of megabytes.
    report.add(
        "ingest_sendgrid_events_per_core_s",
        [EVENTS_A_POST * 1000 / cost["gateway"] for _, cost in measured],
        "events / CPU s",
        aim="≥ 400,000",
        note=f"posts of {EVENTS_A_POST} events; CPU of the gateway; {_ALONE}",
    )
    report.add("ingest_sendgrid_posts_s", [one.per_second for one, _ in measured], "posts/s")
    report.cost("ingest, SendGrid", "posts", [cost for _, cost in measured])


async def _gateway_round(
    site: Installation, generator: Generator, file: Path, tenant: str, seconds: float
) -> tuple[Loaded, dict[str, float]]:
    stored = await site.stored(tenant)
    before = site.meter.read()
    loaded = await generator.run(file, site.gateway_port, seconds)
    costs = _costs(site.meter.read().per_1000(before, loaded.answered), loaded)
    # The generator ends with requests under way, at most one a connection: stored, but not counted by it.
    counted = await site.stored(tenant) - stored
    if not loaded.answered <= counted <= loaded.answered + CONNECTIONS:
        raise LoadError(f"{loaded.answered} callbacks were answered with 200, the gateway stored {counted}.")
    return loaded, costs


def _costs(per_1000: dict[str, float], loaded: Loaded) -> dict[str, float]:
    return {**per_1000, "load": loaded.cpu_s / loaded.answered * 1000}
