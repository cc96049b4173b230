"""Messages of a stream for one consumer, fairly."""

from backhaul_common.feed.buffers import FairBuffers
from backhaul_common.feed.fair import FairFeed, FeedConfig
from backhaul_common.feed.message import StreamMessage
from backhaul_common.feed.pull import Durable, PullConsumer, PullLimits

__all__ = ["Durable", "FairBuffers", "FairFeed", "FeedConfig", "PullConsumer", "PullLimits", "StreamMessage"]
