"""``/v1/audits`` over audit: which files there are of what channels reported, and what proves that nobody has rewritten
them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from backhaul_proto.audit.v1 import audit_pb2 as pb
from fastapi import APIRouter, Path, Query, Response

from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.twins.audits import (
    CHAINS,
    DIGESTS,
    ERASURE,
    FILE,
    FILES,
    HEAD,
    LINK,
    PROOFS,
    AuditDigestPage,
    AuditErasureIn,
    AuditErasureOut,
    AuditFileOut,
    AuditFilePage,
    AuditHeadOut,
    AuditLinkOut,
    AuditProofsOut,
)
from backhaul_gateway.web.filters import Cursor, Filter, From, Limit, Text, To, microseconds, number_of, one_of
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import paged

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub

MAX_LINK_S = 604_800

MAX_PROOF_S = 15.0
"""For how long an answer is waited for: audit looks through all files of a tenant, and gives up before."""

FileId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="The file's id: the digits of its GUID.")]
LINES = "application/x-ndjson"

_Chain = Annotated[Literal["events", "backfill"], Path(description="What callbacks brought, or what came later.")]
_EventId = Annotated[Text, Query(min_length=1, max_length=64, description="The event's id.")]
_DIGEST: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Two lines: what is signed, and its signature.",
        "content": {LINES: {"schema": {"type": "string", "format": "binary"}}},
    }
}


class AuditRoutes:
    """A tenant's audit files and their digests, as audit knows them."""

    def __init__(self, callers: Callers, audit: AuditServiceAsyncStub) -> None:
        self._written = callers.written
        self._audit = audit

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        get = partial(router.add_api_route, methods=["GET"])
        get("/audits", self.list_files, response_model=AuditFilePage)
        get("/audits/head", self.get_head, response_model=AuditHeadOut)
        get("/audits/proof", self.prove, response_model=AuditProofsOut, responses=problems(404))
        get("/audits/digests", self.list_digests, response_model=AuditDigestPage)
        one = "/audits/digests/{chain}/{number}"
        get(one, self.get_digest, response_class=Response, responses={**_DIGEST, **problems(404)})
        get("/audits/{file_id}", self.get_file, response_model=AuditFileOut, responses=problems(404))
        post = partial(router.add_api_route, methods=["POST"])
        post("/audits/{file_id}/link", self.link_file, response_model=AuditLinkOut, responses=problems(404, 409))
        post("/audits/erasures", self.erase_person, response_model=AuditErasureOut, responses=problems(400))

    async def list_files(
        self,
        by: By,
        channel: Filter = "",
        chain: Annotated[str, one_of(CHAINS)] = "",
        from_: From = None,
        to: To = None,
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """Files, the latest first; with ``from`` and ``to`` those with events that arrived then."""
        request = pb.ListFilesRequest(
            tenant_id=by.tenant.id,
            channel=channel,
            chain=number_of(CHAINS, chain, "chain"),
            from_us=microseconds(from_),
            to_us=microseconds(to),
            page_size=limit,
            page_token=cursor,
        )
        return await self._written(FILES, await paged(self._audit.ListFiles(request)))

    async def get_file(self, by: By, file_id: FileId) -> Response:
        """What a file is, also when it is deleted."""
        answer = await self._audit.DescribeFile(pb.DescribeFileRequest(tenant_id=by.tenant.id, file_id=file_id))
        return await self._written(FILE, answer.file)

    async def link_file(
        self,
        by: By,
        file_id: FileId,
        valid_s: Annotated[int, Query(ge=1, le=MAX_LINK_S, description="For so many seconds.")] = 900,
    ) -> Response:
        """An address at the object storage from which the file can be fetched without a credential, for a while."""
        request = pb.LinkFileRequest(tenant_id=by.tenant.id, file_id=file_id, valid_s=valid_s)
        return await self._written(LINK, await self._audit.LinkFile(request))

    async def list_digests(
        self,
        by: By,
        chain: Annotated[str, one_of(CHAINS)] = "events",
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """Digests of a chain, the latest first."""
        request = pb.ListDigestsRequest(
            tenant_id=by.tenant.id,
            chain=number_of(CHAINS, chain or "events", "chain"),
            page_size=limit,
            page_token=cursor,
        )
        return await self._written(DIGESTS, await paged(self._audit.ListDigests(request)))

    async def get_digest(self, by: By, chain: _Chain, number: Annotated[int, Path(ge=1, le=2**63 - 1)]) -> Response:
        """A digest exactly as it is stored: the line that is signed, and the line of its signature."""
        request = pb.GetDigestRequest(tenant_id=by.tenant.id, chain=number_of(CHAINS, chain, "chain"), number=number)
        answer = await self._audit.GetDigest(request)
        name = answer.digest.key.rpartition("/")[2]
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(answer.data, headers=headers, media_type=LINES)

    async def get_head(self, by: By) -> Response:
        """The last digest of each chain. Whoever keeps its hash elsewhere can prove later that nothing which came
        before was changed, left out or added."""
        return await self._written(HEAD, await self._audit.GetHead(pb.GetHeadRequest(tenant_id=by.tenant.id)))

    async def prove(self, by: By, event_id: _EventId) -> Response:
        """In which files an event lies, where in them, and which digests sign them."""
        asked = pb.ProveRequest(tenant_id=by.tenant.id, event_id=event_id)
        answer = await self._audit.Prove(asked, timeout=MAX_PROOF_S)
        return await self._written(PROOFS, answer)

    async def erase_person(self, by: By, body: AuditErasureIn) -> Response:
        """Destroy the key of a person: what encrypted files hold of them, nobody can read from then on. It cannot be
        taken back. The files stay as they are signed, and so does what other people's lines say. May be repeated."""
        asked = pb.ErasePersonRequest(tenant_id=by.tenant.id, address=body.address)
        return await self._written(ERASURE, await self._audit.ErasePerson(asked))
