"""``python -m backhaul_suppression``."""

from backhaul_common.service import main

from backhaul_suppression.app import run
from backhaul_suppression.settings import SuppressionSettings

if __name__ == "__main__":
    main(SuppressionSettings, run)
