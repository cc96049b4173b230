"""``python -m backhaul_normalizer``."""

from backhaul_common.service import main

from backhaul_normalizer.app import run
from backhaul_normalizer.settings import NormalizerSettings

if __name__ == "__main__":
    main(NormalizerSettings, run)
