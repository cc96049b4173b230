"""``python -m backhaul_reconciler``."""

from backhaul_common.service import main

from backhaul_reconciler.app import run
from backhaul_reconciler.settings import ReconcilerSettings

if __name__ == "__main__":
    main(ReconcilerSettings, run)
