"""The empty routes as services of the stack, beside Backhaul's own."""

from __future__ import annotations

from pathlib import Path

from backhaul_local.service import ServiceSpec
from empty_route import BARE, PLAIN, SIGNED

EMPTY_ROUTES = [
    ServiceSpec(
        name=f"{kind}_route",
        module="empty_route",
        ports={"http": port},
        env={
            "BENCH_EMPTY_ROUTE": kind,
            "BENCH_EMPTY_ROUTE_PORT": "{http}",
            "PYTHONPATH": str(Path(__file__).parent).replace("{", "{{"),
        },
        http_port="http",
    )
    for kind, port in ((PLAIN, 8098), (BARE, 8099), (SIGNED, 8097))
]
