"""``python -m backhaul_audit``."""

from backhaul_common.service import main

from backhaul_audit.app import run
from backhaul_audit.settings import AuditSettings

if __name__ == "__main__":
    main(AuditSettings, run)
