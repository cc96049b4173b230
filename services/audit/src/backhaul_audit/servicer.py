"""gRPC to files, digests and their verification, and back; nothing is decided here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import channel_key
from backhaul_common.pages import span_of
from backhaul_common.places import Places
from backhaul_common.tenants import Tenant
from backhaul_digests.model import ChainKey, Digest
from backhaul_proto.audit.v1 import audit_pb2 as pb
from backhaul_proto.audit.v1.audit_pb2_grpc import AuditServiceServicer

from backhaul_audit.messages import (
    CHAINS,
    address_of,
    chain_of,
    communication_of,
    digest_message,
    file_message,
    key_message,
    query_of,
    recounted_message,
    state_message,
    verified_message,
)
from backhaul_audit.ports import Digests, Files, FilesQuery, Keys, People, Verification
from backhaul_audit.reading import Reading
from backhaul_audit.recounting.ports import Recounts
from backhaul_audit.standing import Standing

MAX_VERIFICATIONS_OF_TENANT, MAX_VERIFICATIONS = 1, 4
"""Each reads and hashes everything of a span of time."""

MAX_RECOUNTS_OF_TENANT, MAX_RECOUNTS = 1, 4
"""Each lists all events of a communication, and looks for them in files."""


class Tenants(Protocol):
    """Who is served."""

    async def require(self, tenant_id: str) -> Tenant:
        """The tenant. NOT_FOUND; UNAVAILABLE."""
        ...


class AuditServicer(AuditServiceServicer):
    """``backhaul_proto.audit.v1.AuditService``. Errors are BackhaulErrors; the server's edge translates."""

    def __init__(
        self,
        tenants: Tenants,
        files: Files,
        digests: Digests,
        reading: Reading,
        *,
        people: People,
        keys: Keys,
        verification: Verification,
        recounts: Recounts,
        standing: Standing,
        stored: Callable[[Digest], bytes],
        now_us: Callable[[], int],
    ) -> None:
        """``stored`` is a digest's object."""
        self._tenants = tenants
        self._files = files
        self._digests = digests
        self._reading = reading
        self._people = people
        self._keys = keys
        self._verification = verification
        self._recounts = recounts
        self._standing = standing
        self._stored = stored
        self._now_us = now_us
        self._verifying = Places("verifications", of_tenant=MAX_VERIFICATIONS_OF_TENANT, of_all=MAX_VERIFICATIONS)
        self._recounting = Places("recounts", of_tenant=MAX_RECOUNTS_OF_TENANT, of_all=MAX_RECOUNTS)

    async def ListFiles(self, request: pb.ListFilesRequest, context: Any) -> pb.ListFilesResponse:
        """Files, the latest first."""
        registration = await self._registration(request.tenant_id)
        query = FilesQuery(
            channel=channel_key(request.channel),
            chain=CHAINS.value(request.chain, "chain"),
            span=span_of(request.from_us, request.to_us),
            size=request.page_size,
            token=request.page_token,
        )
        files, token = await self._files.page(registration, query)
        return pb.ListFilesResponse(files=map(file_message, files), next_page_token=token)

    async def DescribeFile(self, request: pb.DescribeFileRequest, context: Any) -> pb.DescribeFileResponse:
        """What a file is."""
        registration = await self._registration(request.tenant_id)
        return pb.DescribeFileResponse(file=file_message(await self._reading.require(registration, request.file_id)))

    async def GetFile(self, request: pb.GetFileRequest, context: Any) -> AsyncIterator[pb.GetFileResponse]:
        """A file in pieces."""
        registration = await self._registration(request.tenant_id)
        file = await self._reading.require(registration, request.file_id)
        about: pb.AuditFile | None = file_message(file)
        read = self._reading.content_of if request.decrypted else self._reading.bytes_of
        async with aclosing(read(registration, file)) as pieces:
            async for piece in pieces:
                yield pb.GetFileResponse(file=about, data=piece)
                about = None

    async def LinkFile(self, request: pb.LinkFileRequest, context: Any) -> pb.LinkFileResponse:
        """An address to fetch a file from."""
        registration = await self._registration(request.tenant_id)
        file = await self._reading.require(registration, request.file_id)
        # Taken before: the address ends no earlier than is said.
        now_us = self._now_us()
        url, seconds = await self._reading.link(registration, file, request.valid_s)
        return pb.LinkFileResponse(url=url, expires_at_us=now_us + seconds * 1_000_000)

    async def ListDigests(self, request: pb.ListDigestsRequest, context: Any) -> pb.ListDigestsResponse:
        """Digests of a chain, the latest first."""
        of = ChainKey(await self._registration(request.tenant_id), chain_of(request.chain))
        digests, token = await self._digests.page(of, request.page_size, request.page_token)
        return pb.ListDigestsResponse(digests=map(digest_message, digests), next_page_token=token)

    async def GetDigest(self, request: pb.GetDigestRequest, context: Any) -> pb.GetDigestResponse:
        """One digest."""
        of = ChainKey(await self._registration(request.tenant_id), chain_of(request.chain))
        digest = await self._digests.get(of, request.number) if request.number > 0 else None
        if digest is None:
            raise BackhaulError(
                Code.NOT_FOUND,
                "There is no such digest.",
                field="number",
                fix="Digests are numbered from 1 without gaps, to that of the head of its chain.",
            )
        return pb.GetDigestResponse(digest=digest_message(digest), data=self._stored(digest))

    async def GetHead(self, request: pb.GetHeadRequest, context: Any) -> pb.GetHeadResponse:
        """The last digest of each chain."""
        registration = await self._registration(request.tenant_id)
        return pb.GetHeadResponse(heads=await self._heads(await self._digests.chains(registration)))

    async def Prove(self, request: pb.ProveRequest, context: Any) -> pb.ProveResponse:
        """In which files an event lies."""
        registration = await self._registration(request.tenant_id)
        holding = await self._files.holding(registration, request.event_id)
        found = holding.held
        if not found:
            raise BackhaulError(
                Code.NOT_FOUND,
                "The event lies in no file of which it is known what lies in it."
                if holding.unknown
                else "The event lies in no file.",
                field="event_id",
                fix="Check the id, and whether its channel asked for audit files when it arrived. What has just "
                "arrived lies in a file some minutes later."
                + (f" Or look into the {holding.unknown} files of which it is not known." if holding.unknown else ""),
            )
        proofs = []
        for held in found:
            of, number = held.file.plan.pile.of, held.file.digest
            digest = await self._digests.get(of, number) if number else None
            proofs.append(
                pb.Proof(
                    revision=held.revision,
                    file=file_message(held.file),
                    place=held.place,
                    digest=digest_message(digest) if digest is not None else None,
                )
            )
        chains = dict.fromkeys(held.file.plan.pile.of for held in found)
        return pb.ProveResponse(proofs=proofs, heads=await self._heads(chains))

    async def Verify(self, request: pb.VerifyRequest, context: Any) -> AsyncIterator[pb.VerifyResponse]:
        """How far a verification is, and last its summary."""
        tenant = await self._tenants.require(request.tenant_id)
        query = query_of(request)
        with self._verifying.taken(tenant.registration):
            async with aclosing(self._verification.run(tenant, query)) as told:
                async for verified in told:
                    yield verified_message(verified)

    async def GetState(self, request: pb.GetStateRequest, context: Any) -> pb.GetStateResponse:
        """How it stands with the files of each channel that asks for them."""
        channels, read_to_us = await self._standing.of(await self._tenants.require(request.tenant_id))
        return pb.GetStateResponse(channels=map(state_message, channels), read_to_us=read_to_us)

    async def Recount(self, request: pb.RecountRequest, context: Any) -> AsyncIterator[pb.RecountResponse]:
        """What a communication counts, and what of it lies in files."""
        tenant = await self._tenants.require(request.tenant_id)
        communication_id = communication_of(request)
        with self._recounting.taken(tenant.registration):
            async with aclosing(self._recounts.run(tenant, communication_id)) as told:
                async for recounted in told:
                    yield recounted_message(recounted)

    async def ErasePerson(self, request: pb.ErasePersonRequest, context: Any) -> pb.ErasePersonResponse:
        """Destroy the key of a person."""
        registration = await self._registration(request.tenant_id)
        address = address_of(request.address)
        # Read before: whoever gets no answer may ask again, and nothing is left to fail behind what is done once.
        plain = await self._files.plain_channels(registration)
        erased = await self._people.erase(registration, address)
        return pb.ErasePersonResponse(
            destroyed=erased.destroyed, erased_before_us=erased.before_us, plain_channels=plain
        )

    async def ListKeys(self, request: pb.ListKeysRequest, context: Any) -> pb.ListKeysResponse:
        """All public keys."""
        return pb.ListKeysResponse(keys=map(key_message, await self._keys.all()))

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Any) -> pb.RotateKeyResponse:
        """A new key."""
        return pb.RotateKeyResponse(key=key_message(await self._keys.rotate()))

    async def _registration(self, tenant_id: str) -> str:
        return (await self._tenants.require(tenant_id)).registration

    async def _heads(self, chains: Sequence[ChainKey] | Mapping[ChainKey, None]) -> list[pb.Digest]:
        heads = [await self._digests.head(of) for of in sorted(chains)]
        return [digest_message(head) for head in heads if head is not None]
