"""Measure a real stack: ``python bench/run.py [--quick] [--only NAME…]``. Prints a table, writes bench/latest.json."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import auditing
import fairness
import hot
import ingest
import latency
import members
import normalizing
import notifying
import optouts
import reconciling
import spooling
import storage
import suppressing
import tenants
from backhaul_local.errors import LocalStackError
from generators import LoadError, best_generator
from installation import Installation, installation
from report import Report, machine_facts
from rich.console import Console
from rich.markup import escape
from routes import EMPTY_ROUTES

_LATEST = Path(__file__).with_name("latest.json")
_LIMIT_S = 1200
"""Whatever hangs ends here. A run takes less than twelve minutes."""

_MILLION_LIMIT_S = 4800
_MILLION, _MANY, _WAITING = 1_000_000, 20_000, 50_000


@dataclass(frozen=True)
class Scenario:
    """What is measured together: ``figures`` begin as these do."""

    figures: Sequence[str]
    run: Callable[[Installation, Report], Awaitable[None]]

    def has(self, name: str) -> bool:
        """Whether ``name`` is one of the figures, or the beginning of one."""
        return any(name.startswith(figure) or figure.startswith(name) for figure in self.figures)


def scenarios(*, quick: bool, million: bool) -> list[Scenario]:
    """What can be measured, in its order."""
    generator = best_generator()
    rounds, seconds = (3, 1.0) if quick else (3, 3.0)
    return [
        Scenario(
            ["ingest_vs_", "ingest_cpu_vs_", "ingest_twilio_", "plain_route_", "bare_route_", "load_generator_share"],
            lambda site, report: ingest.measure_twilio(site, report, generator, rounds=rounds, seconds=seconds),
        ),
        Scenario(
            ["sendgrid_vs_floor", "ingest_sendgrid_"],
            lambda site, report: ingest.measure_sendgrid(site, report, generator, rounds=rounds, seconds=seconds),
        ),
        Scenario(
            ["normalizer_vs_codecs", "normalizer_codecs_us", "normalize_"],
            lambda site, report: normalizing.measure(site, report, rounds=rounds, events=20_000 if quick else 45_000),
        ),
        Scenario(
            ["two_copies_cost"],
            lambda site, report: hot.measure(site, report, rounds=rounds, events=6_000 if quick else 12_000),
        ),
        Scenario(
            ["members_"],
            lambda site, report: members.measure_registering(
                site, report, rounds=rounds, members=10_000 if quick else 20_000
            ),
        ),
        Scenario(
            ["join_cost"],
            lambda site, report: members.measure_joining(
                site, report, rounds=rounds, messages=2_000 if quick else 4_000
            ),
        ),
        Scenario(
            ["many_members_"],
            lambda site, report: members.measure_many(site, report, members=_MILLION if million else _MANY),
        ),
        Scenario(
            ["end_to_end_", "pipeline_"],
            lambda site, report: latency.measure(
                site, report, rounds=rounds, seconds=2.0 if quick else 5.0, at_most=10_000 if quick else 30_000
            ),
        ),
        Scenario(
            ["suppression_", "check_vs_"],
            lambda site, report: suppressing.measure(
                site, report, rounds=rounds, seconds=seconds, rows=100_000 if quick else 1_000_000
            ),
        ),
        Scenario(
            ["optout_visible_"],
            lambda site, report: optouts.measure(
                site, report, rounds=rounds, seconds=2.0 if quick else 5.0, at_most=10_000 if quick else 30_000
            ),
        ),
        Scenario(
            ["audit_"],
            lambda site, report: auditing.measure(site, report, rounds=rounds, events=50_000 if quick else 150_000),
        ),
        Scenario(
            ["reconcile_", "truth_"],
            lambda site, report: reconciling.measure(
                site,
                report,
                rounds=rounds,
                known=10_000 if quick else 20_000,
                lost=2_000 if quick else 3_000,
            ),
        ),
        Scenario(
            ["deliveries_", "event_to_endpoint_", "isolation_"],
            lambda site, report: notifying.measure(
                site, report, rounds=rounds, events=2_000 if quick else 5_000, seconds=2.0 if quick else 4.0
            ),
        ),
        Scenario(
            ["many_waiting_"],
            lambda site, report: notifying.measure_waiting(site, report, waiting=_MILLION if million else _WAITING),
        ),
        Scenario(
            ["fairness_"],
            lambda site, report: fairness.measure(
                site, report, rounds=rounds, seconds=2.0 if quick else 5.0, backlog=120_000 if quick else 200_000
            ),
        ),
        Scenario(
            ["spool_"],
            lambda site, report: spooling.measure(site, report, rounds=rounds, callbacks=4_000 if quick else 10_000),
        ),
        Scenario(["resident_mb"], latency.measure_memory),
        Scenario(
            ["growth_store", "mongod_vs_floor", "mongod_floor_us", "read_", "console_page_"],
            lambda site, report: storage.measure(
                site, report, rounds=rounds, stored=100_000 if quick else 1_000_000, events=15_000 if quick else 20_000
            ),
        ),
        # Last: it removes every other tenant.
        Scenario(
            ["growth_tenants", "fsyncs_per_"],
            lambda site, report: tenants.measure(site, report, rounds=rounds, callbacks=4_500 if quick else 6_000),
        ),
    ]


async def measure(report: Report, wanted: Sequence[Scenario], console: Console, limit_s: float) -> list[str]:
    """Run them on a stack that is started for it. What fails is answered in words, and keeps no other from running."""
    failed = []
    began = time.monotonic()
    task = asyncio.current_task()
    assert task is not None
    # Ended from outside, everything that was started is stopped, and its data removed, all the same.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)

    def say(what: str) -> None:
        console.print(f"{time.monotonic() - began:4.0f} s  {what}", style="dim", highlight=False)

    with tempfile.TemporaryDirectory(prefix="backhaul-bench-", ignore_cleanup_errors=True) as name:
        async with asyncio.timeout(limit_s), installation(Path(name), say) as site:
            report.machine = machine_facts(
                Path(name),
                nats_version=str(site.nats.connected_server_version).strip("<>"),
                mongo_version=(await site.mongo.server_info())["version"],
            )
            # What is measured by itself would share the machine with what comes before it.
            await site.stop("suppression", "audit", "reconciler", "notifier", *(route.name for route in EMPTY_ROUTES))
            for scenario in wanted:
                figures = ", ".join(f"{figure}…" for figure in scenario.figures)
                say(figures)
                try:
                    await scenario.run(site, report)
                except LoadError as exc:
                    failed.append(f"{figures}: {exc}")
                    say(f"failed: {escape(str(exc))}")
            say("stopping")
    return failed


def main() -> int:
    """Parse the command line, measure, print. Missing an aim is no failure; a wrong answer is."""
    parser = argparse.ArgumentParser(description=__doc__)
    only = "figures to measure, by name or beginning"
    parser.add_argument("--only", nargs="+", action="extend", default=[], metavar="NAME", help=only)
    parser.add_argument("--quick", action="store_true", help="short rounds: shows that it works, not how fast")
    parser.add_argument("--million", action="store_true", help=f"many_… with a million, not {_MANY:,} or {_WAITING:,}")
    arguments = parser.parse_args()
    every = scenarios(quick=arguments.quick, million=arguments.million)
    if unknown := [name for name in arguments.only if not any(scenario.has(name) for scenario in every)]:
        known = ", ".join(f"{figure}…" for scenario in every for figure in scenario.figures)
        parser.error(f"no figure is called or begins with {', '.join(unknown)}; they begin with {known}")
    wanted = [one for one in every if not arguments.only or any(map(one.has, arguments.only))]
    console = Console() if sys.stdout.isatty() else Console(width=120)  # A log file has no width of its own.
    report = Report(best_generator().name, quick=arguments.quick)
    began = time.monotonic()
    try:
        failed = asyncio.run(measure(report, wanted, console, _MILLION_LIMIT_S if arguments.million else _LIMIT_S))
    except (LocalStackError, TimeoutError) as exc:
        console.print(f"[bold red]The run failed, and nothing was written:[/] {str(exc) or type(exc).__name__}")
        if report.figures:
            console.print("What had been measured before, which may have failed for the same reason:")
            report.show(console)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("Interrupted: nothing was written.")
        return 130
    report.machine["seconds"] = round(time.monotonic() - began)
    report.machine["backhaul"] = importlib.metadata.version("backhaul-gateway")
    report.show(console)
    if failed:
        console.print("[bold red]Not all could be measured, so nothing was written:[/]")
        for problem in failed:
            console.print(f"- {problem}", markup=False, highlight=False)
        return 1
    report.write(_LATEST)
    console.print(f"Written to {_LATEST}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
