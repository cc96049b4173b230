"""The use cases that are more than a query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backhaul_channels import Adapter, ErrorMeaning, Review
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import current_traceparent
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.callback.v1.callback_pb2 import Callback

from backhaul_normalizer.ports import CallbackPublisher, DeadLetters, KnownTenants, Reviews


def no_dead_letter() -> BackhaulError:
    """NOT_FOUND."""
    return BackhaulError(
        Code.NOT_FOUND, "There is no such dead letter.", field="id", fix="List the dead letters to see their ids."
    )


class NormalizerUseCases:
    """What internal services and, through the gateway, tenants may ask for."""

    def __init__(
        self,
        directory: KnownTenants,
        dead_letters: DeadLetters,
        callbacks: CallbackPublisher,
        adapters: Mapping[str, Adapter[Any]],
        reviews: Reviews,
    ) -> None:
        self._directory = directory
        self._dead_letters = dead_letters
        self._callbacks = callbacks
        self._adapters = adapters
        self._reviews = reviews
        self._log = get_logger(component="use_cases")

    async def tenant(self, tenant_id: str) -> Tenant:
        """See ``TenantDirectory.require``."""
        return await self._directory.require(tenant_id)

    def meaning(self, tenant: Tenant, channel: str, code: str) -> tuple[str, ErrorMeaning | None]:
        """The provider of a channel, and what its error code means. Of a channel that is gone nothing is known."""
        provider = tenant.channels[channel].provider if channel in tenant.channels else ""
        adapter = self._adapters.get(provider)
        return provider, adapter.explain(code) if adapter is not None else None

    async def replay(self, tenant_id: str, dead_letter_id: str, *, replay: str = "") -> Document:
        """Send a dead letter through once more, for the task ``replay`` or by itself, and close it; it opens again if
        it is refused again.

        Published before it is closed: a crash in between leaves it open, and what is replayed twice counts once.
        """
        tenant = await self.tenant(tenant_id)
        dead_letter = await self._open(tenant.registration, dead_letter_id)
        callback = Callback.FromString(dead_letter["callback"])
        if not callback.method:
            # Every callback came with one. This is what was kept of one whose bytes the store refused.
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                "The dead letter's bytes could not be kept, so there is nothing to replay.",
                field="id",
                fix="Discard it; its reason says where the callback is.",
            )
        if callback.source not in (callback_pb2.SOURCE_BACKFILL, callback_pb2.SOURCE_SENDER):
            # What the provider's API or the sender told stays marked as such, since it is read otherwise.
            callback.source = callback_pb2.SOURCE_REPLAY
        callback.traceparent = current_traceparent()
        await self._callbacks.publish(
            tenant.queue_path, callback, f"replay-{dead_letter_id}-{dead_letter['occurrences']}"
        )
        self._log.info("dead_letter_replayed", tenant=tenant_id, dead_letter_id=dead_letter_id)
        return await self._close(tenant.registration, dead_letter, "replayed", replay=replay)

    async def discard(self, tenant_id: str, dead_letter_id: str) -> Document:
        """Close a dead letter without processing it."""
        registration = (await self.tenant(tenant_id)).registration
        dead_letter = await self._open(registration, dead_letter_id)
        closed = await self._close(registration, dead_letter, "discarded")
        if closed["state"] == "open":
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                "The dead letter was refused once more while it was being discarded.",
                fix="Look at it again, then repeat the call.",
            )
        self._log.info("dead_letter_discarded", tenant=tenant_id, dead_letter_id=dead_letter_id)
        return closed

    async def review(self, tenant_id: str, event_id: str, review: Review) -> Document:
        """Accept or dismiss a flagged reply. See ``Reviews``."""
        tenant = await self.tenant(tenant_id)
        row = await self._reviews.decide(tenant, event_id, review, current_traceparent())
        self._log.info("reply_reviewed", tenant=tenant_id, event_id=event_id, review=review.value)
        return row

    async def _open(self, registration: str, dead_letter_id: str) -> Document:
        dead_letter = await self._dead_letters.dead_letter(registration, dead_letter_id)
        if dead_letter is None:
            raise no_dead_letter()
        if dead_letter["state"] != "open":
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                f"The dead letter is {dead_letter['state']}. Only an open dead letter can be replayed or discarded.",
                field="id",
                fix="Leave it. It opens by itself when the same is refused again.",
            )
        return dead_letter

    async def _close(self, registration: str, dead_letter: Document, state: str, *, replay: str = "") -> Document:
        closed = await self._dead_letters.close_dead_letter(registration, dead_letter, state, replay=replay)
        if closed is not None:
            return closed
        # Refused again already, or closed by somebody else: what is true now is the answer.
        return await self._dead_letters.dead_letter(registration, dead_letter["_id"]) or dead_letter
