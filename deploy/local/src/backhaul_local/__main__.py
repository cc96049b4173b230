"""``python -m backhaul_local up|demo``: run the local stack, or watch it at work."""

from __future__ import annotations

import asyncio
import importlib
import sys

_COMMANDS = {
    "up": "run the servers and every service until Ctrl-C (up --help shows the flags)",
    "demo": "start a stack of its own, send it real traffic, and check every figure (demo --help shows the flags)",
}


def main(argv: list[str]) -> int:
    if not argv or argv[0] not in _COMMANDS:
        print("usage: python -m backhaul_local <command>")
        for name, purpose in _COMMANDS.items():
            print(f"  {name:<6} {purpose}")
        return 0 if argv in (["-h"], ["--help"]) else 2
    # Each command is a module of this package; only the one that runs is imported.
    command = importlib.import_module(f"backhaul_local.{argv[0]}")
    return int(asyncio.run(command.main(argv[1:])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
