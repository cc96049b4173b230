"""gRPC to what is registered and back; nothing is decided here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

from backhaul_common.documents import Document
from backhaul_common.names import channel_key
from backhaul_common.tenants import Tenant
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceServicer

from backhaul_normalizer.answers import communication_answer, message_answer
from backhaul_normalizer.communications.answers import (
    BATCH_STATUSES,
    STATUSES,
    batch_answer,
    info_answer,
    member_answer,
)
from backhaul_normalizer.communications.calls import AddCalls
from backhaul_normalizer.communications.documents import MAX_NAME, communication_id_of
from backhaul_normalizer.communications.reading import (
    MembersRow,
    MongoCommunications,
    batches_query,
    communications_query,
)
from backhaul_normalizer.communications.registering import BatchTold, MongoRegister, no_communication
from backhaul_normalizer.communications.validation import (
    MAX_AUTHOR,
    MAX_REASON,
    checked_expected,
    checked_id,
    checked_text,
    registered_of,
)
from backhaul_normalizer.ports import KnownTenants
from backhaul_normalizer.reads import MongoReads


class CommunicationServicer(CommunicationServiceServicer):
    """``backhaul_proto.normalizer.v1.CommunicationService``. Errors are BackhaulErrors, which the edge translates."""

    def __init__(
        self,
        tenants: KnownTenants,
        register: MongoRegister,
        adds: AddCalls,
        communications: MongoCommunications,
        reads: MongoReads,
    ) -> None:
        self._tenants = tenants
        self._register = register
        self._adds = adds
        self._communications = communications
        self._reads = reads

    async def PutCommunication(self, request: pb.PutCommunicationRequest, context: Any) -> pb.PutCommunicationResponse:
        """Registers a communication, or changes what is registered of it."""
        communication_id = checked_id(request.communication_id, "communication_id")
        tenant = await self._with_channel(request.tenant_id, channel_key(request.settings.channel))
        registered = registered_of(request.settings, tenant.channels)
        put = await self._register.put_communication(tenant, communication_id, registered)
        return pb.PutCommunicationResponse(communication=info_answer(put.document), created=put.created)

    async def DescribeCommunication(
        self, request: pb.DescribeCommunicationRequest, context: Any
    ) -> pb.DescribeCommunicationResponse:
        """All that is known of one."""
        registration = (await self._tenants.require(request.tenant_id)).registration
        document = await self._communications.communication(registration, request.communication_id)
        counts = await self._reads.communication(registration, request.communication_id)
        if counts is None:
            raise no_communication()
        batches, more = await self._communications.batches_of(document) if document is not None else ([], False)
        return pb.DescribeCommunicationResponse(
            communication=info_answer(document or _only_counted(counts)),
            counts=communication_answer(counts),
            batches=[batch_answer(*one) for one in batches],
            more_batches=more,
        )

    async def ListCommunications(
        self, request: pb.ListCommunicationsRequest, context: Any
    ) -> pb.ListCommunicationsResponse:
        """Communications, newest first."""
        registration = (await self._tenants.require(request.tenant_id)).registration
        query = communications_query(
            registration,
            {
                "status": STATUSES.by_number.get(request.status, ""),
                "registered.mode": request.mode,
                "registered.channel": channel_key(request.channel),
            },
            (request.from_us, request.to_us),
            request.page_size,
            request.page_token,
            registered=request.registered,
        )
        rows, token = await self._communications.communications(query)
        return pb.ListCommunicationsResponse(communications=map(info_answer, rows), next_page_token=token)

    async def DisableCommunication(
        self, request: pb.DisableCommunicationRequest, context: Any
    ) -> pb.DisableCommunicationResponse:
        """Has nothing called on its behalf any more."""
        return pb.DisableCommunicationResponse(
            communication=await self._switch(request, disabled=True, subscription_id=request.subscription_id)
        )

    async def EnableCommunication(
        self, request: pb.EnableCommunicationRequest, context: Any
    ) -> pb.EnableCommunicationResponse:
        """Takes that back."""
        return pb.EnableCommunicationResponse(communication=await self._switch(request, disabled=False))

    async def PutBatch(self, request: pb.PutBatchRequest, context: Any) -> pb.PutBatchResponse:
        """Registers a batch, or changes it."""
        told = BatchTold(
            checked_text(request.label, "label", MAX_NAME),
            checked_expected(request.expected_members),
            request.deadline_at_us,
        )
        batch_id = checked_id(request.batch_id, "batch_id")
        tenant = await self._tenants.require(request.tenant_id)
        put = await self._register.put_batch(tenant, request.communication_id, batch_id, told)
        return pb.PutBatchResponse(batch=await self._batch(tenant, batch_id), created=put.created)

    async def ListBatches(self, request: pb.ListBatchesRequest, context: Any) -> pb.ListBatchesResponse:
        """Batches, newest first."""
        registration = (await self._tenants.require(request.tenant_id)).registration
        of = communication_id_of(registration, request.communication_id) if request.communication_id else b""
        filters = {"communication": of, "status": BATCH_STATUSES.by_number.get(request.status, "")}
        query = batches_query(registration, filters, request.page_size, request.page_token)
        rows, token = await self._communications.batches(query)
        return pb.ListBatchesResponse(batches=[batch_answer(*one) for one in rows], next_page_token=token)

    async def GetBatch(self, request: pb.GetBatchRequest, context: Any) -> pb.GetBatchResponse:
        """One batch and its progress."""
        tenant = await self._tenants.require(request.tenant_id)
        return pb.GetBatchResponse(batch=await self._batch(tenant, request.batch_id))

    async def AddMembers(
        self, request: AsyncIterator[pb.AddMembersRequest], context: Any
    ) -> AsyncIterator[pb.AddMembersResponse]:
        """Adds members to an open batch."""
        first = await anext(request)
        tenant = await self._tenants.require(first.tenant_id)
        async with aclosing(self._adds.run(tenant, first, request)) as answers:
            async for answer in answers:
                yield answer

    async def CloseBatch(self, request: pb.CloseBatchRequest, context: Any) -> pb.CloseBatchResponse:
        """No member is added to it any more."""
        tenant = await self._tenants.require(request.tenant_id)
        await self._register.close_batch(tenant, request.batch_id)
        return pb.CloseBatchResponse(batch=await self._batch(tenant, request.batch_id))

    async def ListMembers(self, request: pb.ListMembersRequest, context: Any) -> AsyncIterator[pb.ListMembersResponse]:
        """A batch's members with what became of each."""
        registration = (await self._tenants.require(request.tenant_id)).registration
        running = self._communications.members(registration, request.batch_id, request.page_size, request.page_token)
        async with aclosing(running) as rows:
            async for row in rows:
                yield _members_answer(request.batch_id, row)

    async def GetMember(self, request: pb.GetMemberRequest, context: Any) -> pb.GetMemberResponse:
        """One member of a batch."""
        registration = (await self._tenants.require(request.tenant_id)).registration
        row = await self._communications.member(registration, request.batch_id, request.member_key)
        return pb.GetMemberResponse(member=_members_answer(request.batch_id, row).members[0])

    async def _switch(self, request: _Switch, *, disabled: bool, subscription_id: str = "") -> pb.CommunicationInfo:
        reason = checked_text(request.reason, "reason", MAX_REASON, required=disabled)
        author = checked_text(request.author, "author", MAX_AUTHOR)
        tenant = await self._tenants.require(request.tenant_id)
        row = await self._register.switch(
            tenant,
            request.communication_id,
            disabled=disabled,
            reason=reason,
            author=author,
            subscription_id=subscription_id,
        )
        return info_answer(row)

    async def _batch(self, tenant: Tenant, batch_id: str) -> pb.Batch:
        return batch_answer(*await self._communications.batch(tenant.registration, batch_id))

    async def _with_channel(self, tenant_id: str, channel: str) -> Tenant:
        """The tenant, read once more where this copy has not heard of such a channel of it."""
        tenant = await self._tenants.require(tenant_id)
        if channel and channel not in tenant.channels:
            tenant = await self._tenants.reload(tenant_id) or tenant
        return tenant


class _Switch(Protocol):
    @property
    def tenant_id(self) -> str: ...
    @property
    def communication_id(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def author(self) -> str: ...


def _only_counted(counts: Document) -> Document:
    """What is known of a communication that has counts alone, which are older than the documents of communications."""
    told = {name: counts[name] for name in ("communication_id", "created_at_us")}
    return {**told, "status": "active"}


def _members_answer(batch_id: str, row: MembersRow) -> pb.ListMembersResponse:
    messages = {key: message_answer(one) for key, one in row.messages.items()}
    members = [member_answer(member, messages) for member in row.members]
    for member in members:
        for destination in member.destinations:
            if destination.HasField("message"):
                destination.message.batch_id, destination.message.member_key = batch_id, member.key
    return pb.ListMembersResponse(members=members, next_page_token=row.token)
