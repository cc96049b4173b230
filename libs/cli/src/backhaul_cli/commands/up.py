"""``backhaul up``: the local stack, in a checkout of Backhaul."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from backhaul_cli.failing import FailedError

_STACK = "backhaul_local"


def up(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="OPTION", help="As of make up, such as --port gateway_http=8081; behind --."),
    ] = None,
) -> None:
    """Run real servers and every service on this machine until Ctrl-C, as make up does in a checkout of Backhaul.

    Example: backhaul up -- --data-dir /tmp/backhaul
    """
    if find_spec(_STACK) is None:
        raise FailedError(
            "This is no checkout of Backhaul, which alone has the local stack.",
            "In one: make setup, and then .venv/bin/backhaul up; with containers: docker compose -f "
            "deploy/compose/compose.yaml up.",
        )
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", _STACK, "up", *(arguments or [])])  # noqa: S606  # this Python
