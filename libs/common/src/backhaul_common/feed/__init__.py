"""Messages of a stream, for a consumer: shared by acknowledgements, or followed by position.

**Shared**, for services whose copies work side by side and whose messages may come in any order. ``FairFeed`` gives
batches in equal shares of bytes; ``Batches`` reads, commits, publishes and acknowledges them, and has what fails
delivered again, or set aside. Whatever is committed must be the same when it is committed twice::

    feed = FairFeed(client, js, FeedConfig(Durable("EVENTS", "suppression", ("events.*.*.unsubscribed",))))
    batches = Batches("suppression", feed, work, tracing, put_back.add)
    service.on_connected("feed", feed.reconnected)
    service.run("feed", feed.run, after=service.prepared)
    service.run("batches", batches.run, after=service.prepared)

``FeedConfig.path_bytes`` None parks nothing: right where no tenant's messages are many. ``admit`` refuses messages
before they are buffered.

**Followed**, for services whose progress is a position that they store with their results. ``PositionReader`` gives
batches in order and without gaps; ``Follower`` applies them to a ``Progress``, of which ``MongoProgress`` is one::

    service.follow("EVENTS", progress)

One chain of several (a tenant's files, say) is a reader and a follower of its own with ``filter_subjects``; which copy
owns a chain is the service's to say, in ``Progress.position`` and by the condition under which ``Progress.apply``
stores.

Readiness asks ``check`` of whatever gives the messages, and of ``Batches``.

What stands beneath: ``PullConsumer`` (asks, and reads statuses, for any consumer), ``FairBuffers`` (pure), ``formats``
(what nats-server says).
"""

from backhaul_common.feed.buffers import FairBuffers
from backhaul_common.feed.fair import FairFeed, FeedConfig
from backhaul_common.feed.message import StreamMessage
from backhaul_common.feed.positions import PositionReader, ReaderConfig
from backhaul_common.feed.pull import Durable, PullConsumer, PullLimits

__all__ = [
    "Durable",
    "FairBuffers",
    "FairFeed",
    "FeedConfig",
    "PositionReader",
    "PullConsumer",
    "PullLimits",
    "ReaderConfig",
    "StreamMessage",
]
