"""What services have logged as an error."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_LEVELS = {"error", "critical"}
MAX_SAID = 600
"""Letters that are shown of a line."""


def errors(logs: Iterable[Path]) -> list[str]:
    """Each kind of line once, with how often it stands in which of ``logs``. A line that is no JSON is one:
    services write such only where something ends them."""
    found: Counter[tuple[Path, str]] = Counter()
    first: dict[tuple[Path, str], str] = {}
    for path in logs:
        for line in path.read_text("utf-8", "replace").splitlines() if path.exists() else ():
            if (kind := _kind(line)) is not None:
                found[path, kind] += 1
                first.setdefault((path, kind), line[:MAX_SAID])
    return [
        f"{path.parent.name}/{path.name} says {count} times: {first[path, kind]}"
        for (path, kind), count in found.items()
    ]


def _kind(line: str) -> str | None:
    """The event of a line that tells an error; the line itself where it is no JSON; otherwise None."""
    try:
        said = json.loads(line)
    except ValueError:
        return line
    return str(said.get("event")) if said.get("level") in _LEVELS else None
