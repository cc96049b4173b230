"""``python -m backhaul_notifier``."""

from backhaul_common.service import main

from backhaul_notifier.app import run
from backhaul_notifier.settings import NotifierSettings

if __name__ == "__main__":
    main(NotifierSettings, run)
