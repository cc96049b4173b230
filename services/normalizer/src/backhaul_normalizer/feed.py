"""Callbacks of all tenants from CALLBACKS, and what becomes of those that lie under nobody's queue path."""

from __future__ import annotations

from collections import Counter

from backhaul_common.feed import Durable, FairFeed, FeedConfig, PullLimits, StreamMessage
from backhaul_common.names import (
    CALLBACKS_STREAM,
    CANARY_SUBJECT,
    HELD_SUFFIX,
    NORMALIZER_CONSUMER,
    queue_path_key,
)
from backhaul_common.tenants import Tenant
from nats.aio.client import Client
from nats.js import JetStreamContext

from backhaul_normalizer.ports import Tenants
from backhaul_normalizer.settings import NormalizerSettings
from backhaul_normalizer.unowned import Unowned


def feed_config(settings: NormalizerSettings) -> FeedConfig:
    """What ``settings`` say of the feed."""
    return FeedConfig(
        Durable(
            CALLBACKS_STREAM,
            NORMALIZER_CONSUMER,
            ack_wait_s=settings.normalizer_ack_wait_s,
            # What is parked counts as pending. At this limit a flood would hold up everybody.
            max_pending=settings.normalizer_max_pending,
        ),
        PullLimits(settings.normalizer_pull_messages, settings.normalizer_pull_bytes),
        batch_bytes=settings.normalizer_batch_bytes,
        beside_bytes=settings.normalizer_beside_bytes,
        path_bytes=settings.normalizer_tenant_bytes,
        buffer_bytes=settings.normalizer_buffer_bytes,
    )


class CallbacksFeed(FairFeed):
    """A fair feed of what lies under the queue paths of tenants.

    Whose callbacks lie under one is not judged here, but by the fence of each commit.
    """

    def __init__(
        self,
        client: Client,
        js: JetStreamContext,
        config: FeedConfig,
        tenants: Tenants,
        unowned: Unowned,
        *,
        unknown_pause_s: float = 2.0,
    ) -> None:
        super().__init__(client, js, config, admit=self._has_a_tenant)
        self._unowned = unowned
        self._unknown_pause_s = unknown_pause_s
        self._paths: dict[str, str] = {}
        self._owners: Counter[str] = Counter()
        tenants.listen(self._tenant_changed)

    def _tenant_changed(self, tenant_id: str, tenant: Tenant | None) -> None:
        before = self._paths.pop(tenant_id, "")
        if tenant is not None:
            path = self._paths[tenant_id] = queue_path_key(tenant.queue_path)
            self._owners[path] += 1
        # A new tenant may have the path already: its registration can be heard of before the other's deletion.
        if before:
            self._owners[before] -= 1
            if not self._owners[before]:
                del self._owners[before]
                self.drop(before)

    async def _has_a_tenant(self, message: StreamMessage) -> bool:
        if message.subject.endswith(HELD_SUFFIX):
            # It is where it shall be, and comes again under its channel's own subject. (A filter of the consumer that
            # leaves it out would cost the broker more for every other message than this does.)
            await message.ack()
            return False
        if message.path in self._owners:
            return True
        if message.subject == CANARY_SUBJECT:
            # A gateway's trial whether the stream stores, which it could not delete again.
            await message.ack()
        elif self._unowned.is_over(message.path, message.stream_seq, message.deliveries):
            await message.term()
        else:
            # Registered a moment ago and not heard of here yet, as far as can be known.
            await message.nak(self._unknown_pause_s)
        return False
