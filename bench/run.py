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
from pathlib import Path

import auditing
import growth
import ingest
import latency
import normalizing
import suppressing
from backhaul_local.errors import LocalStackError
from generators import LoadError, best_generator
from installation import Installation, installation
from report import Report, machine_facts
from rich.console import Console

_LATEST = Path(__file__).with_name("latest.json")
_LIMIT_S = 600
"""Whatever hangs ends here. A run takes less than five minutes."""

Scenario = Callable[[], Awaitable[None]]


def scenarios(site: Installation, report: Report, *, quick: bool) -> dict[str, Scenario]:
    """What can be measured, by the name of its first figure, in its order."""
    generator = best_generator()
    rounds, seconds = (3, 1.0) if quick else (3, 3.0)
    events = 20_000 if quick else 45_000
    return {
        "ingest_vs_empty_route": lambda: ingest.measure_twilio(site, report, generator, rounds=rounds, seconds=seconds),
        "ingest_sendgrid_events_per_core_s": lambda: ingest.measure_sendgrid(
            site, report, generator, rounds=3, seconds=seconds
        ),
        "normalize_events_per_core_s": lambda: normalizing.measure(site, report, rounds=3, events=events),
        "end_to_end_ms": lambda: latency.measure(
            site, report, rounds=3, seconds=2.0 if quick else 5.0, at_most=10_000 if quick else 30_000
        ),
        "suppression_checks_per_s": lambda: suppressing.measure(
            site, report, rounds=rounds, seconds=seconds, rows=100_000 if quick else 1_000_000
        ),
        "optout_visible_ms": lambda: suppressing.measure_visible(
            site, report, rounds=rounds, seconds=2.0 if quick else 5.0, at_most=10_000 if quick else 30_000
        ),
        "audit_events_per_core_s": lambda: auditing.measure(
            site, report, rounds=3, events=50_000 if quick else 150_000
        ),
        "resident_mb": lambda: latency.measure_memory(site, report),
        "growth": lambda: growth.measure(site, report, rounds=3, quick=quick),
    }


async def measure(report: Report, only: Sequence[str], console: Console, *, quick: bool) -> None:
    """Run the scenarios whose names begin as one of ``only`` does, or all."""
    began = time.monotonic()
    task = asyncio.current_task()
    assert task is not None
    # Ended from outside, everything that was started is stopped, and its data removed, all the same.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)

    def say(what: str) -> None:
        console.print(f"{time.monotonic() - began:4.0f} s  {what}", style="dim", highlight=False)

    with tempfile.TemporaryDirectory(prefix="backhaul-bench-", ignore_cleanup_errors=True) as name:
        async with asyncio.timeout(_LIMIT_S), installation(Path(name), say) as site:
            report.machine = machine_facts(
                Path(name),
                nats_version=str(site.nats.connected_server_version).strip("<>"),
                mongo_version=(await site.mongo.server_info())["version"],
            )
            # What consumes EVENTS is measured by itself, and would share the machine with what comes before it.
            await site.stop("suppression", "audit")
            for scenario, run in scenarios(site, report, quick=quick).items():
                if only and not any(wanted.startswith(scenario) or scenario.startswith(wanted) for wanted in only):
                    continue
                say(scenario)
                await run()
            say("stopping")


def main() -> int:
    """Parse the command line, measure, print. Missing an aim is no failure; a wrong answer is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="figures to measure, by name or beginning"
    )
    parser.add_argument("--quick", action="store_true", help="short rounds: shows that it works, not how fast")
    arguments = parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=120)  # A log file has no width of its own.
    report = Report(best_generator().name, quick=arguments.quick)
    began = time.monotonic()
    try:
        asyncio.run(measure(report, arguments.only, console, quick=arguments.quick))
    except (LoadError, LocalStackError, TimeoutError) as exc:
        console.print(f"[bold red]The run failed, its figures mean nothing:[/] {str(exc) or type(exc).__name__}")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("Interrupted: nothing was written.")
        return 130
    report.machine["seconds"] = round(time.monotonic() - began)
    report.machine["backhaul"] = importlib.metadata.version("backhaul-gateway")
    report.show(console)
    report.write(_LATEST)
    console.print(f"Written to {_LATEST}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
