"""What audit counts: made once in a process, however often files are begun anew."""

from __future__ import annotations

from backhaul_common import metrics as catalogue
from backhaul_common.metering import Metrics


class Counts:
    """The counters of the catalogue."""

    def __init__(self, metrics: Metrics) -> None:
        self.events = metrics.counter(catalogue.AUDIT_EVENTS_FILED)
        self.repeated = metrics.counter(catalogue.AUDIT_EVENTS_REPEATED)
        self.files = metrics.counter(catalogue.AUDIT_FILES_SEALED)
        self.bytes = metrics.counter(catalogue.AUDIT_BYTES_STORED)
        self.lost = metrics.counter(catalogue.AUDIT_FILES_LOST)
        self.failed = metrics.counter(catalogue.AUDIT_UPLOADS_FAILED)
