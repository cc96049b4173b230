"""Events of all tenants from EVENTS: of the kinds that can say something about being contacted."""

from __future__ import annotations

from backhaul_common.feed import Durable, FeedConfig, PullLimits
from backhaul_common.names import CODED_KINDS, EVENTS_STREAM, SUPPRESSION_CONSUMER

from backhaul_suppression.settings import SuppressionSettings

KINDS = (
    "answered",
    "bounced",
    "complained",
    "completed",
    "delivered",
    "failed",
    "inbound",
    "rejected",
    "subscribed",
    "undelivered",
    "unsubscribed",
)
"""The words of these kinds. Whoever adds one here has read all that lies in the stream of those before: the consumer
hears of the new one's events from then on."""


def subjects() -> tuple[str, ...]:
    """The filters of these kinds, of every tenant and channel."""
    return tuple(f"events.*.*.{kind}.>" if kind in CODED_KINDS else f"events.*.*.{kind}" for kind in KINDS)


def feed_config(settings: SuppressionSettings) -> FeedConfig:
    """What ``settings`` say of the feed."""
    return FeedConfig(
        Durable(
            EVENTS_STREAM,
            SUPPRESSION_CONSUMER,
            subjects(),
            ack_wait_s=settings.suppression_ack_wait_s,
            max_pending=settings.suppression_max_pending,
        ),
        PullLimits(bytes=settings.suppression_pull_bytes),
        batch_bytes=settings.suppression_batch_bytes,
    )
