"""The last one-shot service of compose.yaml: waits until everything is ready, and says where things are."""

from __future__ import annotations

import os
import sys
import time

from backhaul_common.probe import not_ready

_PATIENCE_S = 300.0
_PAUSE_S = 1.0


def main() -> int:
    targets = sys.argv[1:]
    deadline = time.monotonic() + _PATIENCE_S
    while missing := [said for target in targets if (said := not_ready(target))]:
        if time.monotonic() > deadline:
            sys.stderr.write("\n".join(["Not ready:", *missing, "Look at: docker compose logs", ""]))
            return 1
        time.sleep(_PAUSE_S)
    gateway = os.environ["GATEWAY_URL"]
    sys.stdout.write(
        f"Backhaul is ready.\n"
        f"  gateway      {gateway}   (API documentation: {gateway}/docs)\n"
        f"  console      {gateway}/console   (sign in with the token in deploy/compose/secrets/kept/admin-token)\n"
        f"  admin        curl -H @deploy/compose/secrets/admin-header {gateway}/admin/v1/tenants\n"
        f"  mail         {os.environ['MAIL_URL']}   (what the notifier sent)\n"
        f"  figures      {os.environ['GRAFANA_URL']}   (with --profile observability; user admin, password in "
        "deploy/compose/secrets/kept/grafana-password)\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
