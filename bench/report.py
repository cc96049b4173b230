"""What was measured: the figures, their table, and ``latest.json``."""

from __future__ import annotations

import importlib.metadata
import json
import operator
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

_COMPARISONS = {"≥": operator.ge, "≤": operator.le}
PROCESSES = (
    "gateway",
    "nats",
    "mongod",
    "normalizer",
    "reconciler",
    "suppression",
    "notifier",
    "plain_route",
    "bare_route",
    "signed_route",
    "load",
)


@dataclass(frozen=True)
class Figure:
    """One number: the median of ``runs``. ``aim`` is like ``≥ 1.0``, or empty where there is none."""

    name: str
    value: float
    unit: str
    aim: str
    runs: Sequence[float]
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        if not self.aim:
            return None
        sign, number = self.aim.split()
        return bool(_COMPARISONS[sign](self.value, float(number.replace(",", ""))))


@dataclass(frozen=True)
class Cost:
    """CPU seconds of each process per 1,000 ``unit``: medians over the rounds."""

    of: str
    unit: str
    seconds: Mapping[str, float]


class Report:
    """Collects figures, and shows and writes them."""

    def __init__(self, load_generator: str, *, quick: bool) -> None:
        self._load_generator = load_generator
        self._quick = quick
        self.figures: list[Figure] = []
        self.costs: list[Cost] = []
        self.machine: dict[str, object] = {}

    def add(self, name: str, runs: Sequence[float], unit: str, *, aim: str = "", note: str = "") -> None:
        """The figure ``name``, measured once for each of ``runs``."""
        self.figures.append(Figure(name, median(runs), unit, aim, list(runs), note))

    def cost(self, of: str, unit: str, rounds: Sequence[Mapping[str, float]]) -> None:
        """What 1,000 ``unit`` cost each process, in each round."""
        names = [name for name in PROCESSES if any(name in one for one in rounds)]
        self.costs.append(Cost(of, unit, {name: median(one.get(name, 0.0) for one in rounds) for name in names}))

    def show(self, console: Console) -> None:
        """Print the tables."""
        title = "Backhaul, measured" + (" (quick: short rounds, rough figures)" if self._quick else "")
        table = Table(title=title, caption=f"Load generator: {self._load_generator}. Value: median of the runs.")
        table.add_column("figure", no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        table.add_column("unit")
        table.add_column("aim", justify="right", no_wrap=True)
        table.add_column("runs")
        for figure in self.figures:
            colour = {True: "green", False: "red", None: "default"}[figure.met]
            runs = f"{len(figure.runs)}: {_number(min(figure.runs))} … {_number(max(figure.runs))}"
            table.add_row(
                figure.name,
                f"[{colour}]{_number(figure.value)}[/]",
                figure.unit,
                figure.aim,
                runs if len(figure.runs) > 1 else "1",
            )
        console.print(table)
        for figure in self.figures:
            if figure.note:
                console.print(f"[bold]{figure.name}[/]: {figure.note}")
        costs = Table(title="CPU seconds of each process per 1,000")
        costs.add_column("while measuring")
        costs.add_column("of")
        processes = [name for name in PROCESSES if any(name in cost.seconds for cost in self.costs)]
        for process in processes:
            costs.add_column(process.replace("_", " "), justify="right")
        for cost in self.costs:
            cells = [f"{cost.seconds[name]:.4f}" if name in cost.seconds else "" for name in processes]
            costs.add_row(cost.of, cost.unit, *cells)
        console.print(costs)
        console.print(", ".join(f"{name}: {value}" for name, value in self.machine.items()))

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        content = {
            "figures": [asdict(figure) | {"met": figure.met} for figure in self.figures],
            "cpu_seconds_per_1000": [asdict(cost) for cost in self.costs],
            "load_generator": self._load_generator,
            "quick": self._quick,
            "machine": self.machine,
        }
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def machine_facts(folder: Path, *, nats_version: str, mongo_version: str) -> dict[str, object]:
    """What the figures depend on. ``folder`` holds the servers' data: an fsync takes what its disk takes."""
    mounts = [one for one in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(one.mountpoint)]
    nearest = max(mounts, key=lambda one: len(one.mountpoint), default=None)
    return {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "file_system": nearest.fstype if nearest is not None else "unknown",
        "python": platform.python_version(),
        "nats_server": nats_version,
        "mongod": mongo_version,
        **{name: importlib.metadata.version(name) for name in ("fastapi", "uvicorn", "uvloop", "nats-py", "pymongo")},
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
