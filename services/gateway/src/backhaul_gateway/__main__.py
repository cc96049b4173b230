"""``python -m backhaul_gateway``."""

from __future__ import annotations

from functools import partial

from backhaul_common.lifecycle import run
from backhaul_common.settings import load

from backhaul_gateway.app import serve
from backhaul_gateway.settings import GatewaySettings


def main() -> None:
    """Read the settings and serve until told to stop."""
    run(partial(serve, load(GatewaySettings)))


if __name__ == "__main__":
    main()
