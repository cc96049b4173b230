"""What is known of communications, compared with what the normalizer says.

A notice tells when one is disabled or enabled. Whoever began to listen later, or lost one for good, would send on
behalf of what is disabled, or hold for ever what is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.revisioned import Directory
from backhaul_proto.normalizer.v1 import communications_pb2 as communications

from backhaul_notifier.holding.switches import Switch, Switched, holds_back
from backhaul_notifier.model import Subscription

if TYPE_CHECKING:
    # The asynchronous stubs exist in the type stubs only; over a channel of grpc.aio the one class answers awaitables.
    from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceAsyncStub

COMPARE_S: Final = 600.0

_PAGE: Final = 500


class Comparing:
    """Every copy compares; two that do so at once are none the worse for it."""

    def __init__(
        self,
        communications: CommunicationServiceAsyncStub,
        subscriptions: Callable[[], Awaitable[Iterable[Subscription]]],
        switched: Directory[Switched],
        note: Callable[[Switch], Awaitable[None]],
        now_us: Callable[[], int],
    ) -> None:
        """``subscriptions`` gives all, UNAVAILABLE before they are read; ``note`` is that of ``Switching``."""
        self._communications = communications
        self._subscriptions = subscriptions
        self._switched = switched
        self._note = note
        self._now_us = now_us
        self._log = get_logger(component="comparing")

    async def run(self) -> None:
        """Compare now and then, until cancelled. UNAVAILABLE."""
        while True:
            await self.once()
            await asyncio.sleep(COMPARE_S)

    async def once(self) -> None:
        """Compare what is known of each tenant that has something held. UNAVAILABLE."""
        await self._switched.check()
        tenants = {
            one.registration: one.tenant
            for one in await self._subscriptions()
            if one.readable and not one.deleted and holds_back(one)
        }
        for registration, tenant in tenants.items():
            try:
                await self._compare(tenant, registration)
            except BackhaulError as exc:
                if exc.code is Code.UNAVAILABLE:
                    raise
                # The tenant is gone by now, or has too many to be listed in time.
                self._log.warning("communications_not_compared", tenant=tenant, error=str(exc))

    async def _compare(self, tenant: str, registration: str) -> None:
        known = {
            one.communication_id
            for one in self._switched.values.values()
            if one.registration == registration and one.disabled
        }
        async for one in self._disabled(tenant):
            if one.id in known:
                known.remove(one.id)
            elif one.switched:
                await self._note(Switch(tenant, registration, one.id, one.switched[0].disabled, one.switched[0].at_us))
        for id_ in known:
            await self._note(await self._latest(tenant, registration, id_))

    async def _disabled(self, tenant: str) -> AsyncIterator[communications.CommunicationInfo]:
        request = communications.ListCommunicationsRequest(
            tenant_id=tenant, status=communications.COMMUNICATION_STATUS_DISABLED, page_size=_PAGE
        )
        while True:
            answer = await self._communications.ListCommunications(request)
            for one in answer.communications:
                yield one
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    async def _latest(self, tenant: str, registration: str, id_: str) -> Switch:
        """What the normalizer says of a communication that is not among those that are disabled."""
        request = communications.DescribeCommunicationRequest(tenant_id=tenant, communication_id=id_)
        try:
            found = (await self._communications.DescribeCommunication(request)).communication
        except BackhaulError as exc:
            if exc.code is not Code.NOT_FOUND:
                raise
            found = communications.CommunicationInfo()
        if found.switched:
            return Switch(tenant, registration, id_, found.switched[0].disabled, found.switched[0].at_us)
        # Nothing is known of it any more, and so nobody could enable it.
        return Switch(tenant, registration, id_, False, self._now_us())
