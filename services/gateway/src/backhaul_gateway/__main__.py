"""``python -m backhaul_gateway``."""

from backhaul_common.service import main

from backhaul_gateway.app import run
from backhaul_gateway.settings import GatewaySettings

if __name__ == "__main__":
    main(GatewaySettings, run)
