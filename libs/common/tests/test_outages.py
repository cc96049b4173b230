"""What counts as expected, and how often it is said."""

from __future__ import annotations

import nats.errors
import nats.js.errors
import pytest
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.outages import REPEAT_S, Repeated, is_outage
from pymongo.errors import AutoReconnect, DuplicateKeyError, OperationFailure
from structlog.testing import capture_logs


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (unavailable("MongoDB"), True),
        (BackhaulError(Code.DEADLINE_EXCEEDED, "slow"), True),
        (AutoReconnect("gone"), True),
        (OperationFailure("no space left", 14031), True),
        (TimeoutError(), True),
        (ConnectionRefusedError(), True),
        (nats.errors.NoServersError(), True),
        (nats.errors.FlushTimeoutError(), True),
        (nats.js.errors.ServiceUnavailableError(), True),
        (nats.errors.MaxPayloadError(), False),
        (OSError(28, "No space left on device"), True),
        (FileNotFoundError(), False),
        (NotADirectoryError(), False),
        (nats.errors.BadSubjectError(), False),
        (BackhaulError(Code.INTERNAL, "?"), False),
        (DuplicateKeyError("taken", 11000), False),
        (ValueError("x"), False),
    ],
)
def test_what_passes_by_itself(exc: Exception, expected: bool) -> None:
    assert is_outage(exc) is expected


def test_what_goes_on_is_said_once_a_minute_and_at_its_end() -> None:
    now = 1000.0
    with capture_logs() as lines:
        full = Repeated("stream_full", clock=lambda: now, component="publisher")
        full.over()  # Of what never was nothing is said.
        for _ in range(7013):
            full.error("maximum bytes exceeded")
        now += REPEAT_S + 0.5
        full.error("maximum bytes exceeded", subject="callbacks.acme.twilio")
        full.error("maximum bytes exceeded")
        now += 1
        full.warning("no leader")
        full.over()
        full.over()
        full.warning("no leader")
    said = [(line["event"], line["log_level"], line["times"]) for line in lines]
    assert said == [
        ("stream_full", "error", 1),
        ("stream_full", "error", 7014),
        ("stream_full", "warning", 7016),
        ("stream_full_over", "info", 7016),
        ("stream_full", "warning", 1),
    ]
    assert lines[1]["subject"] == "callbacks.acme.twilio"
    assert lines[3]["lasted_s"] == 61.5
    assert {line["component"] for line in lines} == {"publisher"}
