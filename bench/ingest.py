"""The gateway alone: verified callbacks answered after the durable acknowledgement, against an empty route."""

from __future__ import annotations

from pathlib import Path

import chain
from generators import CONNECTIONS, Generator, Loaded, LoadError, write_for
from installation import Installation
from report import Report
from traffic import EVENTS_A_POST

_PUBLISHED = 10
"""How often each post is published for a floor."""
_ALONE = "normalizer stopped: the generator, the gateway and nats-server share the cores"


async def measure_twilio(
    site: Installation, report: Report, generator: Generator, *, rounds: int, seconds: float
) -> None:
    """``ingest_vs_empty_route`` and what belongs to it: gateway and empty routes in turn, with the same bytes."""
    await site.ensure("gateway", "plain_route", "bare_route")
    await site.stop("normalizer")
    key = await site.register("ingest-twilio")
    file = write_for(site.folder / "twilio.requests", site.traffic.twilio(3000), key)
    ports = {"plain_route": site.plain_route_port, "bare_route": site.bare_route_port}
    for port in (site.gateway_port, *ports.values()):
        await generator.run(file, port, 1)  # Connections, verifiers and memory are there from here on.
    ours: list[tuple[Loaded, dict[str, float]]] = []
    empty: dict[str, list[tuple[Loaded, dict[str, float]]]] = {name: [] for name in ports}
    for _ in range(rounds):
        ours.append(await _gateway_round(site, generator, file, "ingest-twilio", seconds))
        for name, port in ports.items():
            empty[name].append(await _route_round(site, generator, file, port, seconds))
        await site.purge_callbacks()
    for name, route, aim, note in (
        ("ingest_vs_empty_route", "plain_route", "≥ 1.4", f"FastAPI(), @app.post, the body is read; {_ALONE}"),
        (
            "ingest_vs_bare_route",
            "bare_route",
            "",
            "its telemetry off, a Response returned: the least that it can cost",
        ),
    ):
        pairs = list(zip(ours, empty[route], strict=True))
        rates = [our.per_second / other.per_second for (our, _), (other, _) in pairs]
        report.add(name, rates, "ratio of requests/s", aim=aim, note=note)
        cpu = [our["gateway"] / other[route] for (_, our), (_, other) in pairs]
        report.add(name.replace("_vs_", "_cpu_vs_"), cpu, "ratio of CPU", note="of the gateway's, a request")
    report.add("ingest_twilio_callbacks_s", [one.per_second for one, _ in ours], "callbacks/s")
    for name, runs in empty.items():
        report.add(f"{name}_requests_s", [one.per_second for one, _ in runs], "requests/s")
    report.add("ingest_twilio_ms_p50", [one.p50_ms for one, _ in ours], "ms", note="at full load")
    report.add("ingest_twilio_ms_p99", [one.p99_ms for one, _ in ours], "ms", note="at full load")
    report.add(
        "load_generator_share",
        [one.cpu_s / one.seconds for one, _ in (*ours, *(run for runs in empty.values() for run in runs))],
        "of a core",
        note="what the generator takes; it limits nothing while it is well below 1",
    )
    report.cost("ingest, Twilio", "callbacks", [cost for _, cost in ours])
    for name, runs in empty.items():
        report.cost(name.replace("_", " "), "requests", [cost for _, cost in runs])
    await site.stop("plain_route", "bare_route")


async def measure_sendgrid(
    site: Installation, report: Report, generator: Generator, *, rounds: int, seconds: float
) -> None:
    """``sendgrid_vs_floor`` and what belongs to it: gateway and the signed route in turn, with the same bytes."""
    await site.ensure("gateway", "signed_route")
    await site.stop("normalizer")
    key = await site.register("ingest-sendgrid")
    posts = site.traffic.sendgrid(100)
    file = write_for(site.folder / "sendgrid.requests", posts, key)
    for port in (site.gateway_port, site.signed_route_port):
        await generator.run(file, port, 1)
    measured, floors, published = [], [], []
    for _ in range(rounds):
        measured.append(await _gateway_round(site, generator, file, "ingest-sendgrid", seconds))
        await site.purge_callbacks()  # 27 KB a post: a round leaves hundreds of megabytes.
        floors.append(await _route_round(site, generator, file, site.signed_route_port, seconds))
        published.append(await chain.published_us(site, [post.body for post in posts] * _PUBLISHED))
    report.add(
        "sendgrid_vs_floor",
        [ours["gateway"] / floor["signed_route"] for (_, ours), (_, floor) in zip(measured, floors, strict=True)],
        "ratio of CPU",
        aim="≤ 1.5",
        note="of the gateway's, a post, over an ASGI app without a framework that verifies the post's ECDSA signature",
    )
    report.add(
        "sendgrid_vs_storing",
        [
            ours["gateway"] * 1000 / (floor["signed_route"] * 1000 + us)
            for (_, ours), (_, floor), us in zip(measured, floors, published, strict=True)
        ],
        "ratio of CPU",
        note="over that app and nats-py, which publishes the post to JetStream: what it takes to keep it as well",
    )
    report.add("sendgrid_published_us", published, "us / post", note="CPU of nats-py for that, 64 at once")
    report.add(
        "ingest_sendgrid_events_per_core_s",
        [EVENTS_A_POST * 1000 / cost["gateway"] for _, cost in measured],
        "events / CPU s",
        aim="≥ 400,000",
        note=f"posts of {EVENTS_A_POST} events; CPU of the gateway; {_ALONE}",
    )
    report.add("ingest_sendgrid_posts_s", [one.per_second for one, _ in measured], "posts/s")
    report.cost("ingest, SendGrid", "posts", [cost for _, cost in measured])
    report.cost("signed route", "posts", [cost for _, cost in floors])
    await site.stop("signed_route")


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


async def _route_round(
    site: Installation, generator: Generator, file: Path, port: int, seconds: float
) -> tuple[Loaded, dict[str, float]]:
    before = site.meter.read()
    loaded = await generator.run(file, port, seconds)
    return loaded, _costs(site.meter.read().per_1000(before, loaded.answered), loaded)


def _costs(per_1000: dict[str, float], loaded: Loaded) -> dict[str, float]:
    return {**per_1000, "load": loaded.cpu_s / loaded.answered * 1000}
