"""``/v1/audits/{id}/content`` and ``/v1/audits/verify``: what comes in pieces, passed through as it comes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_proto.audit.v1 import audit_pb2 as pb
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from backhaul_gateway.reads.audits import LINES, FileId
from backhaul_gateway.reads.callers import By
from backhaul_gateway.reads.streaming import answers_of, begun, unless_gone
from backhaul_gateway.twins.audits import CHAINS, PROGRESS, AuditProgressOut, AuditVerifiedOut
from backhaul_gateway.twins.turns import finished
from backhaul_gateway.twins.twin import time_of
from backhaul_gateway.web.filters import From, To, microseconds, number_of, one_of
from backhaul_gateway.web.openapi import problems

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub

MAX_HEADS = 100

MAX_INVALID = 1000
"""Of what was wrong, in one answer: beyond it the chain is wrong as a whole. With ``progress`` all of it is told."""

_GZIP, _ARRAY = "application/gzip", "application/json"
_A_FILE = {"schema": {"type": "string", "format": "binary"}}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file.",
        "content": dict.fromkeys((LINES, _ARRAY, _GZIP), _A_FILE),
        "headers": {
            "Repr-Digest": {
                "description": "The SHA-256 under which the file was sealed (RFC 9530). Not where it is decrypted.",
                "schema": {"type": "string"},
            }
        },
    }
}
_Head = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _verified() -> dict[int | str, dict[str, Any]]:
    line = AuditProgressOut.model_json_schema(ref_template="#/components/schemas/{model}")
    # The summary's model brings them into the document.
    del line["$defs"]
    return {
        200: {
            "description": "All of it was checked, and this was found.",
            "model": AuditVerifiedOut,
            "content": {LINES: {"schema": line}},
        }
    }


class AuditFileRoutes:
    """Files that are read, and checked."""

    def __init__(self, audit: AuditServiceAsyncStub) -> None:
        self._audit = audit

    def add_to(self, router: APIRouter) -> None:
        """Add both routes."""
        get = partial(router.add_api_route, methods=["GET"], response_class=Response)
        get("/audits/verify", self.verify, responses=_verified())
        get("/audits/{file_id}/content", self.get_content, responses={**_CONTENT, **problems(404, 409)})

    async def get_content(
        self,
        request: Request,
        by: By,
        file_id: FileId,
        decrypted: Annotated[bool, Query(description="Inflated, and each line as if it had never been encrypted.")] = (
            False
        ),
    ) -> Response:
        """The file, byte by byte as it is stored and signed: a compressed one comes as a ``.gz`` file that nothing on
        the way inflates. It comes as a whole, of the length that was sealed; an answer that ends before was cut off.
        Large files come faster, and in parts, from the address that ``link`` gives.

        With ``decrypted`` it is what the file holds, inflated, and with people's lines readable. Of whoever is erased a
        line stays as it is stored, its ``encrypted`` null. What was changed since it was sealed is cut off.
        """
        pieces = self._read(pb.GetFileRequest(tenant_id=by.tenant.id, file_id=file_id, decrypted=decrypted))
        first = await anext(pieces, None)
        if first is None:
            raise unavailable("Audit")
        media_type, headers = _headers_of(first.file, decrypted)
        data = _data(first, pieces)
        if not decrypted:
            data = _of_length(first.file.bytes, data)
        return await begun(data, media_type, headers, watched=request)

    async def verify(
        self,
        request: Request,
        by: By,
        from_: From = None,
        to: To = None,
        chain: Annotated[str, one_of(CHAINS)] = "",
        head: Annotated[
            list[_Head] | None,
            Query(
                max_length=MAX_HEADS, description="A hash of a digest that you have kept; several times for several."
            ),
        ] = None,
        progress: Annotated[bool, Query(description="Answer JSON Lines while it is checked.")] = False,
    ) -> Response:
        """Check every digest of a span of time, and every file that it lists, against the object storage. It reads all
        of them, so it takes its time: ask for ``progress`` where something on the way gives silent answers up."""
        asked = pb.VerifyRequest(
            tenant_id=by.tenant.id,
            from_us=microseconds(from_),
            to_us=microseconds(to),
            chain=number_of(CHAINS, chain, "chain"),
            heads=head or (),
        )
        answers = self._verified(asked)
        if progress:
            return await begun(_progress_lines(answers), LINES, watched=request)
        # Nobody reads the answer to a question that was given up.
        return await unless_gone(request, _summary(answers)) or Response(status_code=204)

    async def _read(self, request: pb.GetFileRequest) -> AsyncGenerator[pb.GetFileResponse, None]:
        async with answers_of(self._audit.GetFile(request)) as answers:
            async for answer in answers:
                yield answer

    async def _verified(self, request: pb.VerifyRequest) -> AsyncGenerator[pb.VerifyResponse, None]:
        done = False
        async with answers_of(self._audit.Verify(request)) as answers:
            async for answer in answers:
                done = answer.done
                yield answer
        if not done:
            raise unavailable("Audit")


def _headers_of(file: pb.AuditFile, decrypted: bool) -> tuple[str, dict[str, str]]:
    """The media type, and the headers beside it. No Content-Encoding: it would make clients inflate what is signed as
    it is stored. Nobody knows the length of a file that is decrypted, nor has anybody signed it."""
    plain = _ARRAY if file.format == pb.FILE_FORMAT_ARRAY else LINES
    name = file.key.rpartition("/")[2]
    headers = {"accept-ranges": "none"}
    if decrypted:
        return plain, {**headers, "content-disposition": f'attachment; filename="{name.removesuffix(".gz")}"'}
    return _GZIP if file.gzip else plain, {
        **headers,
        "content-disposition": f'attachment; filename="{name}"',
        "content-length": str(file.bytes),
        "repr-digest": f"sha-256=:{b64encode(bytes.fromhex(file.sha256)).decode('ascii')}:",
    }


async def _of_length(length: int, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """``pieces`` while they may be ``length`` bytes together. FAILED_PRECONDITION where they are not: the object was
    changed since, and no answer may look whole."""
    left = length
    async with aclosing(pieces):
        async for piece in pieces:
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if left:
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            f"The file was changed since it was sealed: it no longer has {length} bytes.",
            fix="Have the bucket's owner restore it. What is there now comes from the address that link gives.",
        )


async def _data(
    first: pb.GetFileResponse, others: AsyncGenerator[pb.GetFileResponse, None]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(others):
        yield first.data
        async for answer in others:
            yield answer.data


async def _progress_lines(answers: AsyncGenerator[pb.VerifyResponse, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(answers):
        async for answer in answers:
            yield finished(PROGRESS.json(answer)) + b"\n"


async def _summary(answers: AsyncGenerator[pb.VerifyResponse, None]) -> Response:
    last, invalid, complete = pb.VerifyResponse(), pb.VerifyResponse(), True
    async with aclosing(answers):
        async for last in answers:
            wrong = [finding for finding in last.findings if not finding.valid]
            room = MAX_INVALID - len(invalid.findings)
            invalid.findings.extend(wrong[:room])
            complete = complete and len(wrong) <= room
    found = orjson.loads(finished(PROGRESS.json(invalid)))["findings"]
    body = {
        # Nothing that was found wrong where nothing was found at all says nothing.
        "valid": not found and last.digests > 0,
        "summary": [
            f"{last.valid_digests}/{last.digests} digests valid",
            f"{last.valid_files}/{last.files} files valid",
        ],
        "digests": last.digests,
        "valid_digests": last.valid_digests,
        "files": last.files,
        "valid_files": last.valid_files,
        "found_from": time_of(last.found_from_us),
        "found_to": time_of(last.found_to_us),
        "invalid": found,
        "invalid_complete": complete,
    }
    return Response(orjson.dumps(body), media_type="application/json")
