"""Enqueuing: what happened becomes deliveries that wait, each once and in the order of its stream.

``Enqueuer`` is the progress of one stream, and stores with its position what waits since then. ``Subscribers`` are the
subscriptions as both streams' enqueuers ask for them, and ``making`` (pure) makes documents of messages::

    subscribers = Subscribers(database, directory)
    for stream in (EVENTS_STREAM, NOTICES_STREAM):
        enqueuer = Enqueuer(database, stream, subscribers, service.nats, counts, service.tracing)
        readers[stream] = service.follow(stream, enqueuer)
"""

from backhaul_notifier.enqueuing.enqueuer import Counts, Enqueuer
from backhaul_notifier.enqueuing.subscribers import Subscribers

__all__ = ["Counts", "Enqueuer", "Subscribers"]
