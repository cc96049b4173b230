"""Events of all tenants from EVENTS: of the kinds that can say something about being contacted."""

from __future__ import annotations

from backhaul_common.feed import Durable, FeedConfig, PullLimits
from backhaul_common.names import CODED_KINDS, EVENTS_STREAM, SUPPRESSION_CONSUMER
from backhaul_common.vocabulary import Words
from backhaul_proto.event.v1.event_pb2 import EventKind

from backhaul_suppression.facts import KINDS
from backhaul_suppression.settings import SuppressionSettings

_WORDS = Words(EventKind.DESCRIPTOR)


def subjects() -> tuple[str, ...]:
    """The filters of these kinds, of every tenant and channel.

    Where a version adds a kind, the consumer hears of those of its events that are published from then on, and of older
    ones only where it has not come so far yet.
    """
    words = sorted(_WORDS.word(kind) for kind in KINDS)
    return tuple(f"events.*.*.{word}.>" if word in CODED_KINDS else f"events.*.*.{word}" for word in words)


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
