"""What subscriptions hold encrypted, as calls need it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from backhaul_proto.notifier.v1 import notifier_pb2 as pb

from backhaul_notifier.model import Subscription
from backhaul_notifier.signing import SigningKey


class Opens(Protocol):
    """Opens what is encrypted. ValueError, which names no value, where no key of the ring does."""

    def credentials(self, subscription: Subscription) -> pb.Credentials:
        """Those of its HTTP destination, plain; empty where it has none."""
        ...

    def keys(self, subscription: Subscription, now_us: int) -> Sequence[SigningKey]:
        """The keys that sign then, newest first."""
        ...
