"""``python -m backhaul_normalizer``: settings, then run."""

from backhaul_common.lifecycle import run
from backhaul_common.settings import load

from backhaul_normalizer import app
from backhaul_normalizer.settings import NormalizerSettings

if __name__ == "__main__":
    settings = load(NormalizerSettings)
    run(lambda stop: app.run(settings, stop))
