"""Looks at an image from inside, for run_containers.py: ``python -c … <service>``. Prints JSON."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from importlib.metadata import distributions
from pathlib import Path


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def reached(root: str, installed: dict[str, list[str]]) -> set[str]:
    """What ``root`` declares, and what that does, of ``installed``: the requirements of each package by its name."""
    found: set[tuple[str, str]] = set()
    ahead = [(root, "")]
    while ahead:
        one = ahead.pop()
        if one in found or one[0] not in installed:
            continue
        found.add(one)
        for requirement in installed[one[0]]:
            named = re.match(r"([\w.-]+)\s*(?:\[([^]]*)\])?", requirement)
            wanted = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
            if named and (wanted is None or wanted[1] == one[1]):
                ahead += [(normal(named[1]), extra.strip()) for extra in ("", *(named[2] or "").split(","))]
    return {name for name, _ in found}


def main() -> None:
    service = sys.argv[1]
    installed = {normal(one.metadata["Name"]): one.requires or [] for one in distributions()}
    told = {
        "user": os.getuid(),
        "packages": sorted(installed),
        "surplus": sorted(installed.keys() - reached(f"backhaul-{service}", installed)),
        "tools": [name for name in ("pip", "gcc", "uv") if shutil.which(name)],
        "bill": json.loads(Path(sys.prefix, "sbom.cdx.json").read_text("utf-8"))["components"],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
